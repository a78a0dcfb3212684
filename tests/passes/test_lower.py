"""Rewrites that only ONNX Runtime wants."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.ort import ORT
from onnxopt.testing import assert_rewrites, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.lower import Lower


def lowered(text, **options):
    graph = parse_graph(text)
    inputs = (InputSpec("x", tuple(graph.inputs[0].shape), np.dtype(np.float32)),)
    context = Context(ORT, inputs=inputs, fit=synthetic(inputs, 2))
    before = graph.copy()
    record = run_pass(Lower(**options), graph, context, [])
    feeds = random_feeds(before, 0)
    wanted, got = outputs_of(before, feeds), outputs_of(graph, feeds)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-5 * np.abs(values).max())
    return graph, record


SILU = "(float[1,4] x) => (float[1,4] y) { s = Sigmoid (x) y = Mul (x, s) }"


def test_silu_becomes_quick_gelu():
    graph, record = lowered(SILU, silu="quickgelu")
    assert [(n.domain, n.op) for n in graph.nodes] == [("com.microsoft", "QuickGelu")]
    assert graph.opsets["com.microsoft"] == 1
    assert record.counts == {"SiLU to QuickGelu": 1}


def test_silu_may_be_kept():
    graph, record = lowered(SILU, silu="sigmoid")
    assert [n.op for n in graph.nodes] == ["Sigmoid", "Mul"]
    assert not record.changed


def test_mixed_keeps_silu_between_int8_layers_only():
    graph, _ = lowered(
        "(float[1,8,4,4] x) => (float[1,8,4,4] y) <float[8,8,1,1] v, float[8,8,1,1] w, float[8,8,1,1] u> {"
        "a = Conv (x, v) s = Sigmoid (a) b = Mul (a, s) c = Conv (b, w) t = Sigmoid (c) d = Mul (c, t) "
        "y = Conv (d, u) }",
        silu="mixed",
    )
    assert [n.op for n in graph.nodes] == ["Conv", "Sigmoid", "Mul", "Conv", "QuickGelu", "Conv"]


def test_form_of_silu_is_measured_and_resolved():
    _, record = lowered(SILU)
    assert record.options["silu"] in {"quickgelu", "mixed"}


def test_silu_whose_gate_is_read_elsewhere_is_left_alone():
    graph, record = lowered(
        "(float[1,4] x) => (float[1,4] y, float[1,4] s) { s = Sigmoid (x) y = Mul (x, s) }", silu="quickgelu"
    )
    assert [n.op for n in graph.nodes] == ["Sigmoid", "Mul"]
    assert record.notes[0][1] == "SiLU whose Sigmoid is read elsewhere too"


@pytest.mark.parametrize(("keep", "ops"), [(1, ["GlobalAveragePool"]), (0, ["GlobalAveragePool", "Flatten"])])
def test_mean_over_height_and_width(keep, ops):
    out = "float[1,3,1,1]" if keep else "float[1,3]"
    graph, _ = lowered(f"(float[1,3,4,5] x) => ({out} y) {{ y = ReduceMean <axes = [2, -1], keepdims = {keep}> (x) }}")
    assert [n.op for n in graph.nodes] == ops


def test_mean_over_channels_is_left_alone():
    _, record = lowered("(float[1,3,4,5] x) => (float[1,1,4,5] y) { y = ReduceMean <axes = [1]> (x) }")
    assert record.notes[0][1] == "ReduceMean over other axes than height and width"


HEAD = """(float[1,4,2,5] x) => (float[1,1,2,5] y) <float[1,4,1,1] w = {0, 1, 2, 3}, float[1] gain = {GAIN}> {
  a = Mul (x, gain)  s = Softmax <axis = 1> (a)  y = Conv (s, w) }"""


@pytest.mark.parametrize(("gain", "first"), [(1, "Clip"), (1000, "ReduceMax")])
def test_box_softmax_is_kept_finite_as_its_logits_demand(gain, first):
    graph, record = lowered(HEAD.replace("GAIN", str(gain)))
    assert record.counts == {"box softmax to Exp and MatMul": 1}
    assert [n.op for n in graph.nodes][2] == first


def test_box_softmax_in_the_layout_of_the_head_needs_no_transposition():
    graph, _ = lowered(
        """(float[1,2,4,5] x) => (float[1,1,2,5] y) <float[1,4,1,1] w = {0, 1, 2, 3}> {
        t = Transpose <perm = [0, 2, 1, 3]> (x)  s = Softmax <axis = 1> (t)  y = Conv (s, w) }"""
    )
    graph.sort()
    assert [n.op for n in graph.nodes] == ["Clip", "Exp", "MatMul", "Split", "Div", "Transpose"]


PYRAMID = """(float[N,8,2,3] x) => (float[N,8,2,3] z) <float[8,8,1,1] v, float[8,8,3,3] w, float[8,8,1,1] u,
    float[4] scales = {1, 1, 3, 2}> {
    a = Conv (x, v)  r = Relu (a)
    b = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (r, , scales)
    c = Conv <strides = [3, 2], pads = [1, 1, 0, 1]> (b, w)  z = Conv (c, u) }"""


def test_upsampling_in_int8_becomes_tile():
    graph, record = lowered(PYRAMID.replace("[N,", "[2,"))
    ops = ["Conv", "Relu", "Transpose", "Reshape", "Tile", "Reshape", "Transpose", "Conv", "Conv"]
    assert [n.op for n in graph.nodes] == ops
    assert record.counts == {"up-sampling to Tile": 1}


def test_upsampling_between_float_layers_stays():
    graph, _ = lowered(
        """(float[1,8,2,3] x) => (float[1,8,4,6] y) <float[4] scales = {1, 1, 2, 2}> {
        y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (x, , scales) }"""
    )
    assert [n.op for n in graph.nodes] == ["Resize"]


@pytest.mark.parametrize(
    ("gain", "ops"), [(1, ["Mul", "Softmax", "MatMul"]), (99, ["Mul", "Softmax", "Clip", "MatMul"])]
)
def test_softmax_whose_samples_show_subnormal_numbers_is_clipped(gain, ops):
    graph, _ = lowered(
        f"""(float[1,8,64] x) => (float[1,8,4] y) <float gain = {{{gain}}}, float[64,4] w> {{
        a = Mul (x, gain)  s = Softmax <axis = -1> (a)  y = MatMul (s, w) }}"""
    )
    assert [n.op for n in graph.nodes] == ops


def test_targets_that_gain_nothing_are_left_alone():
    assert_rewrites(Lower(), SILU, None)
    assert plain_context().target.contrib_silu is False


@pytest.mark.parametrize(("head", "noted"), [("y = Conv (s, w)", 1), ("y = Mul (s, s)", 0)])
def test_the_opset_is_noted_where_there_is_a_box_head(head, noted):
    graph = parse_graph(
        f"""(float[1,4,2,5] x) => (float[1,N,2,5] y) <float[1,4,1,1] w = {{0, 1, 2, 3}}> {{
        s = Softmax <axis = 1> (x)  {head} }}""",
        opset=11,
    )
    record = run_pass(Lower(), graph, Context(ORT), [])
    assert sum("from opset 13 on" in why for _, why in record.notes) == noted
