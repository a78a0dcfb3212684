"""Hard cases of pruning, by number: rare operators, whole graphs, quantized weights, edges of the ratio."""

from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from mask_equivalence import assert_cut_equals_mask, assert_depends_on_input, assert_oracles, random_choice

from onnxopt import model_io
from onnxopt.analysis.channels import ChannelGroups, Policy, cut
from onnxopt.graph import Graph
from onnxopt.manager import run_pass
from onnxopt.runtime.ort import OrtSession
from onnxopt.testing import outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.prune import Prune

WIDTH = Policy(normalized_width=True)

CASES = {
    "20 group normalisation by InstanceNormalization": (
        """(float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[12,3,1,1] w1, int64[3] apart = {0,4,-1}, float[4] one, float[4] nil, int64[4] together = {1,12,4,4},
         float[12,1,1] g, float[12,1,1] b, float[2,12,1,1] w2> {
        a = Conv (x, w1)  c = Reshape (a, apart)  d = InstanceNormalization (c, one, nil)  e = Reshape (d, together)
        f = Mul (e, g)  h = Add (f, b)  y = Conv (h, w2) }""",
        {"a": 4},
    ),
    "20 instance normalisation, slopes, LRN behind": (
        """(float[1,3,6,6] x) => (float[1,6,6,6] y)
        <float[8,3,1,1] w1, float[8] g, float[8] b, float[8,1,1] slope, float[6,8,1,1] w2> {
        a = Conv (x, w1)  c = InstanceNormalization (a, g, b)  d = PRelu (c, slope)  e = Conv (d, w2)
        y = LRN <size = 3> (e) }""",
        {"a": 8},
    ),
    "20 pixel shuffle, columns first": (
        """(float[1,3,4,4] x) => (float[1,2,8,8] y) <float[12,3,1,1] w1, float[2,3,1,1] w2> {
        a = Conv (x, w1)  b = DepthToSpace <blocksize = 2, mode = "CRD"> (a)  c = Sigmoid (b)  y = Conv (c, w2) }""",
        {"a": 3},
    ),
    "20 pixel shuffle, depth first": (
        """(float[1,3,4,4] x) => (float[1,2,8,8] y) <float[12,3,1,1] w1, float[2,3,1,1] w2> {
        a = Conv (x, w1)  b = DepthToSpace <blocksize = 2> (a)  c = Sigmoid (b)  y = Conv (c, w2) }""",
        {"a": 3},
    ),
    "20 pixel shuffle by Reshape": (
        """(float[1,3,4,4] x) => (float[1,2,8,8] y)
        <float[20,3,1,1] w1, int64[6] apart = {1,5,2,2,4,4}, int64[4] together = {1,5,8,8}, float[2,5,1,1] w2> {
        a = Conv (x, w1)  b = Reshape (a, apart)  c = Transpose <perm = [0,1,4,2,5,3]> (b)  d = Reshape (c, together)
        e = Sigmoid (d)  y = Conv (e, w2) }""",
        {"a": 5},
    ),
    "20 space to depth": (
        """(float[1,3,4,4] x) => (float[1,2,2,2] y) <float[5,3,1,1] w1, float[2,20,1,1] w2> {
        a = Conv (x, w1)  b = SpaceToDepth <blocksize = 2> (a)  c = Sigmoid (b)  y = Conv (c, w2) }""",
        {"a": 5},
    ),
    "20 Resize to sizes, Pad, Tile, Expand": (
        """(float[1,3,4,4] x) => (float[2,2,9,9] y)
        <float[6,3,1,1] w1, int64[4] sizes = {1,6,8,8}, int64[8] pads = {0,0,1,1,0,0,0,0},
        int64[4] repeats = {2,2,1,1},
         float[1,12,1,1] k, int64[4] wide = {2,12,9,9}, float[2,12,1,1] w2> {
        a = Conv (x, w1)  b = Resize <mode = "nearest"> (a, , , sizes)  c = Pad (b, pads)  d = Tile (c, repeats)
        e = Expand (k, wide)  f = Mul (d, e)  g = Sigmoid (f)  y = Conv (g, w2) }""",
        {"a": 6},
    ),
    "21 one weight at five scales": (
        """(float[1,3,8,8] x) => (float[1,4,8,8] y1, float[1,4,4,4] y2, float[1,4,2,2] y3, float[1,4,1,1] y4,
        float[1,4,1,1] y5)
        <float[6,3,1,1] w0, float[7,6,1,1] w, float[7] b, float[4,7,1,1] wo> {
        p1 = Conv (x, w0)  p2 = MaxPool <kernel_shape = [2,2], strides = [2,2]> (p1)
        p3 = MaxPool <kernel_shape = [2,2], strides = [2,2]> (p2)  p4 = MaxPool <kernel_shape = [2,2],
        strides = [2,2]> (p3)
        p5 = Sigmoid (p4)
        t1 = Conv (p1, w, b)  t2 = Conv (p2, w, b)  t3 = Conv (p3, w, b)  t4 = Conv (p4, w, b)  t5 = Conv (p5, w, b)
        r1 = Relu (t1)  r2 = Relu (t2)  r3 = Relu (t3)  r4 = Relu (t4)  r5 = Relu (t5)
        y1 = Conv (r1, wo)  y2 = Conv (r2, wo)  y3 = Conv (r3, wo)  y4 = Conv (r4, wo)  y5 = Conv (r5, wo) }""",
        {"p1": 6, "t1": 7},
    ),
    "22 two inputs, a raw one added, a tap on the way": (
        """(float[1,3,4,4] x, float[1,8,4,4] raw, float[1,2,4,4] z) => (float[1,2,4,4] y, float[1,5,4,4] tap)
        <float[8,3,1,1] w1, float[6,8,1,1] w2, float[5,6,1,1] w3, float[7,7,1,1] w4, float[2,7,1,1] w5> {
        a = Conv (x, w1)  b = Add (a, raw)  c = Conv (b, w2)  d = Relu (c)  tap = Conv (d, w3)
        e = Concat <axis = 1> (tap, z)  f = Conv (e, w4)  g = Relu (f)  y = Conv (g, w5) }""",
        {"c": 6, "f": 7},
    ),
    "23 two branches with one weight": (
        """(float[1,3,4,4] l, float[1,3,4,4] r) => (float[1,2,4,4] y)
        <float[6,3,1,1] w1, float[5,6,1,1] w2, float[2,5,1,1] w3> {
        a = Conv (l, w1)  b = Conv (r, w1)  c = Sigmoid (a)  d = Sigmoid (b)  e = Conv (c, w2)  f = Conv (d, w2)
        g = Sub (e, f)  y = Conv (g, w3) }""",
        {"a": 6, "e": 5},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_oracles(name: str) -> None:
    text, sizes = CASES[name]
    graph = parse_graph(text)
    found = ChannelGroups.of(graph)
    assert {g.name: g.size for g in found.free} == sizes
    assert_oracles(graph, found)


def test_20_group_normalization_loses_whole_groups() -> None:
    text = """(float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[12,3,1,1] w1, float[12] g, float[12] b, float[2,12,1,1] w2> {
        a = Conv (x, w1)  c = GroupNormalization <num_groups = 3> (a, g, b)  d = Relu (c)  y = Conv (d, w2) }"""
    graph = parse_graph(text, opset=21)
    found = ChannelGroups.of(graph)
    assert {g.name: (g.size, g.channels) for g in found.free} == {"a": (3, 12)}
    assert_oracles(graph, found)


def test_20_neighbourhoods_of_channels_hold_them() -> None:
    text = """(float[1,3,4,4] x) => (float[1,2,4,4] y) <float[6,3,1,1] w1, float[2,6,1,1] w2> {
        a = Conv (x, w1)  b = LRN <size = 3> (a)  y = Conv (b, w2) }"""
    fixed = {g.name: g.fixed for g in ChannelGroups.of(parse_graph(text)).groups}
    assert fixed["a"] == "LRN 'b' is an operator without a channel rule"


def test_21_a_weight_stays_shared() -> None:
    graph = parse_graph(CASES["21 one weight at five scales"][0])
    found = ChannelGroups.of(graph)
    cut(graph, found.relations, found.kept({"p1": [0, 2, 4], "t1": [1, 5, 6]}))
    readers = [n.inputs[1] for n in graph.nodes_of("Conv") if n.outputs[0].name.startswith("t")]
    assert len({id(t) for t in readers}) == 1
    assert readers[0].values.shape == (3, 3, 1, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            """If (c) <then_branch = t () => (float[1,4,2,2] u) { u = Relu (a) },
                    else_branch = e () => (float[1,4,2,2] v) { v = Neg (a) }>""",
            "If 'y' runs nested graphs",
        ),
        ("LSTM <hidden_size = 2> (q, wl, rl)", "LSTM 'y' is an operator without a channel rule"),
    ],
)
def test_23_nested_graphs_and_recurrence_hold_channels(body: str, reason: str) -> None:
    text = f"""(float[1,3,2,2] x, bool c) => (float[A,B,C,D] y)
        <float[4,3,1,1] w, float[1,8,4] wl, float[1,8,2] rl, int64[3] s = {{4,1,4}}> {{
        a = Conv (x, w)  q = Reshape (a, s)  y = {body} }}"""
    assert reason in [g.fixed for g in ChannelGroups.of(parse_graph(text)).groups]


