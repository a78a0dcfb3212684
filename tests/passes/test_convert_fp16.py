"""float16 where it is safe: what turns, what stays and why, and that nothing overflows silently."""

import re

import numpy as np
import onnx
import pytest

from onnxopt.analysis.half.emulation import emulated
from onnxopt.analysis.half.forms import half_forms
from onnxopt.analysis.half.judge import judged
from onnxopt.analysis.half.search import repair
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import assert_rewrites, outputs_of, parse_graph, random_feeds
from onnxopt_passes.convert_fp16 import ConvertFp16

NET = """(float[1,3,8,8] x) => (float[1,4] y) <float[8,3,3,3] w, float[8] b, float[4,8] g> {
  c = Conv <pads = [1, 1, 1, 1]> (x, w, b)  s = Sigmoid (c)  m = Mul (c, s)  p = GlobalAveragePool (m)
  f = Flatten (p)  y = Gemm <transB = 1> (f, g) }"""


def surroundings(graph, scale=1.0, target=ORT, count=4):
    inputs = tuple(InputSpec(t.name, tuple(t.shape), np.dtype(t.dtype)) for t in graph.inputs)
    feeds = [random_feeds(graph, seed) for seed in range(count)]
    feeds = [{k: (v * scale).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in f.items()} for f in feeds]
    fit, holdout = open_dataset(feeds, inputs, role="calibration").split_holdout()
    return Context(target, inputs=inputs, fit=fit, holdout=holdout)


def converted(text, *, opset=17, scale=1.0, data=True, target=ORT, **options):
    graph = text if not isinstance(text, str) else parse_graph(text, opset=opset)
    before = graph.copy()
    context = surroundings(graph, scale, target) if data else Context(target)
    record = run_pass(ConvertFp16(**options), graph, context, [])
    onnx.checker.check_model(graph.to_proto(), full_check=True)
    return before, graph, record


def ops(graph):
    return [n.op for n in graph.nodes]


def single_ops(graph):
    """Ops that read or write float32, Casts left out."""
    types = infer(graph)[1] | {c.name: np.dtype(c.dtype) for c in graph.initializers()}
    return [n.op for n in graph.nodes if n.op != "Cast" and any(types.get(t.name) == np.float32 for t in n.outputs)]


def test_a_plain_net_turns_with_one_cast_at_either_end():
    before, graph, record = converted(NET)
    assert ops(graph) == ["Cast", "Conv", "Sigmoid", "Mul", "GlobalAveragePool", "Flatten", "Gemm", "Cast"]
    assert record.counts == {"nodes in float16": 6, "Casts added": 2}
    assert record.notes == []
    assert {c.dtype for c in graph.initializers()} == {np.dtype(np.float16)}
    feeds = random_feeds(before, 9)
    wanted, got = outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-3 * np.abs(wanted).max())


def test_the_sqnr_of_the_real_model_is_in_the_report():
    _, _, record = converted(NET)
    assert record.details["sqnr_db"]["y"] > 50
    assert record.details["emulated_sqnr_db"] > 50


def test_casts_are_shared():
    _, graph, record = converted(
        """(float[1,4] x) => (float[1,4] y, float[1,4] z) <float[4,4] a, float[4,4] b> {
        p = MatMul (x, a)  q = MatMul (x, b)  r = Add (p, q)  y = Relu (r)  z = Exp (r) }""",
        block=("y", "z"),
    )
    assert record.counts["Casts added"] == 2
    assert ops(graph).count("Cast") == 2


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match=r"convert-fp16: 'Frist' matches no node; names look like \['c', "):
        converted(NET, block=("Frist",))


@pytest.mark.parametrize("name", ["First[0]", "Fir*"])
def test_blocked_nodes_stay(name):
    graph = parse_graph(NET)
    graph.nodes[0].name = "First[0]"
    _, graph, record = converted(graph, block=(name,))
    assert ("Conv 'First[0]'", "stays float32: named in block") in record.notes
    assert single_ops(graph)[0] == "Conv"


def test_what_overflows_stays_and_so_does_what_reads_it():
    _, graph, record = converted(
        """(float[1,4] x) => (float[1,4] y) <float[4,4] w, float[1] big = {30000}, float[1] small = {0.0001}> {
        a = MatMul (x, w)  b = Mul (a, big)  c = Mul (b, small)  y = Relu (c) }"""
    )
    reasons = {where: why for where, why in record.notes if where.startswith("Mul")}
    assert all("'b' reaches" in why and "the limit is 8188" in why for why in reasons.values())
    assert single_ops(graph) == ["Mul", "Mul"]
    assert np.isfinite(outputs_of(graph, random_feeds(graph))["y"]).all()


