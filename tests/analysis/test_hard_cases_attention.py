"""Hard cases of pruning, by number: attention and normalisation. Each is cut and judged by three oracles."""

import numpy as np
import pytest
from mask_equivalence import assert_oracles

from onnxopt.analysis.channels import ChannelGroups, Policy, cut
from onnxopt.graph import Graph
from onnxopt.testing import outputs_of, parse_graph, random_feeds

HEADS = Policy(whole_blocks=True)
WIDTH = Policy(normalized_width=True)

PSA = """
    (float[1,3,4,4] x) => (float[1,2,4,4] y)
    <float[16,3,1,1] w0, float[32,16,1,1] wqkv, float[32] bqkv, int64[4] apart = {1,2,16,16},
    int64[3] sizes = {4,4,8},
     float scale, int64[4] together = {1,16,4,4}, float[16,1,3,3] wpe, float[16,16,1,1] wproj, float[24,16,1,1] f1,
     float[16,24,1,1] f2, float[2,16,1,1] w1> {
    a = Conv (x, w0)  b = Conv (a, wqkv, bqkv)  c = Reshape (b, apart)  q, k, v = Split <axis = 2> (c, sizes)
    qt = Transpose <perm = [0,1,3,2]> (q)  d = MatMul (qt, k)  e = Mul (d, scale)  f = Softmax <axis = 3> (e)
    ft = Transpose <perm = [0,1,3,2]> (f)  g = MatMul (v, ft)  h = Reshape (g, together)  i = Reshape (v, together)
    j = Conv <group = 16, pads = [1,1,1,1]> (i, wpe)  l = Add (h, j)  m = Conv (l, wproj)  n = Add (a, m)
    o = Conv (n, f1)  p = Sigmoid (o)  r = Conv (p, f2)  s = Add (n, r)  y = Conv (s, w1) }"""

PSA_ANY_SIZE = """
    (float[N,3,H,W] x) => (float[N,2,H,W] y)
    <float[16,3,1,1] w0, float[32,16,1,1] wqkv, float[32] bqkv, int64[3] sizes = {4,4,8}, float[16,1,3,3] wpe,
     float[16,16,1,1] wproj, float[2,16,1,1] w1, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3},
     int64[1] zero = {0}, int64[1] heads = {2}, int64[1] width = {16}, int64[1] rest = {-1}> {
    a = Conv (x, w0)  s = Shape (a)  n0 = Gather <axis = 0> (s, i0)  n = Unsqueeze (n0, zero)
    c0 = Gather <axis = 0> (s, i1)  c = Unsqueeze (c0, zero)  h0 = Gather <axis = 0> (s, i2)
    h = Unsqueeze (h0, zero)  w0_ = Gather <axis = 0> (s, i3)  w = Unsqueeze (w0_, zero)
    hw = Mul (h, w)  apart = Concat <axis = 0> (n, heads, width, hw)  together = Concat <axis = 0> (n, c, h, w)
    b = Conv (a, wqkv, bqkv)  e = Reshape (b, apart)  q, k, v = Split <axis = 2> (e, sizes)
    qt = Transpose <perm = [0,1,3,2]> (q)  d = MatMul (qt, k)  dt = Tanh (d)  f = Softmax <axis = 3> (dt)
    ft = Transpose <perm = [0,1,3,2]> (f)  g = MatMul (v, ft)  i = Reshape (g, together)  j = Reshape (v, together)
    l = Conv <group = 16, pads = [1,1,1,1]> (j, wpe)  m = Add (i, l)  o = Conv (m, wproj)  p = Add (a, o)
    y = Conv (p, w1) }"""

