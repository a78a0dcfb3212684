"""MACs and parameters of a graph."""

import pytest

from onnxopt.analysis.cost import Cost
from onnxopt.evaluation import measure
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph


def cost_of(text) -> Cost:
    graph = parse_graph(text)
    return measure.cost(graph, ORT, resolve_inputs(graph)[0])


CODES = "uint8[4,6,3,3] w, float s = {0.1}, uint8 z = {3}"


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("(float[1,6,8,8] x) => (float[1,4,6,6] y) <float[4,6,3,3] w> { y = Conv (x, w) }", 36 * 4 * 6 * 9),
        (f"(uint8[1,6,8,8] x) => (int32[1,4,6,6] y) <{CODES}> {{ y = ConvInteger (x, w) }}", 36 * 4 * 6 * 9),
        (
            f"(uint8[1,6,8,8] x) => (uint8[1,4,6,6] y) <{CODES}> {{ y = QLinearConv (x, s, z, w, s, z, s, z) }}",
            36 * 4 * 6 * 9,
        ),
        ("(uint8[5,6] x) => (int32[5,7] y) <uint8[6,7] w> { y = MatMulInteger (x, w) }", 5 * 6 * 7),
    ],
)
def test_a_layer_costs_the_same_in_int8(text, macs):
    assert cost_of(text).total_macs == macs


def test_values_of_constant_nodes_are_parameters():
    body = "b = Constant <value = float[4] {1, 2, 3, 4}> () c = Add (x, a) y = Add (c, b)"
    assert cost_of(f"(float[1,4] x) => (float[1,4] y) <float[4] a> {{ {body} }}").parameters == 8