def test_limit_is_an_option():
    text = """(float[1,4] x) => (float[1,4] y) <float[4,4] w, float[4,4] v> { a = MatMul (x, w)  y = MatMul (a, v) }"""
    _, _, record = converted(text, scale=100, limit=50)
    assert "nothing turns half" in record.notes[-1][1]
    assert not record.changed
    _, _, record = converted(text, scale=100)
    assert record.counts["nodes in float16"] == 2


def test_activations_too_small_for_half_stay():
    _, _, record = converted("(float[1,64] x) => (float[1,64] y) { a = Mul (x, x)  y = Relu (a) }", scale=1e-4)
    assert any("nowhere above" in why for _, why in record.notes)
    assert not record.changed


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("y = Mul (a, c)", "constant 'c' holds 1e+09, and float16 ends at 65504"),
        ("y = Div (a, d)", "constant 'd' is too small for float16"),
    ],
)
def test_constants_that_half_cannot_hold_stay(node, reason):
    _, graph, record = converted(
        f"(float[1,4] x) => (float[1,4] y) <float[4,4] w, float c = {{1e9}}, float d = {{1e-7}}> {{"
        f" a = MatMul (x, w)  {node} }}",
        limit=60000.0,
        sqnr=20.0,
    )
    assert any(reason in why for _, why in record.notes)
    assert np.float32 in {np.dtype(c.dtype).type for c in graph.initializers()}


def test_bounds_of_clip_that_bound_nothing_turn():
    _, graph, record = converted(
        """(float[1,4] x) => (float[1,4] y) <float[4,4] w, float lo = {0}, float hi = {3e38}> {
        a = MatMul (x, w)  y = Clip (a, lo, hi) }"""
    )
    assert record.counts["nodes in float16"] == 2
    assert max(float(c.values.max()) for c in graph.initializers() if c.values.size == 1) == 65504


def test_small_biases_turn():
    _, _, record = converted(
        """(float[1,4] x) => (float[1,4] y) <float[4,4] w, float[4] b = {1e-7, 2e-7, 0, 1e-6}> {
        y = Gemm (x, w, b) }"""
    )
    assert record.counts["nodes in float16"] == 1
    assert record.notes == []


def test_numbers_that_vanish_are_noted():
    _, _, record = converted(
        "(float[1,4] x) => (float[1,4] y) <float[4,4] w, float[4] b = {1e-9, 0.5, 0, 1}> { y = Gemm (x, w, b) }"
    )
    assert ("b", "1 of 4 numbers are too small for float16 and become 0") in record.notes


def test_what_is_kept_from_0_by_a_tiny_number_stays_above_0():
    _, graph, record = converted(
        """(float[1,4] x) => (float[1,4] y) <float[4,4] m, float tiny = {1e-12}> {
        a = MatMul (x, m)  r = Relu (a)  s = ReduceMax <keepdims = 1> (r)  t = Add (s, tiny)  y = Div (r, t) }"""
    )
    assert any("is kept from 0 by 'tiny'" in why for _, why in record.notes)
    zeros = {"x": np.zeros((1, 4), np.float32)}
    assert np.isfinite(outputs_of(graph, zeros)["y"]).all()


def test_large_sums_and_squares_stay():
    mean = "(float[1,2,64,64] x) => (float[1,2,1,1] y) { a = Abs (x)  y = GlobalAveragePool (a) }"
    _, _, record = converted(mean, scale=30)
    assert any("its sum over 4096 numbers reaches" in why for _, why in record.notes)
    norm = "(float[1,8] x) => (float[1,8] y) <float[8] s> { a = Neg (x)  y = LayerNormalization (a, s) }"
    _, _, record = converted(norm, scale=1000)
    assert any("it squares 'a'" in why for _, why in record.notes)


def test_operators_without_half_stay():
    _, graph, record = converted(
        """(float[1,4] x) => (float[1,4] y) <float[4,4] w, float z = {0}, float four = {4}, float one = {1}> {
        a = MatMul (x, w)  r = RandomNormal <shape = [1, 4], seed = 1.0> ()  k = MatMul (a, w)  y = Add (k, r) }"""
    )
    assert any("its output's type does not follow" in why for _, why in record.notes)
    assert single_ops(graph) == ["RandomNormal"]


