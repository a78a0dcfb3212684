"""What the report says of the model that was given: one that is quantized, one that the target does not run well."""

import re
from dataclasses import replace

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.registry import load_target
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.testing import parse_graph

FLOAT = """(float[1,8,8,8] x) => (float[1,8,8,8] y)
<float[16,8,3,3] w1, float[8,16,3,3] w2> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  b = Relu (a)
  y = Conv <pads = [1, 1, 1, 1]> (b, w2)
}"""
# OpenVINO has no Det; fold-constants computes it beforehand.
UNKNOWN = """(float[1,8,8,8] x) => (float[1,8,8,8] y) <float[2,2] m = {1, 2, 3, 5}, float[8,8,3,3] w> {
  d = Det (m)
  a = Mul (x, d)
  y = Conv <pads = [1, 1, 1, 1]> (a, w)
}"""
# OpenVINO 2026.4 computes something else than ONNX Runtime defines for 16 bits.
WIDE = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[1,8,8,8] x) => (float[1,8,8,8] y)
<float s = {0.001}, uint16 z = {0}, float t = {0.01}, int8 o = {0}, int8[8,8,3,3] w> {
  a = com.microsoft.QuantizeLinear (x, s, z)
  b = com.microsoft.DequantizeLinear (a, s, z)
  v = com.microsoft.DequantizeLinear (w, t, o)
  c = Conv <pads = [1, 1, 1, 1]> (b, v)
  e = com.microsoft.QuantizeLinear (c, s, z)
  f = com.microsoft.DequantizeLinear (e, s, z)
  y = Conv <pads = [1, 1, 1, 1]> (f, v)
}"""


@pytest.fixture
def samples():
    random = np.random.default_rng(0)
    return [{"x": random.normal(size=(1, 8, 8, 8)).astype(np.float32)} for _ in range(6)]


def test_what_runs_in_int8_already_is_counted_before(samples):
    first = optimize(parse_graph(FLOAT), "calibrate,insert-qdq", data=samples, keep_anyway=True)
    assert first.report.before.int8_share == 0.0
    report = optimize(first.graph, "merge-duplicates", data=samples, keep_anyway=True).report
    assert report.before.int8_share == report.after.int8_share > 0.4


def test_a_target_that_cannot_run_what_is_given_is_no_failure(samples):
    pytest.importorskip("openvino")
    report = optimize(parse_graph(UNKNOWN), "fold-constants", target="openvino", data=samples).report
    said = "\n".join(report.warnings)
    assert re.search(r"the model as given does not run on openvino-\w+ \(OpenVINO cannot load", said)
    assert report.target["why_not_measured"] == "the target does not run the model as given"
    assert (report.speedup, report.before.latency_ms) == (None, None)
    assert report.quality["worst_sqnr_db"] > 30


def test_a_target_that_computes_something_else_for_what_is_given_is_said(samples):
    pytest.importorskip("openvino")
    report = optimize(parse_graph(WIDE), "strip-qdq", target="openvino", data=samples).report
    if report.quality["worst_sqnr_db"] > 20:
        pytest.skip("this OpenVINO computes 16 bits as ONNX Runtime does")
    said = "\n".join(report.warnings)
    assert re.search(r"openvino-\w+ gives other outputs for the model as given than ONNX Runtime", said)


def test_the_float_output_that_suffers_most_counts():
    one, index = np.ones(4, np.float32), np.arange(4)
    wanted = {"a": one, "b": one, "i": index}
    assert worst_sqnr([wanted], [{"a": one, "b": one * 0.9, "i": index + 1}]) == pytest.approx(20, abs=1e-3)
    assert worst_sqnr([{"i": index}], [{"i": index + 1}]) == float("inf")
    assert worst_sqnr([{"a": one}], [{"a": np.ones(3, np.float32)}]) == float("-inf")


class Careless(OrtRuntime):
    """ONNX Runtime with a tenth of noise in what int8 models give, as of a kernel that rounds down."""

    def open(self, model, *, threads=1):
        session = super().open(model, threads=threads)
        if any(n.op_type == "QuantizeLinear" for n in model.graph.node):
            run = session.run
            session.run = lambda *given: {
                k: v + 0.3 * np.sign(np.sin(1e3 * v)) * v.std() for k, v in run(*given).items()
            }
        return session


@pytest.mark.parametrize(("runtime", "said"), [(OrtRuntime(), False), (Careless(), True)])
def test_a_runtime_that_computes_something_else_than_what_is_written_is_said(samples, runtime, said):
    target = replace(load_target("ort"), runtime=runtime)
    report = optimize(parse_graph(FLOAT), "calibrate,insert-qdq", target=target, data=samples, keep_anyway=True).report
    assert any("computes something else than what is written" in w for w in report.warnings) == said
