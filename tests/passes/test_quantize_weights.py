"""Weight-only quantization: what ONNX Runtime really fuses, and that the codes mean the weights."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxopt.analysis.weight_codes import encode
from onnxopt.errors import UsageError
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.ort import ORT
from onnxopt.testing import assert_rewrites, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.quantize_weights import QuantizeWeights

MATMUL = "(float[4,64] x) => (float[4,32] y) <float[64,32] w> { y = MatMul (x, w) }"
GEMM = "(float[4,64] x) => (float[4,32] y) <float[32,64] w, float[32] b> { y = Gemm <transB = 1> (x, w, b) }"


def quantized(text, *, opset=17, **options):
    graph = parse_graph(text, opset=opset)
    if opset >= 21:
        graph.set_ir_version(10)
    before = graph.copy()
    record = run_pass(QuantizeWeights(min_elements=0, **options), graph, plain_context(), [])
    onnx.checker.check_model(graph.to_proto(), full_check=True)
    return before, graph, record


def fused(graph, folder: Path):
    """Op types of the graph that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]


def sqnr(wanted, got):
    return 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum())


@pytest.mark.parametrize(
    "text", [MATMUL, GEMM, GEMM.replace("float[32] b", "float[1,32] b"), GEMM.replace(", b)", ")")]
)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "opset", "least"), [(8, 13, 38), (8, 21, 38), (4, 21, 18)])
def test_onnx_runtime_fuses_it(text, symmetric, bits, opset, least, tmp_path):
    before, graph, record = quantized(text, opset=opset, bits=bits, symmetric=symmetric)
    assert record.counts == {"layers with quantized weights": 1}
    assert fused(graph, tmp_path) == ["MatMulNBits"]
    feeds = random_feeds(before)
    for optimized in (False, True):
        assert sqnr(outputs_of(before, feeds)["y"], outputs_of(graph, feeds, optimized=optimized)["y"]) > least


def test_expected_graph():
    assert_rewrites(
        QuantizeWeights(min_elements=0),
        "(float[4,64] x) => (float[4,32] y) <float[32,64] w, float[1] b> { y = Gemm <transB = 1> (x, w, b) }",
        """(float[4,64] x) => (float[4,32] y) <int8[64,32] q, float[32] s, float[32] b> {
        d = DequantizeLinear <axis = 1> (q, s)  y = Gemm (x, d, b) }""",
        runtimes=("ort",),  # the reference evaluator knows DequantizeLinear from opset 19 on
    )


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("length", [64, 100])
def test_blocks_need_not_divide_the_matrix(block, length, tmp_path):
    text = f"(float[4,{length}] x) => (float[4,32] y) <float[{length},32] w> {{ y = MatMul (x, w) }}"
    before, graph, _ = quantized(text, opset=21, bits=4, block=block)
    assert fused(graph, tmp_path) == ["MatMulNBits"]
    feeds = random_feeds(before)
    assert sqnr(outputs_of(before, feeds)["y"], outputs_of(graph, feeds, optimized=True)["y"]) > 15


def test_four_bits_need_opset_21():
    with pytest.raises(UsageError, match=r"run upgrade-opset\{floor=21\} before"):
        quantized(MATMUL, opset=17, bits=4)


def test_eight_bits_need_opset_13():
    with pytest.raises(UsageError, match=r"run upgrade-opset\{floor=13\} before"):
        quantized(MATMUL, opset=12)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GEMM.replace("transB = 1", "transB = 1, alpha = 2.0"), "transA or alpha"),
        (GEMM.replace("transB = 1", "transB = 1, beta = 0.5"), "beta"),
        (GEMM.replace("float[32] b", "float[4,32] b"), "its bias is a matrix"),
        (
            MATMUL.replace("y = ", "v = Identity (x) y = ")
            .replace("float[64,32] w", "float[1,64,32] w")
            .replace("float[4,32] y", "float[1,4,32] y"),
            "its weights are no matrix",
        ),
        ("(float[4,8] x, float[8,2] w) => (float[4,2] y) { y = MatMul (x, w) }", "its second input is no constant"),
        ("(float16[4,8] x) => (float16[4,2] y) <float16[8,2] w> { y = MatMul (x, w) }", "its weights are float16"),
    ],
)
def test_what_would_not_be_fused_is_left_alone(text, reason):
    assert_rewrites(QuantizeWeights(min_elements=0), text, None, notes=[reason])


def test_small_weights_are_left_alone():
    assert_rewrites(QuantizeWeights(), MATMUL, None, notes=["2048 weights are fewer than min_elements=16384"])


