"""Why a layer runs in float: graphs broken for a runtime, asked of the runtime itself."""

from dataclasses import replace

import pytest

from onnxopt.errors import UsageError
from onnxopt.report.explain import NOTHING, explain_model, explanation_text
from onnxopt.targets.openvino import OPENVINO
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import parse_graph

STEPS = ", ".join(["0.1"] * 16)
ZEROS = ", ".join(["0"] * 16)
CONSTANTS = f"""float s = {{0.1}}, float s2 = {{0.2}}, uint8 z = {{0}}, uint8 mid = {{128}}, int8 iz = {{0}},
    float[16] ws = {{{STEPS}}}, int8[16] wi = {{{ZEROS}}},
    int8[16,16,1,1] w1, int8[16,16,1,1] w2, int8[16,16,1,1] w3"""


def pair(name, scale="s", zero="z"):
    """Q and DQ behind a tensor: `a` is read as `a_d`."""
    return (
        f"{name}_q = QuantizeLinear ({name}, {scale}, {zero}) {name}_d = DequantizeLinear ({name}_q, {scale}, {zero}) "
    )


def conv(output, source, weight="w1", op="Conv"):
    """A layer with int8 weights."""
    return f"{output}_w = DequantizeLinear <axis = 0> ({weight}, ws, wi) {output} = {op} ({source}, {output}_w) "


def net(body, *, outputs="float[1,16,H,W] y", constants=""):
    more = f", {constants}" if constants else ""
    return f"(float[1,16,4,4] x) => ({outputs}) <{CONSTANTS}{more}> {{ {body} }}"


INT8 = "its activations are int8 and kernels take uint8"
ENTRY = pair("x") + conv("a", "x_d")
END = "y = Sigmoid (b_d)"

# The layer that makes `a` runs in float on ONNX Runtime, for the reason given.
ORT_CASES = {
    "no Q": (net(ENTRY + "y = Sigmoid (a)"), "no Q follows it directly: its output goes into Sigmoid"),
    "an activation that does not fuse": (
        net(ENTRY + "b = LeakyRelu (a) " + pair("b") + END),
        "no Q follows it directly: its output goes into LeakyRelu",
    ),
    "a float reader beside the Q": (
        net(ENTRY + pair("a") + "c = Sigmoid (a_d) d = Tanh (a) y = Mul (c, d)"),
        "besides the Q a float operator reads its output: Tanh 'Tanh'",
    ),
    "two Qs": (
        net(ENTRY + pair("a") + "e = QuantizeLinear (a, s2, z) f = DequantizeLinear (e, s2, z) y = Mul (a_d, f)"),
        "2 Qs read its output; one is fused",
    ),
    "a graph output": (
        net(ENTRY + pair("a") + "y = Sigmoid (a_d)", outputs="float[1,16,H,W] a, float[1,16,H,W] y"),
        "its output is a graph output, so no Q follows it alone",
    ),
    "zero point of a Relu": (
        net(pair("x", zero="mid") + conv("a", "x_d") + "b = Relu (a) " + pair("b", zero="mid") + END),
        "the Relu between it and its Q is needed: zero point 128 lets values below 0 through, 0 would not",
    ),
    "range of a Clip": (
        net(ENTRY + "b = Clip (a, low, six) " + pair("b") + END, constants="float low = {0}, float six = {6}"),
        "the Clip between it and its Q is needed: the Q reaches to 25.5, beyond 6",
    ),
    "types differ": (
        net(ENTRY + pair("a", zero="iz") + "b = Sigmoid (a_d) y = Mul (a_d, b)"),
        "its input and output have different types: uint8 and int8",
    ),
    "int8 with several readers": (
        net(pair("x", zero="iz") + conv("a", "x_d") + pair("a", zero="iz") + "b = Sigmoid (a_d) y = Mul (a_d, b)"),
        f"{INT8}; they are converted where a value has one reader, its output has several",
    ),
    "weights in float": (
        net(pair("x") + "a = Conv (x_d, f) y = Sigmoid (a)", constants="float[16,16,1,1] f"),
        "its input is quantized and its weights are not: final layer: its error would go straight into the answer",
    ),
    "input in float": (
        net(conv("a", "x") + pair("a") + "y = Sigmoid (a_d)"),
        "its weights are quantized and its input is not",
    ),
    "an operator behind the DQ": (
        net(pair("x") + "t = Tanh (x_d) " + conv("a", "t") + pair("a") + "y = Sigmoid (a_d)"),
        "Tanh 'Tanh' stands between the DequantizeLinear and it",
    ),
    "no kernel": (
        net(pair("x") + conv("a", "x_d", op="ConvTranspose") + pair("a") + "y = Sigmoid (a_d)"),
        "ONNX Runtime has no int8 ConvTranspose",
    ),
    "nothing but another layer is quantized": (
        net(
            "a = Conv (x, f) b = Relu (a) " + pair("b") + conv("c", "b_d") + pair("c") + "y = Sigmoid (c_d)",
            constants="float[16,16,1,1] f",
        ),
        "not quantized, though the target could run it in int8",
    ),
}


