"""Models that no later number would mean anything for are refused."""

import numpy as np
import pytest

from onnxopt.errors import UsageError
from onnxopt.evaluation.health import check_weights, custom_operators
from onnxopt.graph import Constant
from onnxopt.testing import parse_graph

NET = "(float[1,4] x) => (float[1,3] y) <float[4,3] w, float[3] b> { a = MatMul (x, w) y = Add (a, b) }"


def poisoned(name, value):
    graph = parse_graph(NET)
    constant = next(c for c in graph.initializers() if c.name == name)
    values = np.array(constant.values)
    values.flat[0] = value
    constant.values = values
    return graph


@pytest.mark.parametrize("name", ["w", "b"])
def test_nan_is_refused_anywhere(name):
    with pytest.raises(UsageError, match=f"'{name}' of .* holds NaN"):
        check_weights(poisoned(name, np.nan))


@pytest.mark.parametrize(
    "weights", ["w = Constant <value = float[2,2] {1, 2, inf, 3}> ()", "w = Identity (v)"], ids=["Constant", "Identity"]
)
def test_weights_need_not_be_initializers(weights):
    text = f"(float[2,2] x) => (float[2,2] y) <float[2,2] v = {{1, 2, inf, 3}}> {{ {weights} y = MatMul (x, w) }}"
    graph = parse_graph(text.replace("inf", "7"))
    constant = next((c for c in graph.initializers()), None) or graph.nodes[0].attrs["value"]
    constant.values = np.where(constant.values == 7, np.inf, constant.values)
    with pytest.raises(UsageError, match="infinite weights"):
        check_weights(graph)


def test_nan_in_an_initializer_that_nothing_reads():
    graph = parse_graph(NET)
    graph.unused_initializers.append(Constant("stray", np.array([np.nan], np.float32)))
    with pytest.raises(UsageError, match="'stray' holds NaN"):
        check_weights(graph)


def test_plugins_in_onnx_s_own_domain_are_custom():
    graph = parse_graph(NET)
    graph.nodes[1].op = "BatchedNMS_TRT"
    assert custom_operators(graph) == ["ai.onnx.BatchedNMS_TRT"]


def test_infinite_weights_are_refused():
    with pytest.raises(UsageError, match=r"'w' of MatMul .* infinite weights"):
        check_weights(poisoned("w", np.inf))


def test_infinities_elsewhere_are_said():
    assert "'b' of Add" in check_weights(poisoned("b", -np.inf))[0]


def test_custom_operators_are_said():
    graph = parse_graph("(float[4] x) => (float[4] y) { a = Relu (x) y = Relu (a) }")
    graph.nodes[1].domain = "acme.ops"
    assert "acme.ops.Relu" in check_weights(graph)[0]


def test_a_sound_model_needs_no_remark():
    assert check_weights(parse_graph(NET)) == []