AREA = """
    (float[1,3,4,4] x) => (float[1,2,4,4] y)
    <float[8,3,1,1] w0, float[24,8,1,1] wqkv, int64[3] flat = {1,24,16}, int64[3] areas = {4,4,24},
    int64[4] heads = {4,4,2,12},
     int64[3] sizes = {4,4,4}, int64[3] back = {1,16,8}, int64[4] picture = {1,4,4,8}, float[8,1,3,3] wpe,
     float[8,8,1,1] wproj,
     float[2,8,1,1] w1, int64[4] vpicture = {1,4,4,8}> {
    a = Conv (x, w0)  b = Conv (a, wqkv)  c = Reshape (b, flat)  d = Transpose <perm = [0,2,1]> (c)
    e = Reshape (d, areas)
    f = Reshape (e, heads)  g = Transpose <perm = [0,2,3,1]> (f)  q, k, v = Split <axis = 2> (g, sizes)
    qt = Transpose <perm = [0,1,3,2]> (q)  h = MatMul (qt, k)  i = Softmax <axis = 3> (h)
    it = Transpose <perm = [0,1,3,2]> (i)  j = MatMul (v, it)  l = Transpose <perm = [0,3,1,2]> (j)
    vt = Transpose <perm = [0,3,1,2]> (v)  m = Reshape (l, picture)  n = Reshape (vt, vpicture)
    o = Transpose <perm = [0,3,1,2]> (m)  p = Transpose <perm = [0,3,1,2]> (n)
    r = Conv <group = 8, pads = [1,1,1,1]> (p, wpe)  s = Add (o, r)  t = Conv (s, wproj)  u = Add (a, t)
    y = Conv (u, w1) }"""

VIT = """
    (float[2,5,6] x) => (float[2,3] y)
    <float[6,8] w0, float[1,1,8] token, int64[3] wide = {2,1,8}, float[1,6,8] position, float[8] g, float[8] b,
     float[8,24] wqkv, float[24] bqkv, int64[5] apart = {2,6,3,2,4}, int64[1] zero = {0}, int64[3] ones = {1,1,1},
     int64[1] m1 = {-1}, int64[1] top = {9223372036854775807}, int64[3] together = {2,6,8}, float[8,8] wproj,
     float[8] bproj, float[8] g2,
     float[8] b2, float[8,12] f1, float[12] c1, float[12,8] f2, float[8,3] head, int64 first = {0}> {
    p = MatMul (x, w0)  t = Expand (token, wide)  c = Concat <axis = 1> (t, p)  d = Add (c, position)
    e = LayerNormalization (d, g, b)  f = MatMul (e, wqkv)  h = Add (bqkv, f)  i = Reshape (h, apart)
    j = Transpose <perm = [2,0,3,1,4]> (i)  q1, k1, v1 = Split <axis = 0> (j, ones)
    q = Squeeze (q1, zero)  k = Squeeze (k1, zero)  v = Squeeze (v1, zero)
    sh = Shape (q)  dim = Slice (sh, m1, top)  real = Cast <to = 1> (dim)  root = Sqrt (real)
    kt = Transpose <perm = [0,1,3,2]> (k)  s = MatMul (q, kt)  ss = Div (s, root)  w = Softmax <axis = -1> (ss)
    o = MatMul (w, v)  ot = Transpose <perm = [0,2,1,3]> (o)  u = Reshape (ot, together)  r = MatMul (u, wproj)
    rb = Add (r, bproj)  z = Add (d, rb)  n = LayerNormalization (z, g2, b2)  l = MatMul (n, f1)  la = Add (l, c1)
    lb = Erf (la)  lc = MatMul (lb, f2)  ld = Add (z, lc)  le = Gather <axis = 1> (ld, first)  y = MatMul (le,
    head) }"""