def test_scales_of_resize_stay_float32():
    _, graph, record = converted(
        """(float[1,2,4,4] x) => (float[1,2,8,8] y) <float[2,2,1,1] w, float[4] s = {1, 1, 2, 2}> {
        a = Conv (x, w)  y = Resize <mode = "linear"> (a, , s) }"""
    )
    assert record.counts["nodes in float16"] == 2
    assert next(c for c in graph.initializers() if c.name == "s").dtype == np.float32


def test_sizes_are_computed_in_float32():
    text = """(float[N,2,4,4] x) => (float y, int64[4] n) <float[4] f, float half = {0.5}> {
        s = Shape (x)  t = Cast <to = 1> (s)  u = Mul (t, half)  n = Cast <to = 7> (u)
        y = ReduceSum <keepdims=0> (x) }"""
    graph = parse_graph(text)
    graph.inputs[0].shape = [1, 2, 4, 4]
    _, graph, record = converted(graph)
    assert record.counts["nodes left in float32 that compute sizes"] == 3
    assert "Mul" in single_ops(graph)


def test_nested_graphs_stay():
    _, graph, record = converted(
        """(float[1,4] x, bool flag) => (float[1,4] y) <float[4,4] w, float[4] v> {
        a = MatMul (x, w)
        b = If (flag) <
            then_branch = t () => (float[1,4] out) { out = Add (a, v) },
            else_branch = e () => (float[1,4] out) { out = Identity (a) }
        >
        y = MatMul (b, w) }"""
    )
    assert any("it holds a nested graph" in why for _, why in record.notes)
    assert record.counts["nodes in float16"] == 2
    assert np.isfinite(outputs_of(graph, random_feeds(graph))["y"]).all()


def test_a_constant_that_both_precisions_read_is_doubled():
    _, graph, _ = converted(
        "(float[1,4] x) => (float[1,4] y) <float[4,4] w> { a = MatMul (x, w)  b = Relu (a)  y = MatMul (b, w) }",
        block=("y",),
    )
    assert sorted(np.dtype(c.dtype).name for c in graph.initializers()) == ["float16", "float32"]


QDQ = """(float[1,4,4,4] x) => (float[1,4,4,4] y)
  <float[4,4,1,1] w, float s = {0.1}, int8 z = {0}, int8[4,4,1,1] q, float[4] t = {0.01, 0.02, 0.01, 0.03}> {
  a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)  v = DequantizeLinear <axis = 0> (q, t)
  c = Conv (b, v)  d = Relu (c)  e = Sigmoid (d)  y = Conv (e, w) }"""


def types_of(graph):
    return infer(graph)[1] | {c.name: np.dtype(c.dtype) for c in graph.initializers()}


@pytest.mark.parametrize("opset", [19, 21, 23])
def test_scales_turn_from_opset_19_on(opset):
    before, graph, record = converted(QDQ, opset=opset, target=TENSORRT)
    assert single_ops(graph) == []
    assert ops(graph).count("Cast") == 1  # the input is quantized in float32: its Cast would be one more
    scales = {n.inputs[1].dtype for n in graph.nodes_of("DequantizeLinear")}
    assert scales == {np.dtype(np.float16)}
    feeds = random_feeds(before, 9)
    assert sqnr(outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]) > 40
    assert record.details["sqnr_db_before"] > 0


def sqnr(wanted, got):
    return 10 * np.log10((wanted.astype(float) ** 2).sum() / ((wanted - got.astype(float)) ** 2).sum())


@pytest.mark.parametrize(
    ("opset", "options"), [(18, {"target": TENSORRT}), (19, {"qdq_scales": False}), (19, {"target": ORT})]
)
def test_before_or_on_request_q_and_dq_stay_with_what_reads_them(opset, options):
    _, graph, record = converted(QDQ, opset=opset, **options)
    assert set(single_ops(graph)) == {"DequantizeLinear", "Conv"}
    assert any("nodes at Q/DQ stay float32" in why for _, why in record.notes)
    quantize = next(n for n in graph.nodes if n.op == "QuantizeLinear")
    assert graph.producer(quantize.inputs[0]) is None  # no Cast before it


