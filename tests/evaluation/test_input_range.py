"""In which range a model wants its pictures, told from its first layer."""

import numpy as np
import pytest

from onnxopt.data import InputSpec
from onnxopt.evaluation.input_range import guess_range
from onnxopt.testing import parse_graph

NET = "(float[1,3,32,32] x) => (float[1,8,30,30] y) <float[8,3,3,3] w> { y = Conv (x, w) }"
INPUTS = (InputSpec("x", (1, 3, 32, 32), np.dtype(np.float32)),)


def network(gain):
    graph = parse_graph(NET)
    weight = graph.own_constant(graph.nodes[0], 1)
    weight.values = weight.values / np.abs(weight.values).sum(axis=(1, 2, 3), keepdims=True) * np.float32(gain)
    return graph


@pytest.mark.parametrize(("gain", "words"), [(60, "0..1"), (0.05, "0..255")])
def test_the_range_that_gives_features_a_spread_near_one(gain, words):
    _, sentence = guess_range(network(gain), INPUTS)
    assert f"pictures are {words}" in sentence


def test_no_guess_without_a_convolution():
    graph = parse_graph("(float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu (x) }")
    assert guess_range(graph, INPUTS) is None
