"""Intervals that tensors cannot leave."""

import numpy as np
import pytest

from onnxopt.calibration.bounds import value_bounds
from onnxopt.graph import Graph
from onnxopt.testing import outputs_of, parse_graph

INF = float("inf")
NET = """(float[1,4,6,6] x, float[1,4,6,6] z) => (float[1,8,6,6] y)
<float[4,4,1,1] w, float[2] sizes, float lo = {-1}, float hi = {2}> {
  a = Conv (x, w)
  relu = Relu (a)
  g = Sigmoid (a)
  silu = Mul (a, g)
  clip = Clip (z, lo, hi)
  sum = Add (silu, clip)
  pool = MaxPool <kernel_shape = [1, 1]> (silu)
  mean = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (relu)
  gated = Mul (relu, g)
  both = Mul (silu, relu)
  parts = Concat <axis = 1> (g, clip)
  soft = Softmax <axis = 1> (x)
  leaky = LeakyRelu (x)
  y = Concat <axis = 1> (parts, parts)
}"""


@pytest.fixture(scope="module")
def bounds():
    return value_bounds(parse_graph(NET.replace("float[1,8,6,6] y", "float[1,16,6,6] y")))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("a", -INF, INF),
        ("relu", 0, INF),
        ("g", 0, 1),
        ("silu", -0.27846454, INF),
        ("clip", -1, 2),
        ("sum", -1.27846454, INF),
        ("pool", -0.27846454, INF),
        ("mean", 0, INF),
        ("gated", 0, INF),
        ("both", -INF, INF),
        ("parts", -1, 2),
        ("soft", 0, 1),
        ("leaky", -INF, INF),
    ],
)
def test_bounds(bounds, name, low, high):
    np.testing.assert_allclose(bounds[name], (low, high), rtol=1e-6)


def test_no_value_leaves_them(bounds):
    graph = parse_graph(NET.replace("float[1,8,6,6] y", "float[1,16,6,6] y"))
    model = graph.to_proto()
    names = [n.output[0] for n in model.graph.node if n.output[0] != "y"]
    model.graph.output.extend(type(model.graph.output[0])(name=n, type=model.graph.output[0].type) for n in names)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    generator = np.random.default_rng(0)
    feeds = {n: (generator.standard_normal((1, 4, 6, 6)) * 20).astype(np.float32) for n in "xz"}
    values = outputs_of(Graph.from_proto(model), feeds)
    assert len(values) == 14
    for name, value in values.items():
        low, high = bounds[name]
        assert low - 1e-6 <= value.min() <= value.max() <= high + 1e-6, name
