"""Each rule finds exactly its fault in a graph broken by hand; a sound graph, and what we emit, breaks none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.analysis.tensorrt_rules import RULES, check
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import parse_graph

TESTDATA = Path(__file__).parents[2] / "testdata"
STEPS = ", ".join(["0.1"] * 16)
CONSTANTS = f"""float s = {{0.1}}, float s2 = {{0.2}}, int8 z = {{0}}, uint8 uz = {{0}}, float[16] ws = {{{STEPS}}},
    int8[16,16,1,1] w1, int8[16,16,1,1] w2, int8[16,16,1,1] w3, int8[16] wz = {{{", ".join(["0"] * 16)}}}"""


def pair(name, scale="s", zero="z"):
    """Q and DQ behind a tensor: `a` is read as `a_d`."""
    return (
        f"{name}_q = QuantizeLinear ({name}, {scale}, {zero}) {name}_d = DequantizeLinear ({name}_q, {scale}, {zero}) "
    )


def conv(output, source, weight="w1", attributes="axis = 0", scale="ws"):
    """A Conv with int8 weights."""
    return f"{output}_w = DequantizeLinear <{attributes}> ({weight}, {scale}) {output} = Conv ({source}, {output}_w) "


def net(body, *, result="y", shape="float[N,C,H,W]", source="float[1,16,4,4] x", constants=""):
    return f"({source}) => ({shape} {result}) <{CONSTANTS}{', ' + constants if constants else ''}> {{ {body} }}"


FIRST = pair("x") + conv("a", "x_d")  # the graph input, quantized, through one Conv
LAST = conv("y", "b_d", "w2")
SOUND = net(FIRST + "b = Relu (a) " + pair("b") + LAST)

BROKEN = {
    "activation-type": net(pair("x", "s", "uz") + conv("y", "x_d")),
    "weight-type": net(pair("x") + "w = DequantizeLinear (u, s) y = Conv (x_d, w)", constants="uint8[16,16,1,1] u"),
    "zero-point": net(pair("x", "s", "three") + conv("y", "x_d"), constants="int8 three = {3}"),
    "scale-constant": net(
        "t = ReduceMax <keepdims = 0> (x) x_q = QuantizeLinear (x, t, z) x_d = DequantizeLinear (x_q, t, z) "
        + conv("y", "x_d")
    ),
    "scale-positive": net(pair("x", "none") + conv("y", "x_d"), constants="float none = {0}"),
    "activation-per-tensor": net(pair("x", "ws", "wz") + conv("y", "x_d")),
    "pair-parameters": net("x_q = QuantizeLinear (x, s, z) x_d = DequantizeLinear (x_q, s2, z) " + conv("y", "x_d")),
    "unpaired": net(pair("x") + conv("y", "x_d") + "e = Cast <to = 1> (x_q)"),
    "weight-scale-length": net(
        pair("x") + conv("y", "x_d", scale="short"), constants="float[3] short = {0.1, 0.1, 0.1}"
    ),
    "weight-axis": net(pair("x") + conv("y", "x_d", attributes="axis = 1")),
    "deconv-per-tensor": net(pair("x") + "w = DequantizeLinear <axis = 1> (w1, ws) y = ConvTranspose (x_d, w)"),
    "weight-range": net(
        pair("x") + "w = DequantizeLinear (low, s) y = Conv (x_d, w)",
        constants=f"int8[16,16,1,1] low = {{{', '.join(['-128'] * 256)}}}",
    ),
    "pair-cast": net(
        pair("x")
        + "w = DequantizeLinear <axis = 0> (w1, ws) v = Cast <to = 1> (w) a = Conv (x_d, v) b = Relu (a) "
        + pair("b")
        + LAST
    ),
    "operator": net("y = ConvInteger (x, u)", source="uint8[1,16,4,4] x", constants="uint8[16,16,1,1] u"),
    "bias": net(
        pair("x") + "w = DequantizeLinear <axis = 0> (w1, ws) b = DequantizeLinear <axis = 0> (bias, ws) "
        "y = Conv (x_d, w, b)",
        constants="int32[16] bias",
    ),
    "weight-float": net(pair("x") + "y = Conv (x_d, w)", constants="float[16,16,1,1] w"),
    "input-float": net(conv("y", "x")),
    "size": net(
        FIRST + "b = Relu (a) " + pair("b") + "v = DequantizeLinear (odd, s) y = Conv (b_d, v)",
        constants="int8[5,16,1,1] odd",
    ),
    "attention": net(
        FIRST
        + "b = Relu (a) "
        + pair("b")
        + "c = Transpose <perm = [0,1,3,2]> (a) "
        + pair("c", "s2")
        + "d = MatMul (b_d, c_d) "
        + pair("d")
        + conv("y", "d_d", "w2")
    ),
    "conv-batchnorm": net(
        FIRST + pair("a") + "b = BatchNormalization (a_d, g, g, g, v) " + pair("b") + LAST,
        constants=f"float[16] g, float[16] v = {{{STEPS}}}",
    ),
    "conv-activation": net(FIRST + pair("a") + "b = Relu (a_d) " + pair("b") + LAST),
    "pad-conv": net(
        FIRST + 'b = Pad <mode = "reflect"> (a, pads) ' + pair("b") + LAST,
        constants="int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}",
    ),
    "concat-scales": net(
        FIRST
        + "p = Relu (a) q = Sigmoid (a) "
        + pair("p")
        + pair("q", "s2")
        + "b = Concat <axis = 2> (p_d, q_d) "
        + pair("b")
        + LAST
    ),
    "concat-partial": net(
        FIRST + "p = Relu (a) q = Sigmoid (a) " + pair("p") + "b = Concat <axis = 2> (p_d, q) " + pair("b") + LAST
    ),
    "residual-both": net(
        FIRST
        + "p = Relu (a) "
        + pair("p")
        + conv("c", "p_d", "w3")
        + pair("c")
        + "b = Add (c_d, p_d) "
        + pair("b")
        + LAST
    ),
    "residual-float": net(
        FIRST + "p = Relu (a) " + pair("p") + conv("c", "p_d", "w3") + "b = Add (c, p) " + pair("b") + LAST
    ),
    "two-quantizers": net(
        FIRST
        + "b = Relu (a) "
        + pair("b")
        + "e_q = QuantizeLinear (b, s2, z) e = DequantizeLinear (e_q, s2, z) "
        + conv("c", "b_d", "w2")
        + conv("d", "e", "w3")
        + "y = Mul (c, d)"
    ),
    "requantize": net(FIRST + "c = Relu (a) " + pair("c") + pair("c_d", "s2") + conv("y", "c_d_d", "w2")),
    "commute-scale": net(
        FIRST + "c = Relu (a) " + pair("c") + "b = MaxPool <kernel_shape = [2,2]> (c_d) " + pair("b", "s2") + LAST
    ),
    "lonely": net(
        FIRST
        + "c = Relu (a) "
        + pair("c")
        + "d = Softmax <axis = 1> (c_d) e = Exp (d) "
        + pair("e")
        + conv("y", "e_d", "w2")
    ),
    "output": net(FIRST + "b = Relu (a) " + pair("b"), result="b_d"),
    "tail": net(FIRST + "b = Mul (a, a) " + pair("b") + "y = Exp (b_d)"),
    "selection": net(FIRST + "b = Relu (a) " + pair("b") + "y, i = TopK (b_d, k)", constants="int64[1] k = {2}"),
    "contrib": net(FIRST + "b = com.microsoft.QuickGelu (a) " + pair("b") + LAST),
}
OPSETS = {
    "opset-pairs": (9, net(pair("x") + "w = DequantizeLinear (w1, s) y = Conv (x_d, w)")),
    "opset-axis": (12, SOUND),
    "opset-scale": (17, SOUND),
    "opset-int4": (17, SOUND),
    "scale-type": (21, SOUND),
}


def rules_of(graph):
    return {f.rule for f in check(graph)}


def test_every_rule_has_its_broken_graph():
    assert set(BROKEN) | set(OPSETS) == set(RULES)
    assert len(RULES) >= 20


def test_a_sound_graph_breaks_no_rule():
    assert check(parse_graph(SOUND)) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_graph_breaks_one_rule(rule):
    found = check(parse_graph(BROKEN[rule], opset=17))
    assert {f.rule for f in found} == {rule}
    assert all(f.node and f.text for f in found)


@pytest.mark.parametrize("rule", ["opset-pairs", "opset-axis"])
def test_old_opsets(rule):
    opset, text = OPSETS[rule]
    assert rules_of(parse_graph(text, opset=opset)) == {rule}


@pytest.mark.parametrize("rule", ["opset-scale", "scale-type"])
def test_half_precision_scales_need_opset_19_and_half_values(rule):
    opset, text = OPSETS[rule]
    graph = parse_graph(text, opset=opset)
    for constant in graph.initializers():
        if constant.name in {"s", "ws"}:
            constant.values = constant.values.astype(np.float16)
    assert rules_of(graph) == {rule}


def test_four_bit_weights_need_opset_21():
    text = SOUND.replace("int8[16,16,1,1] w2", f"int4[16,16,1,1] w2 = {{{', '.join(['1'] * 256)}}}")
    assert rules_of(parse_graph(text)) == {"opset-int4"}


def test_a_fault_is_named_with_its_node_and_what_to_do():
    graph = parse_graph(BROKEN["pad-conv"])
    graph.name_nodes()
    [found] = check(graph)
    assert found.node.startswith("Conv 'Conv")
    assert "move it before Pad" in found.text


def test_the_graph_given_is_not_changed():
    graph = parse_graph(BROKEN["lonely"])
    before = graph.digest()
    check(graph)
    assert graph.digest() == before


@pytest.mark.parametrize("file", sorted(TESTDATA.glob("*.onnx")), ids=lambda f: f.stem)
def test_what_we_emit_breaks_no_rule(file):
    result = optimize(file, passes="quantize", target=TENSORRT, samples=2, verify="structure")
    assert [n.op for n in result.graph.nodes].count("QuantizeLinear") > 5
    assert check(result.graph) == []


def test_what_onnx_runtime_wants_breaks_many():
    """The checker is not blind: the other target's graph is full of faults."""
    ort_like = replace(TENSORRT, name="other", activation=replace(TENSORRT.activation, dtype="uint8", symmetric=False))
    result = optimize(TESTDATA / "shapes_detector.onnx", passes="quantize", target=ort_like, samples=2, verify="off")
    assert "activation-type" in rules_of(result.graph)


def test_every_rule_is_on_the_page_of_the_target():
    page = (TESTDATA.parent / "docs" / "targets" / "tensorrt.md").read_text()
    rows = {f"| `{name}` | {rule.__doc__.splitlines()[0].rstrip('.')} |" for name, rule in RULES.items()}
    assert rows <= set(page.splitlines())