QUANTIZED = """(float[1,3,5,5] x) => (float[1,2,5,5] y)
    <float sx = {0.02}, uint8 zx = {128}, int8[8,3,1,1] w1, float[8] s1 = {0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8},
    int8[8] z1,
     int32[8] b1, float[8] sb = {0.01,0.02,0.03,0.04,0.05,0.06,0.07,0.08}, int32[8] zb,
     int8[2,8,1,1] w2, float s2 = {0.25}, int8 z2,
     float[2] b2> {
    xq = QuantizeLinear (x, sx, zx)  xd = DequantizeLinear (xq, sx, zx)
    wd = DequantizeLinear <axis = 0> (w1, s1, z1)  bd = DequantizeLinear <axis = 0> (b1, sb, zb)
    a = Conv (xd, wd, bd)  r = Relu (a)  rq = QuantizeLinear (r, sx, zx)  rd = DequantizeLinear (rq, sx, zx)
    vd = DequantizeLinear (w2, s2, z2)  y = Conv (rd, vd, b2) }"""


def test_24_quantized_weights_lose_codes_scales_and_zero_points() -> None:
    graph = parse_graph(QUANTIZED)
    assert_depends_on_input(graph)
    found = ChannelGroups.of(graph)
    assert {g.name: g.size for g in found.free} == {"a": 8}
    for seed in range(4):
        assert_cut_equals_mask(graph, found, random_choice(found, seed))
    cut(graph, found.relations, found.kept({"a": [1, 4, 6]}))
    codes, scale, zero = next(n for n in graph.nodes if n.outputs[0].name == "wd").inputs
    assert (codes.values.shape, scale.values.tolist(), zero.values.shape) == (
        (3, 3, 1, 1),
        np.array([0.2, 0.5, 0.7], np.float32).tolist(),
        (3,),
    )


