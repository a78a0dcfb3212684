"""Quantize with a tool that cannot live beside onnxopt: `python benchmarks/foreign TOOL MODEL ARRAYS OUTPUT`.

Runs in the environment of `requirements-peers.txt`, where nothing of onnxopt is installed. TOOL is a module of this
folder with a function `quantize(model, arrays, output)`; ARRAYS is a `.npz` with one array per input of the model, the
samples stacked along a new first axis.
"""

import importlib
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Read the arrays, call the tool."""
    tool, model, arrays, output = sys.argv[1:]
    with np.load(arrays) as stacked:
        feeds = dict(stacked)
    importlib.import_module(tool).quantize(Path(model), feeds, Path(output))


if __name__ == "__main__":
    main()
