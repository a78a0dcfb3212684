"""Two models walked side by side."""

import numpy as np
import pytest

from onnxopt.analysis.compensation.abreast import Abreast, errors_of
from onnxopt.analysis.compensation.reading import give_bias, read
from onnxopt.testing import parse_graph

NET = """(float[1,4,5,5] x) => (float[1,3,5,5] z) <float[4,4,1,1] u, float[4,4,1,1] v, float[3,4,1,1] w> {
    a = Conv (x, u)  r = Relu (a)  b = Conv (r, v)  y = Add (a, b)  z = Conv (y, w) }"""


def feeds(count: int = 5) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [{"x": generator.standard_normal((1, 4, 5, 5)).astype(np.float32)} for _ in range(count)]


def test_what_a_layer_should_give_makes_up_for_the_other_branch():
    before, after = parse_graph(NET), parse_graph(NET)
    weight = after.nodes[0].inputs[1]
    weight.values = weight.values * np.float32(0.9)
    walk = Abreast(before, after, feeds())
    reader = read(after, 2, np.arange(4))
    first = list(walk.rows(reader))
    assert len(first) == 5
    v = before.constant(before.nodes[2].inputs[1]).reshape(4, 4)
    u = before.constant(before.nodes[0].inputs[1]).reshape(4, 4)
    for (inputs, wanted), sample in zip(first, feeds(), strict=True):
        a = sample["x"].reshape(4, -1).T @ u.T
        assert inputs[0] == pytest.approx(0.9 * np.maximum(a, 0), abs=1e-5)
        assert wanted[0] == pytest.approx(np.maximum(a, 0) @ v.T + 0.1 * a, abs=1e-5)
    assert len(list(walk.rows(read(after, 4, np.arange(4))))) == 5


def test_errors_are_shares_of_the_variance():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((1, 400, 3)).astype(np.float32)
    weight = generator.standard_normal((1, 2, 3))
    wanted = rows @ weight[0].T.astype(np.float32) + np.float32(5)
    exact, silent = (weight, np.full((1, 2), 5.0)), (0 * weight, np.full((1, 2), 5.0))
    errors = errors_of([(rows[:, :100], wanted[:, :100]), (rows[:, 100:], wanted[:, 100:])], (exact, silent))
    assert errors[0] == pytest.approx(0, abs=1e-10)
    assert errors[1] == pytest.approx(1, abs=0.02)
    assert errors_of([(rows, 0 * wanted)], (exact,)) == [1.0]


def test_moments_can_be_inverted_where_nothing_varies():
    graph = parse_graph(NET)
    reader = read(graph, 2, np.arange(4))
    still = [{"x": np.zeros((1, 4, 5, 5), np.float32)}]
    moments = Abreast(graph, graph.copy(), still).moments(reader, centred=True)
    assert np.isfinite(np.linalg.inv(moments.covariance[0])).all()


def test_a_bias_is_given_once():
    graph = parse_graph(NET)
    reader = read(graph, 0, np.arange(4))
    for given in (True, False):
        assert give_bias(graph, graph.nodes[0]) is given
        assert [t.name for t in graph.nodes[0].inputs] == ["x", "u", "a_bias"]
    assert not reader.bias(graph).any()
