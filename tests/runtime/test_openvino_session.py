"""OpenVINO as a runtime: what comes out bears the names of the model's outputs."""

import numpy as np
import pytest

from onnxopt.testing import outputs_of, parse_graph

pytest.importorskip("openvino")

# What OpenVINO takes for a fake quantizer and renames as it compiles.
QUANTIZED = """(float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint16 z = {32768}> {
  a = Relu (x)
  q = QuantizeLinear (a, s, z)
  y = DequantizeLinear (q, s, z)
}"""
IDENTITY = "(float[1,4] x) => (float[1,4] y, float[1,4] z) { z = Relu (x)  y = Identity (z) }"


@pytest.mark.parametrize("text", [QUANTIZED, IDENTITY])
def test_outputs_bear_the_names_of_the_model(text):
    from onnxopt.runtime.openvino import OpenVinoSession

    graph = parse_graph(text, opset=21)
    feeds = {"x": np.asarray([[-1, 0, 0.5, 1]], np.float32)}
    got = OpenVinoSession(graph.to_proto(), precision="f32").run(feeds)
    wanted = outputs_of(graph, feeds)
    assert list(got) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=0.01)