VIT_ANY_BATCH = """
    (float[N,5,6] x) => (float[N,3] y)
    <float[6,8] w0, float[1,1,8] token, float[1,6,8] position, float[8] g, float[8] b, float[8,24] wqkv, float[24] bqkv,
     int64[1] zero = {0}, int64[3] ones = {1,1,1}, int64[2] same = {-1,-1}, int64[4] rest = {6,3,2,4},
     int64[2] wide = {6,8}, int64[3] all = {1,1,1}, int64 minus = {-1}, float[8,8] wproj, float[8] g2, float[8] b2,
     float[8,12] f1, float[12,8] f2, float[8,3] head, int64 first = {0}> {
    p = MatMul (x, w0)  sp = Shape (x)  n0 = Gather <axis = 0> (sp, first)  n = Unsqueeze (n0, zero)
    t0 = Concat <axis = 0> (n, same)  t1 = Equal (t0, minus)  t2 = Where (t1, all, t0)  t = Expand (token, t2)
    c = Concat <axis = 1> (t, p)  d = Add (c, position)  e = LayerNormalization (d, g, b)  f = MatMul (e, wqkv)
    h = Add (bqkv, f)  apart = Concat <axis = 0> (n, rest)  i = Reshape (h, apart)
    j = Transpose <perm = [2,0,3,1,4]> (i)  q1, k1, v1 = Split <axis = 0> (j, ones)
    q = Squeeze (q1, zero)  k = Squeeze (k1, zero)  v = Squeeze (v1, zero)  kt = Transpose <perm = [0,1,3,2]> (k)
    s = MatMul (q, kt)  st = Tanh (s)  w = Softmax <axis = -1> (st)  o = MatMul (w, v)
    ot = Transpose <perm = [0,2,1,3]> (o)  together = Concat <axis = 0> (n, wide)  u = Reshape (ot, together)
    r = MatMul (u, wproj)  z = Add (d, r)  m = LayerNormalization (z, g2, b2)  l = MatMul (m, f1)  lb = Erf (l)
    lc = MatMul (lb, f2)  ld = Add (z, lc)  le = Gather <axis = 1> (ld, first)  y = MatMul (le, head) }"""

WINDOWS = """
    (float[1,4,4,3] x) => (float[1,2,2,2] y)
    <float[3,8] w0, float[8] g, float[8] b, int64[6] cut = {1,2,2,2,2,8}, int64[3] tokens = {4,4,8}, float[8,24] wqkv,
     int64[5] apart = {4,4,3,2,4}, float[1,2,4,4] bias, int64[3] join = {4,4,8}, float[8,8] wproj,
     int64[6] uncut = {1,2,2,2,2,8},
     int64[4] map = {1,4,4,8}, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64[1] one = {1},
     int64[1] zero = {0},
     int64[1] two = {2}, int64[1] end = {100}, int64[1] a1 = {1}, int64[1] a2 = {2}, float[32,10] wm,
     float[10,2] w1> {
    a = MatMul (x, w0)  n = LayerNormalization (a, g, b)
    r1 = Slice (n, one, end, a1)  r2 = Slice (n, zero, one, a1)  r = Concat <axis = 1> (r1, r2)
    c = Reshape (r, cut)  d = Transpose <perm = [0,1,3,2,4,5]> (c)  e = Reshape (d, tokens)  f = MatMul (e, wqkv)
    h = Reshape (f, apart)  i = Transpose <perm = [2,0,3,1,4]> (h)
    q = Gather <axis = 0> (i, i0)  k = Gather <axis = 0> (i, i1)  v = Gather <axis = 0> (i, i2)
    kt = Transpose <perm = [0,1,3,2]> (k)  s = MatMul (q, kt)  sb = Add (s, bias)  w = Softmax <axis = -1> (sb)
    o = MatMul (w, v)  ot = Transpose <perm = [0,2,1,3]> (o)  j = Reshape (ot, join)  p = MatMul (j, wproj)
    u = Reshape (p, uncut)  ut = Transpose <perm = [0,1,3,2,4,5]> (u)  um = Reshape (ut, map)  z = Add (a, um)
    m00 = Slice (z, zero, end, a1, two)  m10 = Slice (z, one, end, a1, two)
    q00 = Slice (m00, zero, end, a2, two)  q01 = Slice (m00, one, end, a2, two)
    q10 = Slice (m10, zero, end, a2, two)  q11 = Slice (m10, one, end, a2, two)
    mm = Concat <axis = -1> (q00, q10, q01, q11)  me = MatMul (mm, wm)  mf = Tanh (me)  y = MatMul (mf, w1) }"""