def test_tiny_scales_are_raised_and_the_integers_behind_them_counted_anew():
    graph = parse_graph(QDQ, opset=19)
    weight = next(n for n in graph.nodes_of("DequantizeLinear") if graph.constant(n.inputs[0]) is not None)
    codes = np.random.default_rng(0).integers(-127, 128, (4, 4, 1, 1)).astype(np.int8)
    small = np.array([0.01, 1e-9, 3e-6, 0.03], np.float32)
    weight.inputs = [graph.add_constant("codes", codes), graph.add_constant("steps", small)]
    _, graph, record = converted(graph, target=TENSORRT)
    weight = next(n for n in graph.nodes_of("DequantizeLinear") if graph.constant(n.inputs[0]) is not None)
    scale, counted = (graph.constant(t) for t in weight.inputs[:2][::-1])
    assert scale.dtype == np.float16
    assert (scale >= small.astype(np.float16)).all()
    assert scale[1] == np.float16(2.0**-24)
    assert np.array_equal(counted[[0, 3]], codes[[0, 3]])
    wanted, got = (c * s.astype(float).reshape(-1, 1, 1, 1) for c, s in ((codes, small), (counted, scale)))
    assert np.abs(got - wanted).max() <= 2.0**-12 * np.abs(wanted).max()
    assert np.abs(got - wanted)[2].max() <= scale[2] / 2
    assert any("2 scales are too small" in why for _, why in record.notes)


@pytest.mark.parametrize("step", [5e-8, 1e-9])
def test_a_scale_that_float16_does_not_hold_keeps_its_pair_in_float32(step):
    text = QDQ.replace("float s = {0.1}", f"float s = {{{step}}}")
    _, graph, record = converted(text, opset=19, target=TENSORRT)
    quantize = next(graph.nodes_of("QuantizeLinear"))
    assert graph.constant(quantize.inputs[1]).dtype == np.float32
    assert any("float16" in why for _, why in record.notes)


def test_no_cast_parts_a_dequantizer_from_the_layer_that_stays_float32():
    text = QDQ.replace("y = Conv (e, w)", "f = Conv (b, v)  g = Add (e, f)  y = Conv (g, w)").replace(
        "c = Conv (b, v)", "c = Conv (b, v)  "
    )
    graph = parse_graph(text, opset=19)
    first = next(graph.nodes_of("Conv"))
    first.name = "first"
    before, graph, _ = converted(graph, target=TENSORRT, block=("first",))
    first = next(n for n in graph.nodes_of("Conv") if n.name == "first")
    kinds = types_of(graph)
    assert [graph.producer(t).op for t in first.inputs] == ["DequantizeLinear"] * 2
    assert {kinds[t.name] for t in first.inputs} == {np.dtype(np.float32)}
    feeds = random_feeds(before, 9)
    assert sqnr(outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]) > 40


@pytest.mark.parametrize("text", [NET, QDQ])
def test_inputs_and_outputs_turn_on_request(text):
    before, graph, _ = converted(text, opset=19, target=TENSORRT, keep_io=False)
    assert [np.dtype(t.dtype) for t in [*graph.inputs, *graph.outputs]] == [np.dtype(np.float16)] * 2
    assert "Cast" not in ops(graph)
    feeds = random_feeds(before, 9)
    got = outputs_of(graph, feeds)["y"]
    assert got.dtype == np.float16
    assert sqnr(outputs_of(before, feeds)["y"], got) > 40


def test_an_output_that_is_computed_in_float32_turns_behind_a_cast():
    text = "(float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Sigmoid (x)  a = Mul (y, y)  z = Relu (a) }"
    before, graph, _ = converted(text, keep_io=False, block=("y",))
    assert sorted(ops(graph)) == ["Cast", "Cast", "Mul", "Relu", "Sigmoid"]
    assert {np.dtype(t.dtype) for t in graph.outputs} == {np.dtype(np.float16)}
    feeds = random_feeds(before, 9)
    for name, wanted in outputs_of(before, feeds).items():
        assert sqnr(wanted, outputs_of(graph, feeds)[name]) > 50


def test_float32_on_request_is_left_alone():
    assert_rewrites(ConvertFp16(precision="fp32"), NET, None)


def test_half_models_are_left_alone():
    half = "(float16[1,4] x) => (float16[1,4] y) <float16[4,4] w> { y = MatMul (x, w) }"
    assert_rewrites(ConvertFp16(), half, None, notes=["nothing turns half"])


def test_without_samples_it_says_what_is_not_known():
    _, _, record = converted(NET, data=False)
    assert record.changed
    assert any("activations may overflow" in why for _, why in record.notes)


def test_a_model_that_onnx_runtime_cannot_load_is_checked_as_far_as_its_weights_go():
    text = """<ir_version: 8, opset_import: ["" : 17, "there" : 1]> g (float[1,4] x) => (float[1,4] y) <float[4,4] w> {
        a = MatMul (x, w)  b = there.Thing (a)  y = Relu (b) }"""
    graph = parse_graph(text)
    record = run_pass(ConvertFp16(), graph, surroundings(graph), [])
    assert record.counts["nodes in float16"] == 1
    assert any("only weights are checked" in why for _, why in record.notes)
    assert any("nothing is known of operators of domain 'there'" in why for _, why in record.notes)


