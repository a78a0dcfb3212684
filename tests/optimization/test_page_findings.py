"""What is measured for a page alone: what can be, and why the rest cannot."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, synthetic
from onnxopt.optimization.findings import Pair
from onnxopt.registry import load_target
from onnxopt.runtime.adapter import load_runtime
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.testing import parse_graph

INPUTS = (InputSpec("x", (1, 3, 8, 8), np.dtype(np.float32)),)
FLOAT = """(float[1,3,8,8] x) => (float[1,4] y) < float[4,3,3,3] w > {
    c = Conv (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)  y = Softmax (f) }"""
PAIRS = """(float[1,3,8,8] x) => (float[1,4] y) < float[4,3,3,3] w, float s = {0.05}, uint8 z = {0} > {
    c = Conv (x, w)  r = Relu (c)  q = QuantizeLinear (r, s, z)  d = DequantizeLinear (q, s, z)
    p = GlobalAveragePool (d)  f = Flatten (p)  y = Softmax (f) }"""


def pair(target, runtime, **more):
    samples = synthetic(INPUTS, 3)
    return Pair(parse_graph(FLOAT), parse_graph(PAIRS), load_target(target), runtime, INPUTS, samples, samples, **more)


def test_where_the_target_cannot_run_onnx_runtime_shows_what_the_graph_says():
    found = pair("tensorrt", None).measure()
    assert [layer.op for layer in found.layers] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Softmax"]
    assert {layer.milliseconds for layer in found.layers} == {None}
    assert found.layers[1].sqnr_db < 60
    assert [spectrum.tensor for spectrum in found.spectra] == ["r"]
    assert len(found.pictures) == 3
    assert found.after.compressed_bytes > 0
    assert (found.after.peak_bytes, found.notes) == (None, ())


class Broken(OrtRuntime):
    """A runtime whose profiler and kernels give up."""

    def kernels(self, model):
        return super().kernels(parse_graph("(float[1] a) => (float[1] b) { b = Nothing (a) }").to_proto())

    kernel_times = None


def test_what_cannot_be_measured_is_left_out_and_said(monkeypatch):
    from onnxopt.errors import OptimizationError

    def fails(*_, **__):
        raise OptimizationError("no processes here")

    monkeypatch.setattr("onnxopt.optimization.findings.measure_footprint", fails)
    found = pair("ort", Broken()).measure()
    assert found.notes[0] == "memory and cold start: not measured (no processes here)"
    assert any(note.startswith("kernels: not measured (ONNX Runtime cannot load the model") for note in found.notes)
    assert (found.after.cold_start_ms, found.after.compressed_bytes > 0) == (None, True)
    assert found.layers


@pytest.mark.slow
def test_on_a_runtime_everything_is_there():
    target = load_target("ort")
    found = pair("ort", load_runtime(target)).measure()
    assert found.notes == ()
    assert found.before.cold_start_ms > 0
    assert all(layer.milliseconds is not None for layer in found.layers)
    assert "An undisturbed run takes" in found.layers_text