def test_24_weights_behind_transpose_and_cast() -> None:
    text = """(float[2,5] x) => (float[2,3] y) <float16[6,5] w1, float[3,6] w2, float[6] b> {
        a = Cast <to = 1> (w1)  c = Transpose <perm = [1,0]> (a)  d = MatMul (x, c)  e = Add (d, b)  f = Tanh (e)
        g = Transpose (w2)  y = MatMul (f, g) }"""
    graph = parse_graph(text)
    found = ChannelGroups.of(graph)
    assert {g.name: g.size for g in found.free} == {"d": 6}
    for seed in range(4):
        assert_cut_equals_mask(graph, found, random_choice(found, seed))


def test_24_a_quantized_weight_of_two_readers_becomes_two() -> None:
    text = """(float[1,4,3,3] x) => (float[1,4,3,3] y)
        <int8[4,4,1,1] w, float[4] s = {0.1,0.2,0.3,0.4}, int8[4] z, float[4,4,1,1] w2> {
        d = DequantizeLinear <axis = 0> (w, s, z)  a = Conv (x, d)  b = Sigmoid (a)  c = Conv (b, d)  e = Tanh (c)
        y = Conv (e, w2) }"""
    graph = parse_graph(text)
    found = ChannelGroups.of(graph)
    assert {g.name: g.size for g in found.free} == {"a": 4, "c": 4}
    for seed in range(4):
        assert_cut_equals_mask(graph, found, random_choice(found, seed))