def test_the_emulation_overflows_where_half_does():
    graph = parse_graph("(float[2] x) => (float[2] y) { a = Mul (x, x)  y = Sqrt (a) }")
    forms = half_forms(graph, Shapes(*infer(graph)))
    half = emulated(graph, frozenset({0, 1}), forms)
    assert outputs_of(half, {"x": np.array([300, 1], np.float32)})["y"].tolist() == [np.inf, 1.0]
    # What ONNX Runtime makes of the half graph on the CPU hides that; the emulation is there for this reason.
    first = emulated(graph, frozenset({1}), forms)
    assert np.isinf(outputs_of(first, {"x": np.array([300, 1], np.float32)})["y"][0])


def test_outputs_behind_a_choice_are_judged_before_it():
    graph = parse_graph(
        """(float[1,16] x) => (float[1,3] y) <float[16,16] v, float[16,16] w, int64[1] k = {3}> {
        s = MatMul (x, v)  b = MatMul (x, w)  t, i = TopK (s, k)  y = GatherElements <axis = 1> (b, i) }"""
    )
    assert judged(graph, Shapes(*infer(graph))) == ["s", "b"]


def test_an_output_too_far_off_takes_the_nodes_back_that_cost_it():
    graph = parse_graph(
        """(float[1,64] x) => (float[1,64] y) <float[64,64] w, float c = {1000}> {
        a = MatMul (x, w)  b = Add (a, c)  d = Sub (b, c)  e = Relu (d)  f = Neg (e)  g = Abs (f)  h = Relu (g)
        i = Neg (h)  j = Abs (i)  k = Relu (j)  l = Neg (k)  y = Neg (l) }"""
    )
    for i, node in enumerate(graph.nodes):
        node.name = f"n{i}"
    _, _, record = converted(graph)
    taken = [where for where, why in record.notes if "in half it alone leaves" in why]
    assert taken
    assert all(where.startswith(("Add", "Sub")) for where in taken)
    assert record.details["emulated_sqnr_db"] >= 50


def test_a_goal_out_of_reach_is_said():
    _, _, record = converted(NET, sqnr=100.0)
    [said] = [why for _, why in record.notes if "less than the 100 asked for" in why]
    assert re.search(r"the inputs alone, rounded to half, leave [5-9]\d\.\d dB", said)


def test_repair_takes_the_noisiest_and_no_more():
    cost = dict.fromkeys(range(64), 1e-9) | {17: 1e-3, 40: 1e-4}
    found = repair(frozenset(range(64)), lambda half: sum(cost[i] for i in half), 1e-5)
    assert [s.nodes for s in found.taken] == [(17,), (40,)]
    assert found.half == frozenset(range(64)) - {17, 40}


def test_repair_gives_up_where_everything_is_too_coarse():
    found = repair(frozenset(range(64)), lambda half: len(half) * 1e-3, 1e-5)
    assert found.noise > 1e-5
    assert found.taken == ()
    assert len(found.half) == 64


def test_repair_keeps_what_helped_where_the_goal_is_missed():
    cost = dict.fromkeys(range(64), 1e-6) | {9: 1.0}
    found = repair(frozenset(range(64)), lambda half: sum(cost[i] for i in half), 1e-6)
    assert (9,) in [s.nodes for s in found.taken]
    assert found.noise < 1e-4


def test_overflowing_parts_are_found():
    found = repair(frozenset(range(32)), lambda half: np.inf if 5 in half else 1e-9, 1e-5)
    assert [s.nodes for s in found.taken] == [(5,)]


def test_ort_runs_contrib_operators_in_half():
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g
        (float[1,4] x) => (float[1,4] y) <float[4,4] w> {
        a = MatMul (x, w)  y = com.microsoft.QuickGelu <alpha = 1.0> (a) }"""
    graph = parse_graph(text)
    record = run_pass(ConvertFp16(), graph, surroundings(graph), [])
    assert record.counts["nodes in float16"] == 2
    assert np.isfinite(OrtSession(graph.to_proto()).run(random_feeds(graph))["y"]).all()


def test_keep_io_false_without_fp16_is_noted():
    _, _, record = converted(NET, precision="fp32", keep_io=False)
    assert not record.changed
    assert "keep_io=false goes with precision fp16" in record.notes[0][1]
    assert not converted(NET, precision="fp32")[2].notes