def named():
    graph = parse_graph(
        "(float[4,64] x) => (float[4,64] y) <float[64,64] v, float[64,64] w> { a = MatMul (x, v)  y = MatMul (a, w) }"
    )
    graph.nodes[0].name, graph.nodes[1].name = "first", "second"
    return graph


@pytest.mark.parametrize("options", [{"scope": ("first",)}, {"ignore": ("sec*",)}])
def test_scope_and_ignore(options):
    graph = named()
    run_pass(QuantizeWeights(min_elements=0, **options), graph, plain_context(), [])
    assert [n.op for n in graph.nodes] == ["DequantizeLinear", "MatMul", "MatMul"]


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match="'third' matches no MatMul, Gemm or Gather"):
        run_pass(QuantizeWeights(scope=("third",)), named(), plain_context(), [])


def test_layers_that_share_a_weight_are_both_fused(tmp_path):
    text = "(float[4,64] x) => (float[4,64] y) <float[64,64] w> { a = MatMul (x, w)  b = Exp (a)  y = MatMul (b, w) }"
    _, graph, _ = quantized(text)
    assert fused(graph, tmp_path) == ["MatMulNBits", "Exp", "MatMulNBits"]


@pytest.mark.parametrize(
    ("behind", "ops"),
    [
        ("c = Relu (a)", ["Max"]),
        ("c = Clip (a, lo, hi)", ["Max", "Min"]),
        ("c = Clip (a, , hi)", ["Min"]),
        ("c = Clip (a)", ["Max"]),
        ("b = Add (a, bias)  c = Relu (b)", ["Add", "Max"]),
        ("b = Identity (a)  c = Relu (b)", ["Identity", "Max"]),
    ],
)
@pytest.mark.parametrize("layer", ["MatMul (x, w)", "Gemm (x, w, bias)"])
def test_relu_behind_a_layer_does_not_keep_it_from_being_fused(behind, ops, layer, tmp_path):
    text = f"""(float[4,64] x) => (float[4,64] y)
        <float[64,64] w, float[64] bias, float lo = {{-1}}, float hi = {{1.5}}> {{
        a = {layer}  {behind}  y = Exp (c) }}"""
    graph = parse_graph(text)
    before = graph.copy()
    run_pass(QuantizeWeights(min_elements=0), graph, Context(ORT), [])
    assert [n.op for n in graph.nodes][2:] == [*ops, "Exp"]
    assert "MatMulNBits" in fused(graph, tmp_path)
    feeds = random_feeds(before)
    wanted, got = np.log(outputs_of(before, feeds)["y"]), np.log(outputs_of(graph, feeds)["y"])
    assert sqnr(wanted, got) > 35


def test_rows_of_a_table():
    text = "(int64[5] i) => (float[5,16] y) <float[100,16] t> { y = Gather (t, i) }"
    before, graph, record = quantized(text, embeddings=True)
    assert record.counts == {"tables quantized": 1}
    assert [n.op for n in graph.nodes] == ["Gather", "Gather", "Cast", "Mul"]
    feeds = {"i": np.array([0, 99, -1, 7, 7])}
    assert sqnr(outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]) > 38
    assert graph.nbytes() < before.nbytes() / 3


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), [(8, 0), (4, 32), (4, 0)])
def test_codes_stay_within_half_a_step_but_for_the_clipped(bits, block, symmetric):
    weight = np.random.default_rng(0).standard_normal((96, 8)).astype(np.float32)
    codes = encode(weight, bits, block, symmetric=symmetric)
    steps = np.repeat(codes.scale, block, axis=0) if block else codes.scale
    within = np.abs(codes.decoded() - weight) <= 0.5001 * steps
    assert within.all() if bits == 8 else within.mean() > 0.85


def test_a_smaller_scale_is_taken_where_it_errs_less():
    weight = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)
    codes = encode(weight, 4, 32, symmetric=True)
    plain = np.abs(weight.reshape(4, 32, 64)).max(axis=1) / 7
    rounded = np.clip(np.rint(weight.reshape(4, 32, 64) / plain[:, None]), -8, 7) * plain[:, None]
    error = ((rounded.reshape(128, 64) - weight) ** 2).sum()
    assert ((codes.decoded() - weight) ** 2).sum() < 0.95 * error


def test_a_column_of_zeros():
    codes = encode(np.zeros((32, 2), np.float32), 4, 32, symmetric=False)
    assert not codes.decoded().any()
