"""Execution providers of ONNX Runtime: by short name, and refused where the build lacks them."""

from pathlib import Path

import onnxruntime
import pytest

from onnxopt.errors import OptimizationError, UsageError
from onnxopt.runtime.ort import OrtRuntime, OrtSession

MODEL = Path(__file__).parents[2] / "testdata" / "patches_classifier.onnx"


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_names(name):
    runtime = OrtRuntime(name)
    assert runtime.provider == "CPUExecutionProvider"
    assert runtime.version == f"onnxruntime {onnxruntime.__version__}"
    assert runtime.open(MODEL).output_names == ["logits"]


def test_what_the_build_lacks():
    with pytest.raises(UsageError, match="no execution provider 'npu' here"):
        OrtRuntime("npu")


def test_what_does_not_start_is_said():
    """ONNX Runtime itself would fall back to the CPU without a word."""
    with pytest.raises(OptimizationError, match="cannot load the model"), pytest.warns(UserWarning, match="not in av"):
        OrtSession(MODEL, provider="NoSuchExecutionProvider")
