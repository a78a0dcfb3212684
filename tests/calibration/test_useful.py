"""Ranges end where their only reader no longer tells values apart."""

import numpy as np
import pytest

from onnxopt.calibration.methods import Range
from onnxopt.calibration.useful import useful_part
from onnxopt.testing import parse_graph

SILU = "s = Sigmoid (x) y = Mul (x, s)"
WIDE = Range(-80.0, 15.0)


def cut(nodes, found=WIDE, *, outputs="float[1,4] y"):
    graph = parse_graph(f"(float[1,4] i) => ({outputs}) {{ x = Neg (i) {nodes} }}")
    return useful_part(graph, graph.tensors()["x"], found)


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("nodes", [SILU, "s = Sigmoid (x) y = Mul (s, x)", "y = HardSwish (x)"])
def test_the_flat_end_of_a_swish_is_cut_off(nodes):
    found = cut(nodes)
    assert -8 < found.low < -2.5
    assert found.high == 15.0


def test_what_is_cut_off_is_below_a_step_of_the_output():
    found = cut(SILU)
    beyond = np.linspace(WIDE.low, found.low, 1000)
    step = (15 + 0.2785) / 255
    assert np.abs(silu(beyond) - silu(found.low)).max() <= 0.25 * step * 1.001


def test_a_relu_needs_nothing_below_zero():
    assert cut("y = Relu (x)") == Range(0.0, 15.0)


def test_a_sigmoid_is_flat_on_both_sides():
    found = cut("y = Sigmoid (x)", Range(-80.0, 90.0))
    assert -8 < found.low < -5
    assert 5 < found.high < 8


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        (f"{SILU} z = Neg (x)", "float[1,4] y, float[1,4] z"),  # another reader
        (SILU, "float[1,4] y, float[1,4] x"),  # the user reads it
        (f"{SILU} z = Neg (s)", "float[1,4] y, float[1,4] z"),  # the gate serves somebody else
        ("y = Add (x, x)", "float[1,4] y"),
        ("s = Sigmoid (x) t = Neg (x) y = Mul (s, t)", "float[1,4] y"),
        ("y = Neg (x)", "float[1,4] y"),
    ],
)
def test_other_readers_need_it_all(nodes, outputs):
    assert cut(nodes, outputs=outputs) == WIDE


def test_a_narrow_range_stays():
    assert cut(SILU, Range(-1.0, 3.0)).low == pytest.approx(-1.0, abs=0.05)
    assert cut(SILU, Range(0.0, 0.0)) == Range(0.0, 0.0)
