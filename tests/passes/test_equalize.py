"""Cross-layer equalization: bit-exact in float, better in int8, and only where it holds."""

from itertools import pairwise

import numpy as np
import pytest

from onnxopt.analysis.recovery.equalization import equalize, find_pairs
from onnxopt.calibration.given import GivenRange, GivenRanges
from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.ort import ORT
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.equalize import Equalize

NET = """(float[1,8,9,9] x) => (float[1,8,9,9] y)
<float[16,8,1,1] w1, float[16] b1, float[16,1,3,3] w2, float[8,16,1,1] w3> {
  a = Conv (x, w1, b1)
  b = Relu (a)
  c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
  d = LeakyRelu <alpha = 0.1> (c)
  y = Conv (d, w3)
}"""
INPUTS = (InputSpec("x", (1, 8, 9, 9), np.dtype(np.float32)),)


def network(text=NET, *, uneven=True):
    graph = parse_graph(text)
    if uneven:
        first, _, last = graph.nodes_of("Conv")
        spread = np.geomspace(1e-3, 1e3, 16).astype(np.float32)
        for index in (1, 2):
            constant = graph.own_constant(first, index)
            constant.values = constant.values * spread.reshape(-1, *[1] * (constant.values.ndim - 1))
        constant = graph.own_constant(last, 1)
        constant.values = constant.values / spread.reshape(1, -1, 1, 1)
    return graph


def ran(graph, **options):
    fit, holdout = synthetic(INPUTS, 9).split_holdout()
    context = Context(ORT, inputs=INPUTS, fit=fit, holdout=holdout)
    return run_pass(Equalize(**options), graph, context, [])


def test_outputs_are_the_same_to_the_last_bit():
    graph = network()
    before = graph.copy()
    assert equalize(graph, find_pairs(graph)) > 16
    feeds = next(iter(synthetic(INPUTS, 1))).feeds
    np.testing.assert_array_equal(outputs_of(graph, feeds)["y"], outputs_of(before, feeds)["y"])


def test_the_largest_weights_on_both_sides_become_alike():
    graph = network()
    equalize(graph, find_pairs(graph))
    first, middle, last = (n.inputs[1].values for n in graph.nodes_of("Conv"))
    sides = [np.abs(first).max((1, 2, 3)), np.abs(middle).max((1, 2, 3)), np.abs(last).max((0, 2, 3))]
    for a, b in pairwise(sides):
        assert (np.abs(np.log2(a / b)) <= 1.0 + 1e-6).all()


def test_channels_of_groups_meet_their_own_weights():
    text = NET.replace("float[8,16,1,1] w3", "float[8,4,1,1] w3").replace("Conv (d, w3)", "Conv <group = 4> (d, w3)")
    graph = network(text, uneven=False)
    weight = graph.own_constant(list(graph.nodes_of("Conv"))[2], 1)
    weight.values = weight.values * np.geomspace(1, 1e4, 32).astype(np.float32).reshape(8, 4, 1, 1)
    before = graph.copy()
    assert equalize(graph, find_pairs(graph)) > 0
    feeds = next(iter(synthetic(INPUTS, 1))).feeds
    np.testing.assert_array_equal(outputs_of(graph, feeds)["y"], outputs_of(before, feeds)["y"])


def test_stays_where_it_helps():
    record = ran(network())
    assert record.changed
    assert record.options["keep"] is True


def test_is_taken_back_where_it_does_not():
    record = ran(network(uneven=False))
    assert not record.changed
    assert record.options["keep"] is False


@pytest.mark.parametrize(
    "middle",
    ["b = Sigmoid (a)", "l = Mul (a, b1x)  b = Relu (l)", "b = Clip (a, lo, hi)"],
    ids=["sigmoid", "two nodes", "clip"],
)
def test_what_is_not_homogeneous_is_left_alone(middle):
    text = f"""(float[1,8,9,9] x) => (float[1,8,9,9] y)
    <float[16,8,1,1] w1, float[8,16,1,1] w3, float b1x, float lo = {{0}}, float hi = {{6}}> {{
      a = Conv (x, w1)  {middle}  y = Conv (b, w3) }}"""
    record = ran(parse_graph(text))
    assert not record.changed
    assert "nothing to equalize" in record.notes[0][1]


def test_a_tensor_that_others_read_is_left_alone():
    text = NET.replace("y = Conv (d, w3)", "e = Conv (d, w3)  f = ReduceMean (d)  y = Add (e, f)")
    graph = parse_graph(text)
    assert [a.outputs[0].name for a, _ in find_pairs(graph)] == ["a"]


@pytest.mark.parametrize("keep", [None, True])
def test_a_model_that_came_quantized_keeps_the_weights_that_its_scales_were_made_for(keep):
    graph = network()
    context = Context(ORT, inputs=INPUTS, fit=synthetic(INPUTS, 2), holdout=synthetic(INPUTS, 2))
    context.put(GivenRanges({"b": GivenRange(0.0, 1.0, "uint8")}))
    record = run_pass(Equalize(keep=keep), graph, context, [])
    assert not record.changed
    assert "was quantized when it came" in record.notes[0][1]
