"""Scores that a refit has made smaller get their spread back."""

import numpy as np
import pytest

from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.compensation.sharpening import best_factor, last_layer, sharpen
from onnxopt.testing import outputs_of, parse_graph, random_feeds

TAILS = {
    "Gemm": ("y = Gemm (b, w)", True),
    "Softmax": ("c = Gemm (b, w)  y = Softmax <axis = 1> (c)", True),
    "Relu": ("c = Gemm (b, w)  y = Relu (c)", False),
    "MatMul": ("y = MatMul (b, w)", False),
}


def model(tail):
    return parse_graph(f"""(float[1,6] x) => (float[1,4] y) <float[6,8] v, float[8,4] w> {{
        a = Gemm (x, v)  b = Relu (a)  {TAILS[tail][0]} }}""")


@pytest.mark.parametrize("tail", TAILS)
def test_the_layer_that_makes_the_scores(tail):
    layer = last_layer(model(tail))
    assert (layer is not None and layer.inputs[1].name == "w") == TAILS[tail][1]


def test_shared_scores_are_left_alone():
    graph = parse_graph("""(float[1,6] x) => (float[1,4] y, float[1,4] c) <float[6,4] w> {
        c = Gemm (x, w)  y = Softmax <axis = 1> (c) }""")
    assert last_layer(graph) is None


@pytest.mark.parametrize("tail", ["Gemm", "Softmax"])
@pytest.mark.parametrize("shrunk", [1.0, 0.8])
def test_the_factor_is_found_again(tail, shrunk):
    graph = model(tail)
    feeds = [random_feeds(graph, seed) for seed in range(4)]
    damage = Damage([outputs_of(graph, f) for f in feeds], feeds)
    sharpen(graph, last_layer(graph), shrunk)
    factor = best_factor([outputs_of(graph, f) for f in feeds], damage)
    assert factor == pytest.approx(1 / shrunk)
    sharpen(graph, last_layer(graph), factor)
    assert damage.of(outputs_of(graph, f) for f in feeds) < 1e-6


def test_outputs_that_are_no_scores():
    values = [{"y": np.zeros((1, 3, 4, 4), np.float32)}]
    assert best_factor(values, Damage(values, [{}])) == 1.0
