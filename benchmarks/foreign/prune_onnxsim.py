"""onnxsim's structured pruning, as it comes: `python prune_onnxsim.py MODEL OUTPUT SPARSITY`.

Runs in an environment with `onnxsim==0.8.1`, where nothing of onnxopt is installed.
"""

import sys

import onnx
import onnxsim


def main() -> None:
    """Simplify, prune, write."""
    model, output, sparsity = sys.argv[1:]
    simplified, _ = onnxsim.simplify(onnx.load(model))
    onnx.save(onnxsim.apply_structured_pruning(simplified, float(sparsity)), output)


if __name__ == "__main__":
    main()
