"""NVIDIA's Model-Optimizer: int8 with its default choice of nodes and its default calibrator, made for TensorRT."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from modelopt.onnx import quantization


def quantize(model: Path, arrays: dict[str, Any], output: Path) -> None:
    """Quantize `model`; arrays as the command line describes them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.onnx")
        onnx.save(onnx.load(model), copy)  # it writes the shapes that it infers into the file that it is given
        quantization.quantize(
            str(copy),
            quantize_mode="int8",
            calibration_data={name: np.concatenate(list(stacked)) for name, stacked in arrays.items()},
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(output),
        )