@pytest.mark.parametrize("case", ORT_CASES)
def test_onnx_runtime_runs_it_in_float_and_this_is_why(case):
    text, reason = ORT_CASES[case]
    graph = parse_graph(text)
    name = next(n.outputs[0].name for n in graph.nodes if n.op in {"Conv", "ConvTranspose"})
    assert name == "a"
    facts = explain_model(graph, ORT, None)
    assert facts.left[0].reason == reason
    assert facts.left[0].macs == 16 * 16 * 16
    assert facts.runtime.startswith("onnxruntime ")


def test_a_sound_layer_runs_in_int8():
    facts = explain_model(parse_graph(net(ENTRY + "b = Relu (a) " + pair("b") + END)), ORT, None)
    assert (facts.int8_share, facts.left, facts.layers, facts.int8_layers) == (1.0, [], 1, 1)
    assert facts.conversions["QuantizeLinear"] == 1


def test_uint8_weights_are_slow():
    text = net(
        pair("x") + "w = DequantizeLinear (u, s, z) a = Conv (x_d, w) " + pair("a") + "y = Sigmoid (a_d)",
        constants="uint8[16,16,1,1] u",
    )
    facts = explain_model(parse_graph(text), ORT, None)
    assert facts.int8_share == 1.0
    assert facts.notes == ["1 layers have uint8 weights; ort-vnni is fast with int8"]


def test_a_float_model():
    text = "(float[1,16,4,4] x) => (float[1,16,H,W] y) <float[16,16,1,1] f> { y = Conv (x, f) }"
    facts = explain_model(parse_graph(text), ORT, None)
    assert not facts.quantized
    assert facts.int8_share == 0.0
    assert facts.notes == [NOTHING]
    assert facts.left[0].reason.startswith("not quantized: final layer")
    assert NOTHING in explanation_text(facts)


OPENVINO_CASES = {
    "uint8 weights": (
        net(
            pair("x") + "w = DequantizeLinear (u, s, z) a = Conv (x_d, w) y = Sigmoid (a)",
            constants="uint8[16,16,1,1] u",
        ),
        "its weights are uint8; kernels take int8",
    ),
    "scales of a Concat": (
        net(
            "p = Sigmoid (x) q = Tanh (x) "
            + pair("p")
            + pair("q", "s2", "mid")
            + "k = Concat <axis = 2> (p_d, q_d) "
            + conv("a", "k")
            + "y = Sigmoid (a)"
        ),
        "the Concat before it joins different scales, and no Q follows the Concat",
    ),
}


@pytest.mark.parametrize("case", OPENVINO_CASES)
def test_openvino_runs_it_in_float_and_this_is_why(case):
    pytest.importorskip("openvino")
    text, reason = OPENVINO_CASES[case]
    [layer] = explain_model(parse_graph(text), OPENVINO, None).left
    assert layer.reason == reason


def test_tensorrt_answers_by_its_rules():
    facts = explain_model(
        parse_graph(net(ENTRY + "b = Relu (a) " + pair("b") + conv("y", "b_d", "w2"))), TENSORRT, None
    )
    assert facts.runtime == ""
    assert {f.rule for f in facts.findings} == {"activation-type"}
    assert [layer.reason for layer in facts.left] == ["its activations are uint8 and kernels take int8"] * 2
    assert "activation-type      2" in explanation_text(facts)


def test_tensorrt_has_nothing_to_say_against_a_sound_graph():
    text = net(
        pair("x", zero="iz") + conv("a", "x_d") + "b = Relu (a) " + pair("b", zero="iz") + conv("y", "b_d", "w2")
    )
    facts = explain_model(parse_graph(text), TENSORRT, None)
    assert facts.findings == []
    assert facts.int8_share == 1.0
    assert explanation_text(facts).endswith("the rules find nothing to object to")


def test_integer_operators_are_said_not_to_count():
    text = "(uint8[1,16,4,4] x) => (int32[1,16,H,W] y) <uint8[16,16,1,1] u> { y = ConvInteger (x, u) }"
    facts = explain_model(parse_graph(text), TENSORRT, None)
    assert "1 layers are integer operators already (QLinearConv and others) and are not counted" in facts.notes


def test_a_target_that_cannot_be_asked():
    with pytest.raises(UsageError, match="cannot run here"):
        explain_model(parse_graph(net(ENTRY + "y = Sigmoid (a)")), replace(ORT, adapter=""), None)