def test_24_blocks_of_codes_hold_their_channels() -> None:
    text = """(float[1,4,3,3] x) => (float[1,2,3,3] y)
        <int8[6,4,1,1] w, float[3,4,1,1] s, int8[3,4,1,1] z, float[2,6,1,1] w2> {
        d = DequantizeLinear <axis = 0, block_size = 2> (w, s, z)  a = Conv (x, d)  b = Relu (a)  y = Conv (b, w2) }"""
    fixed = {g.name: g.fixed for g in ChannelGroups.of(parse_graph(text, opset=21)).groups}
    assert fixed == {"y": "graph output 'y'"}


@pytest.mark.parametrize("opset", [11, 13, 17, 19, 22])
def test_24_operator_sets(opset: int) -> None:
    sizes = "" if opset >= 13 else ", split = [4,4]"
    given = "a, sizes" if opset >= 13 else "a"
    text = f"""(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[8,3,1,1] w1, int64[2] sizes = {{4, 4}}, int64[4] s = {{0,0,-1,1}}, int64[4] t = {{0,4,5,5}},
        float[2,4,1,1] w2> {{
        a = Conv (x, w1)  p, q = Split <axis = 1{sizes}> ({given})  r = Mul (p, q)  u = Reshape (r, s)
        v = Reshape (u, t)
        y = Conv (v, w2) }}"""
    graph = parse_graph(text, opset=opset)
    assert_oracles(graph, ChannelGroups.of(graph))


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
def test_24_half_precision_weights(dtype: np.dtype) -> None:
    kind = "float16" if dtype == np.float16 else "bfloat16"
    text = f"""({kind}[1,3,4,4] x) => ({kind}[1,2,4,4] y) <{kind}[6,3,1,1] w1, {kind}[6] b1, {kind}[2,6,1,1] w2> {{
        a = Conv (x, w1, b1)  b = Relu (a)  y = Conv (b, w2) }}"""
    graph = parse_graph(text, opset=22)
    before = graph.copy()
    found = ChannelGroups.of(graph)
    cut(graph, found.relations, found.kept({"a": [0, 3, 5]}))
    conv, last = graph.nodes_of("Conv")
    assert conv.inputs[1].values.dtype == last.inputs[1].values.dtype == dtype
    old = [n.inputs[1].values for n in before.nodes_of("Conv")]
    assert (conv.inputs[1].values == old[0][[0, 3, 5]]).all()
    assert (last.inputs[1].values == old[1][:, [0, 3, 5]]).all()
    onnx.checker.check_model(graph.to_proto(), full_check=True)


def test_24_external_data(tmp_path: Path) -> None:
    graph = parse_graph(NET)
    outputs = {}
    for external in (False, True):
        model_io.save(graph.copy(), tmp_path / "m.onnx", external=external)
        read = model_io.load(tmp_path / "m.onnx")
        assert bool(model_io.external_files(tmp_path / "m.onnx")) == external
        found = ChannelGroups.of(read)
        cut(read, found.relations, found.kept(random_choice(found, 0)))
        model_io.save(read, tmp_path / "cut.onnx", external=external)
        after = model_io.load(tmp_path / "cut.onnx")
        assert after.nbytes() < graph.nbytes()
        outputs[external] = outputs_of(after, random_feeds(graph))
    for name, value in outputs[False].items():
        np.testing.assert_array_equal(outputs[True][name], value)


