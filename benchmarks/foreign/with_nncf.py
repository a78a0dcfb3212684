"""NNCF's post-training quantization, the mixed preset, otherwise as it comes.

Its OpenVINO backend writes OpenVINO's format (`.xml` with a `.bin`), its ONNX backend a graph with Q/DQ (`.onnx`): what
the output is called chooses between them.
"""

from pathlib import Path
from typing import Any

import nncf
import onnx
import openvino


def quantize(model: Path, arrays: dict[str, Any], output: Path) -> None:
    """Quantize `model`; arrays as the command line describes them, all of which are used."""
    count = len(next(iter(arrays.values())))
    samples = nncf.Dataset([{name: stacked[i] for name, stacked in arrays.items()} for i in range(count)])
    settings = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": count}
    if output.suffix == ".xml":
        quantized = nncf.quantize(openvino.Core().read_model(model), samples, **settings)
        openvino.save_model(quantized, output, compress_to_fp16=False)
    else:
        onnx.save(nncf.quantize(onnx.load(model), samples, **settings), output)
