"""Where quantizers go for ONNX Runtime, and why not elsewhere."""

import pytest

from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.errors import UsageError
from onnxopt.placement import check_ignored, plan
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph


def placed(text, **options):
    graph = parse_graph(text)
    return plan(graph, ORT, Shapes(*infer(graph)), **options)


HEAD = "(float[1,8,8,8] x) => (float[1,8,8,8] y) <float[8,8,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3>"
CONV = "Conv <pads = [1, 1, 1, 1]>"


def test_q_sits_behind_the_relu_that_fuses():
    found = placed(f"{HEAD} {{ a = {CONV} (x, w1) b = Relu (a) c = {CONV} (b, w2) y = {CONV} (c, w3) }}")
    assert list(found.tensors) == ["b", "c", "x"]
    assert [w.node for w in found.weights] == ["a", "c"]


def test_final_layer_stays_float_and_says_why():
    found = placed(f"{HEAD} {{ a = {CONV} (x, w1) b = Relu (a) y = {CONV} (b, w2) }}")
    assert [reason for _, reason in found.notes] == ["final layer: its error would go straight into the answer"]


def test_residual_add_runs_in_int8_on_both_branches():
    found = placed(f"{HEAD} {{ a = {CONV} (x, w1) b = Add (x, a) c = {CONV} (b, w2) y = {CONV} (c, w3) }}")
    assert set(found.tensors) == {"x", "a", "b", "c"}
    assert found.tensors["b"].native
    assert not found.tensors["x"].native


def test_maxpool_shares_scale_with_its_input():
    found = placed(
        f"{HEAD} {{ a = {CONV} (x, w1) b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a) "
        f"c = {CONV} (b, w2) y = {CONV} (c, w3) }}"
    )
    assert found.tensors["a"].group == found.tensors["b"].group != found.tensors["c"].group


def test_maxpool_behind_float_stays_float():
    found = placed(
        f"{HEAD} {{ a = Tanh (x) b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a) "
        f"c = {CONV} (b, w2) y = {CONV} (c, w3) }}"
    )
    assert list(found.tensors) == ["b", "c"]


def test_stem_stays_float():
    found = placed(
        "(float[1,3,8,8] x) => (float[1,8,4,4] y) <float[8,3,3,3] s, float[8,8,1,1] w1, float[8,8,3,3] w2> "
        "{ a = Conv (x, s) b = Relu (a) c = Conv (b, w1) d = Relu (c) y = Conv (d, w2) }"
    )
    assert "stem: few input channels run faster in float" in [reason for _, reason in found.notes]
    assert list(found.tensors) == ["b", "d"]
    assert not found.tensors["b"].native


def test_conv_whose_output_is_a_graph_output_stays_float():
    found = placed(
        "(float[1,8,8,8] x) => (float[1,8,6,6] a, float[1,8,4,4] y) <float[8,8,3,3] w1, float[8,8,3,3] w2> "
        "{ a = Conv (x, w1) b = Relu (a) y = Conv (b, w2) }"
    )
    assert ("Conv 'a'", "its output is a graph output, so no Q can follow it alone") in found.notes


def test_ignored_nodes_stay_float():
    graph = parse_graph(f"{HEAD} {{ a = {CONV} (x, w1) b = {CONV} (a, w2) y = {CONV} (b, w3) }}")
    graph.name_nodes()
    first = next(graph.nodes_of("Conv"))
    found = plan(graph, ORT, Shapes(*infer(graph)), ignore=(first.name,))
    assert [w.node for w in found.weights] == ["b"]


@pytest.mark.parametrize("pattern", ["b", "[bc]", "?"])
def test_a_node_without_a_name_goes_by_its_output(pattern):
    graph = parse_graph(f"{HEAD} {{ a = {CONV} (x, w1) b = {CONV} (a, w2) y = {CONV} (b, w3) }}")
    check_ignored("me", graph, [pattern])
    assert "b" not in [w.node for w in plan(graph, ORT, Shapes(*infer(graph)), ignore=(pattern,)).weights]
    with pytest.raises(UsageError, match=r"me: 'z\*' matches no node; names look like \['a', 'b', 'y'\]"):
        check_ignored("me", graph, [pattern, "z*"])


def test_gemm_ends_in_float():
    found = placed(
        "(float[1,8,8,8] x) => (float[1,10] y) <float[8,8,3,3] w1, float[10,8] g, float[10] b> "
        "{ a = Conv (x, w1) p = GlobalAveragePool (a) f = Flatten (p) y = Gemm <transB = 1> (f, g, b) }"
    )
    assert list(found.tensors) == ["a", "p", "f", "x"]
    assert found.weights[-1].axis == 0


def test_an_addition_before_a_relu_runs_in_int8():
    graph = parse_graph(
        """(float[1,8,4,4] x) => (float[1,8,4,4] y) <float[8,8,1,1] w1, float[8,8,1,1] w2, float[8,8,1,1] w3,
        float[8,8,1,1] last> { a = Conv (x, w1)  b = Conv (a, w2)  c = Add (a, b)  r = Relu (c)  d = Conv (r, w3)
        y = Conv (d, last) }"""
    )
    found = plan(graph, ORT, Shapes(*infer(graph)))
    assert sorted(found.tensors) == ["a", "b", "d", "r", "x"]  # and not c: the Q behind r cuts off at 0
    assert found.tensors["r"].native