UNFOLD = """
    (float[1,3,4,4] x) => (float[1,2,4,4] y)
    <float[8,3,1,1] w0, int64[4] s1 = {16,2,2,2}, int64[4] s2 = {1,8,4,4}, int64[3] s3 = {4,4,8}, float[8,12] f1,
    float[12,8] f2,
     int64[4] s4 = {1,4,4,8}, int64[4] s5 = {16,2,2,2}, int64[4] s6 = {1,8,4,4}, float[2,8,1,1] w1> {
    a = Conv (x, w0)  b = Reshape (a, s1)  c = Transpose <perm = [0,2,1,3]> (b)  d = Reshape (c, s2)
    e = Transpose <perm = [0,3,2,1]> (d)  f = Reshape (e, s3)  g = MatMul (f, f1)  h = Sigmoid (g)  i = MatMul (h, f2)
    j = Reshape (i, s4)  k = Transpose <perm = [0,3,2,1]> (j)  l = Reshape (k, s5)
    m = Transpose <perm = [0,2,1,3]> (l)
    n = Reshape (m, s6)  y = Conv (n, w1) }"""

SAMPLING = """
    (float[1,5,8] x, float[1,5,2] refs) => (float[1,5,3] y)
    <float[8,8] wv, int64[4] heads = {1,5,2,4}, int64[4] map = {2,4,1,5}, float[8,4] wo, int64[4] grid = {2,5,1,2},
     int64[4] grid4 = {1,5,2,2}, int64[4] ref4 = {1,5,1,2}, int64[3] join = {1,8,5}, float[8,3] w1> {
    v = MatMul (x, wv)  vh = Reshape (v, heads)  vt = Transpose <perm = [0,2,3,1]> (vh)  vm = Reshape (vt, map)
    o = MatMul (x, wo)  og = Reshape (o, grid4)  rg = Reshape (refs, ref4)  at = Add (og, rg)
    gt = Transpose <perm = [0,2,1,3]> (at)  g = Reshape (gt, grid)  s = GridSample (vm, g)
    j = Reshape (s, join)  t = Transpose <perm = [0,2,1]> (j)  y = MatMul (t, w1) }"""

DECOMPOSED = """
    (float[2,5,4] x) => (float[2,5,3] y)
    <float[4,8] w0, float[8] g, float[8] b, float two = {2}, float eps = {0.00001}, float[8,6] w1, float[6,3] w2> {
    a = MatMul (x, w0)  m = ReduceMean <axes = [-1]> (a)  d = Sub (a, m)  p = Pow (d, two)
    v = ReduceMean <axes = [-1]> (p)
    e = Add (v, eps)  r = Sqrt (e)  n = Div (d, r)  s = Mul (n, g)  t = Add (s, b)  u = MatMul (t, w1)  f = Tanh (u)
    y = MatMul (f, w2) }"""

SPATIAL_GATE = """
    (float[1,3,4,4] x) => (float[1,2,4,4] y) <float[8,3,1,1] w0, float[1,2,3,3] wg, float[2,8,1,1] w1> {
    a = Conv (x, w0)  b = Tanh (a)  m = ReduceMean <axes = [1]> (b)  h = ReduceMax <axes = [1]> (b)
    c = Concat <axis = 1> (m, h)  d = Conv <pads = [1,1,1,1]> (c, wg)  e = Sigmoid (d)  f = Mul (b, e)
    y = Conv (f, w1) }"""

CASES = {
    "05 attention of C2PSA": (PSA, Policy()),
    "05 attention of C2PSA, whole heads": (PSA, HEADS),
    "05 attention of C2PSA, batch and picture of any size": (PSA_ANY_SIZE, Policy()),
    "06 area attention": (AREA, Policy()),
    "06 area attention, whole heads": (AREA, HEADS),
    "09 spatial gate, statistics over what stays": (SPATIAL_GATE, WIDTH),
    "18 vision transformer": (VIT, Policy()),
    "18 vision transformer, whole heads": (VIT, HEADS),
    "18 vision transformer, residual width": (VIT, WIDTH),
    "18 vision transformer, batch of any size": (VIT_ANY_BATCH, Policy()),
    "18 vision transformer, batch of any size, residual width": (VIT_ANY_BATCH, WIDTH),
    "18 decomposed normalisation, width": (DECOMPOSED, WIDTH),
    "19 windows, roll, patch merging": (WINDOWS, Policy()),
    "19 windows, roll, patch merging, width": (WINDOWS, WIDTH),
    "19 unfolded patches": (UNFOLD, Policy()),
    "19 deformable sampling": (SAMPLING, Policy()),
}


