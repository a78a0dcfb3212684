"""Where quantizers go for OpenVINO, in which format."""

import numpy as np
import pytest

from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.placement import plan
from onnxopt.registry import load_target
from onnxopt.targets.openvino import OPENVINO, OPENVINO_AMX, OPENVINO_HERE
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ

WEIGHTS = "float[16,16,1,1] w1, float[8,8,3,3] w2, float[16,24,1,1] w3"
BLOCK = f"""(float[1,16,8,8] x) => (float[1,16,8,8] y) <{WEIGHTS}, int64[2] sizes = {{8, 8}}> {{
    a = Conv (x, w1)  s = Sigmoid (a)  b = Mul (a, s)  l, r = Split <axis = 1> (b, sizes)
    c = Conv <pads = [1, 1, 1, 1]> (r, w2)  d = Relu (c)  e = Concat <axis = 1> (d, l, r)  y = Conv (e, w3) }}"""


def openvino_runtime(precision=None):
    pytest.importorskip("openvino")
    from onnxopt.runtime.openvino import OpenVinoRuntime

    return OpenVinoRuntime(precision)


def quantized(text, shape, target=OPENVINO):
    graph = parse_graph(text)
    graph.name_nodes()
    before = graph.copy()
    inputs = (InputSpec("x", shape, np.dtype(np.float32)),)
    context = Context(target, inputs=inputs, fit=synthetic(inputs, 2))
    run_pass(Calibrate(), graph, context, [])
    run_pass(InsertQDQ(), graph, context, [])
    return before, graph


def test_pairs_move_before_what_only_moves_values():
    graph = parse_graph(BLOCK)
    found = plan(graph, OPENVINO, Shapes(*infer(graph)))
    assert sorted(found.tensors) == ["b", "d", "x"]
    assert found.tensors["b"].group == found.tensors["d"].group  # two branches of the Concat


def test_everyone_reads_the_pair():
    _, graph = quantized(BLOCK, (1, 16, 8, 8))
    split = next(graph.nodes_of("Split"))
    assert graph.producer(split.inputs[0]).op == "DequantizeLinear"


RESIDUAL = """(float[1,16,16,16] x) => (float[1,16,16,16] y) <float[16,16,1,1] w1, float[16,16,1,1] w2,
    float[16,16,1,1] w3, float[16,16,1,1] w4, float[16,32,1,1] w5, float[16,16,1,1] w6> {
    a = Conv (x, w1)  r = Sigmoid (a)  b = Mul (a, r)  c = Conv (b, w2)  s = Sigmoid (c)  d = Mul (c, s)
    e = Conv (d, w3)  t = Sigmoid (e)  f = Mul (e, t)  g = Add (f, b)
    h = Conv (x, w4)  u = Sigmoid (h)  i = Mul (h, u)  j = Concat <axis = 1> (g, i)
    k = Conv (j, w5)  v = Sigmoid (k)  m = Mul (k, v)  y = Conv (m, w6) }"""


def test_the_runtime_computes_what_is_written():
    """Where OpenVINO turns int8 activations into uint8, it rounds down what a residual Add gives to a Concat."""
    runtime = openvino_runtime(precision="f32")
    _, graph = quantized(RESIDUAL, (1, 16, 16, 16), load_target("openvino"))
    feeds = next(iter(synthetic((InputSpec("x", (1, 16, 16, 16), np.dtype(np.float32)),), 1))).feeds
    written = outputs_of(graph, feeds)["y"]
    run = runtime.open(graph.to_proto()).run(feeds)["y"]
    assert np.square(written - run).sum() < 1e-3 * np.square(written).sum()


WEIGHTS_OF_TOKENS = "float[8,8] w1, float[8,8] w2, float[8,8] w3, float[8,8] w4"
TOKENS = {
    "read by a product": "a = MatMul (x, w1)  b = MatMul (x, w2)  c = Concat <axis = 1> (a, b)  y = MatMul (c, w3)",
    "joined with the input": "a = MatMul (x, w1)  c = Concat <axis = 1> (a, x)  y = MatMul (c, w3)",
    "of a slice": """a = MatMul (x, w1)  b = MatMul (x, w2)  c = Concat <axis = -2> (a, b, x)
        d = Slice (c, zero, many, one)  y = MatMul (d, w3)""",
    "behind a mask": """a = MatMul (x, w1)  b = MatMul (x, w2)  c = Concat <axis = 1> (a, b)  d = Mul (m, c)
        e = MatMul (d, w3)  f = MatMul (c, w4)  y = Add (e, f)""",
}


@pytest.mark.parametrize("case", TOKENS)
def test_the_runtime_loads_products_behind_joined_tokens(case):
    """It moves zero points through Concat and products with a map, and cannot load the MatMul behind."""
    runtime = openvino_runtime()
    text = f"""(float[1,16,8] x) => (float[1,32,8] y) <{WEIGHTS_OF_TOKENS}, float[1,32,1] m, int64[1] zero = {{0}},
        int64[1] many = {{32}}, int64[1] one = {{1}}> {{ {TOKENS[case]} }}"""
    before, graph = quantized(text, (1, 16, 8), load_target("openvino"))
    assert any(n.op == "QuantizeLinear" for n in graph.nodes)
    feeds = next(iter(synthetic((InputSpec("x", (1, 16, 8), np.dtype(np.float32)),), 1))).feeds
    wanted, run = outputs_of(before, feeds)["y"], runtime.open(graph.to_proto()).run(feeds)["y"]
    assert np.square(wanted - run).sum() < 1e-2 * np.square(wanted).sum()


@pytest.mark.parametrize(
    ("architecture", "features", "name"),
    [
        ("x86_64", {"avx2", "avx512_vnni", "amx_int8"}, "openvino-amx"),
        ("x86_64", {"avx2", "avx512_vnni"}, "openvino-vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "openvino-vnni"),
        ("x86_64", {"avx2"}, "openvino-avx2"),
        ("x86_64", set(), "openvino-avx2"),
        ("aarch64", {"asimddp"}, "openvino-arm"),
    ],
)
def test_the_machine_chooses_the_table(architecture, features, name):
    assert OPENVINO_HERE.on(architecture, features).name == name


def test_elsewhere_activations_have_a_zero_point_where_something_is_negative():
    _, graph = quantized(RESIDUAL, (1, 16, 16, 16))
    zeros = [graph.constant(q.inputs[2]) for q in graph.nodes_of("QuantizeLinear")]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
    assert any(zero.any() for zero in zeros)


def test_with_amx_activations_have_no_zero_point_and_uint8_only_where_nothing_is_negative():
    text = """(float[1,8,4,4] x) => (float[1,8,4,4] y) <float[8,8,1,1] w1, float[8,8,1,1] w2, float[8,8,1,1] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  y = Conv (c, w3) }"""
    before, graph = quantized(text, (1, 8, 4, 4), OPENVINO_AMX)
    zeros = {q.inputs[0].name: graph.constant(q.inputs[2]) for q in graph.nodes_of("QuantizeLinear")}
    assert {name: zero.dtype for name, zero in zeros.items()} == {"x": np.uint8, "b": np.uint8, "c": np.int8}
    assert not any(zero.any() for zero in zeros.values())
    feeds = {"x": np.random.default_rng(0).random((1, 8, 4, 4), np.float32)}
    wanted, got = outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]
    assert np.square(wanted - got).sum() < 1e-2 * np.square(wanted).sum()