@pytest.mark.slow
def test_24_external_data_above_2_gb(tmp_path: Path) -> None:
    """More than one protobuf holds. Half of the wide channels add nothing, so outputs stay without them."""
    narrow, wide = 2**12 + 2**8, 2**16
    graph = parse_graph(
        "(float[1,16] x) => (float[1,4] y) <float[16,8] w1, float[8,8] w2, float[8,8] w3, float[8,4] w4> "
        "{ a = MatMul (x, w1)  b = MatMul (a, w2)  c = Tanh (b)  d = MatMul (c, w3)  y = MatMul (d, w4) }"
    )
    generator = np.random.default_rng(24)
    sizes = [16, narrow, wide, narrow, 4]
    for node, shape in zip(graph.nodes_of("MatMul"), pairwise(sizes), strict=True):
        weight = graph.own_constant(node, 1)
        weight.values = generator.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
    silent = graph.own_constant(graph.nodes[3], 1)
    silent.values[1::2] = 0
    assert graph.nbytes() > 2**31
    model_io.save(graph, tmp_path / "m.onnx")
    feeds = random_feeds(graph)
    del graph, silent, weight
    session = OrtSession(tmp_path / "m.onnx")
    wanted, other = (session.run({"x": x})["y"] for x in (feeds["x"], -feeds["x"]))
    assert np.abs(wanted - other).max() > 0.01
    del session
    read = model_io.load(tmp_path / "m.onnx")
    found = ChannelGroups.of(read)
    cut(read, found.relations, found.kept({"b": list(range(0, wide, 2))}))
    model_io.save(read, tmp_path / "cut.onnx")
    assert read.nbytes() < 0.6 * 2**31
    np.testing.assert_allclose(OrtSession(tmp_path / "cut.onnx").run(feeds)["y"], wanted, rtol=0, atol=1e-5)


NET = """(float[1,3,8,8] x) => (float[1,5] y)
    <float[32,3,3,3] w1, float[32] b1, float[32,1,3,3] wd, float[48,8,1,1] wg, float[24,48,1,1] w2, float[24,5] w3> {
    a = Conv <pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)  c = Conv <group = 32, pads = [1,1,1,1]> (b, wd)
    d = Conv <group = 4> (c, wg)  e = Sigmoid (d)  f = Conv (e, w2)  g = GlobalAveragePool (f)  h = Flatten (g)
    y = MatMul (h, w3) }"""


def pruned(**options: object) -> tuple[Graph, Graph, list[tuple[str, str]]]:
    graph = parse_graph(NET)
    before = graph.copy()
    record = run_pass(Prune(**options), graph, plain_context(), [])
    return before, graph, record.notes


def widths(graph: Graph) -> list[int]:
    return [n.inputs[1].values.shape[0] for n in graph.nodes_of("Conv")]


@pytest.mark.parametrize(
    ("ratio", "align", "wanted"),
    [
        (0.0, 1, [32, 32, 48, 24]),
        (0.5, 1, [16, 16, 24, 12]),
        (0.99, 1, [4, 4, 4, 1]),  # a block of the grouped convolution keeps at least one channel
        (0.5, 8, [16, 16, 24, 16]),  # 12 lies between 8 and 16: the larger of two equally near multiples
        (0.5, 16, [16, 16, 32, 16]),  # blocks of 4 and alignment 16: multiples of both
        (0.5, 64, [32, 32, 48, 24]),  # smaller than one block: left alone
    ],
)
def test_26_ratios_and_alignment(ratio: float, align: int, wanted: list[int]) -> None:
    _, graph, notes = pruned(ratio=ratio, align=align)
    assert widths(graph) == wanted
    outputs_of(graph, random_feeds(graph))
    if align == 64:
        assert any("are no more than one block of" in why for _, why in notes)


def test_27_the_same_choice_gives_the_same_bytes_and_ratio_0_changes_nothing() -> None:
    before, graph, _ = pruned(ratio=0.5, align=1)
    _, again, _ = pruned(ratio=0.5, align=1)
    assert graph.digest() == again.digest() != before.digest()
    assert not run_pass(Prune(ratio=0.0, align=1), graph, plain_context(), []).changed
    assert graph.digest() == again.digest()


def test_27_the_result_is_valid_and_runs_optimized_and_not() -> None:
    _, graph, _ = pruned(ratio=0.5, align=1)
    model = graph.to_proto()
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    feeds = random_feeds(graph)
    plain, fast = (OrtSession(model, optimized=o).run(feeds)["y"] for o in (False, True))
    assert np.abs(plain - fast).max() <= 1e-5 * np.abs(plain).max()


def test_27_openvino_agrees() -> None:
    openvino = pytest.importorskip("openvino")
    _, graph, _ = pruned(ratio=0.5, align=1)
    model = openvino.Core().read_model(graph.to_proto().SerializeToString())
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    feeds = random_feeds(graph)
    (got,) = compiled(feeds).values()
    wanted = outputs_of(graph, feeds)["y"]
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