@pytest.mark.parametrize("name", CASES)
def test_oracles(name: str) -> None:
    text, policy = CASES[name]
    graph = parse_graph(text)
    assert_oracles(graph, ChannelGroups.of(graph, policy=policy))


def sizes(text: str, policy: Policy) -> dict[str, int]:
    return {g.name: g.size for g in ChannelGroups.of(parse_graph(text), policy=policy).free}


def test_05_queries_with_keys_and_values_apart() -> None:
    found = sizes(PSA, Policy())
    assert sorted(size for name, size in found.items() if name.startswith("b")) == [4, 8]
    assert sorted(size for name, size in sizes(PSA, HEADS).items() if name.startswith("b")) == [2]


def test_05_any_size_leaves_as_much_freedom() -> None:
    named = {name: size for name, size in sizes(PSA, Policy()).items() if name != "o"}
    assert sizes(PSA_ANY_SIZE, Policy()) == named


def test_18_the_residual_width_is_left_alone_by_default() -> None:
    fixed = {g.name: g.fixed for g in ChannelGroups.of(parse_graph(VIT)).groups if g.fixed}
    assert fixed["p"] == "LayerNormalization 'e' normalises over the channels"
    assert sizes(VIT, Policy()) == {"f": 4, "l": 12}
    assert sizes(VIT, HEADS)["f"] == 2
    assert sizes(VIT, WIDTH) == sizes(VIT_ANY_BATCH, WIDTH) == {"p": 8, "f": 4, "l": 12}


def scale_of(graph: Graph) -> np.ndarray:
    values = dict(graph.ir.tensors())
    copy = graph.copy()
    tensor = next(t for n in copy.nodes for t in n.outputs if t.name == "root")
    tensor.dtype, tensor.shape = np.dtype(np.float32), values["root"].shape
    copy.ir.outputs = [tensor]
    return outputs_of(copy, {})["root"] if not copy.inputs else outputs_of(copy, random_feeds(copy))["root"]


def test_18_a_scale_computed_from_the_head_keeps_its_value() -> None:
    graph = parse_graph(VIT)
    found = ChannelGroups.of(graph)
    before = scale_of(graph)
    cut(graph, found.relations, found.kept({"f": [0, 3]}))
    assert scale_of(graph) == before == 2


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("com.microsoft.Attention <num_heads = 2>", "a, w, b"),
        ("com.microsoft.MultiHeadAttention <num_heads = 2>", "a, a, a"),
    ],
)
def test_18_fused_attention_holds_its_channels(op: str, inputs: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[1,4,6] x) => (float[1,4,8] y) <float[6,8] w0, float[8,24] w, float[24] b> {{
        a = MatMul (x, w0)  y = {op} ({inputs}) }}"""
    (group,) = ChannelGroups.of(parse_graph(text)).groups
    assert (
        group.fixed
        == f"{op.split(maxsplit=1)[0].rsplit('.', maxsplit=1)[-1]} 'y' is an operator without a channel rule"
    )


REDUCTIONS = {
    "mean": "y = ReduceMean <axes = [1]> (a)",
    "largest": "b = ArgMax <axis = 1> (a)  y = Cast <to = 1> (b)",
    "softmax": "b = Softmax <axis = 1> (a)  y = ReduceMean <axes = [2,3]> (b)",
    "cosine": "n = ReduceL2 <axes = [1]> (a)  y = Div (a, n)",
    "norm": "y = LpNormalization <axis = 1> (a)",
    "best": "y, i = TopK <axis = 1> (a, k)",
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_25_reductions_over_channels_hold_them(name: str) -> None:
    text = f"""(float[1,3,2,2] x) => (float[1,M,H,W] y) <float[4,3,1,1] w, int64[1] k = {{2}}> {{
        a = Conv (x, w)  {REDUCTIONS[name]} }}"""
    (group,) = ChannelGroups.of(parse_graph(text)).groups
    assert group.fixed is not None
    assert "over the channels" in group.fixed or "without a channel rule" in group.fixed
