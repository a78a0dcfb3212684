"""Mask equivalence on hand-made graphs: the cut graph equals the original with masks, for any keep sets.

Weights declared without data are random; every case first shows that the outputs depend on the input.
"""

import pytest
from mask_equivalence import assert_cut_equals_mask, assert_oracles, random_choice

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.testing import parse_graph

CASES = {
    "chain": """(float[1,3,6,6] x) => (float[1,4,6,6] y)
        <float[8,3,3,3] w1, float[8] b1, float[6,8,1,1] w2, float[4,6,1,1] w3> {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)  b = Sigmoid (a)
        c = Conv (b, w2)  d = LeakyRelu (c)  y = Conv (d, w3) }""",
    "residual": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[8,3,1,1] w1, float[6,8,1,1] w2, float[8,6,1,1] w3, float[8,3,1,1] ws, float[2,8,1,1] w4> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  d = Sigmoid (c)  e = Conv (d, w3)
        s = Conv (x, ws)  f = Add (e, b)  g = Add (f, s)  y = Conv (g, w4) }""",
    "concat of concat, one input twice": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[4,3,1,1] w1, float[6,3,1,1] w2, float[2,18,1,1] w3> {
        a = Conv (x, w1)  b = Conv (x, w2)  c = Concat <axis = 1> (a, b, a)
        d = Sigmoid (c)  e = Concat <axis = 1> (d, a)  y = Conv (e, w3) }""",
    "uneven split": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[10,3,1,1] w1, int64[2] sizes = {4, 6}, float[6,6,1,1] w2, float[2,16,1,1] w3> {
        a = Conv (x, w1)  p, q = Split <axis = 1> (a, sizes)  r = Conv (q, w2)  s = Add (q, r)
        t = Concat <axis = 1> (p, q, s)  y = Conv (t, w3) }""",
    "equal split without sizes": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[8,3,1,1] w1, float[2,4,1,1] w2> {
        a = Conv (x, w1)  p, q = Split <axis = 1> (a)  r = Mul (p, q)  y = Conv (r, w2) }""",
    "slices that overlap": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[9,3,1,1] w1, int64[1] zero = {0}, int64[1] two = {2}, int64[1] five = {5}, int64[1] end = {-1},
         int64[1] axis = {1}, float[2,11,1,1] w2> {
        a = Conv (x, w1)  p = Slice (a, zero, five, axis)  q = Slice (a, two, end, axis)
        r = Concat <axis = 1> (p, q)  y = Conv (r, w2) }""",
    "gathered channels": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[6,3,1,1] w1, int64[4] order = {5, 0, 3, 3}, int64 one = {1}, float[2,4,1,1] w2, float[1,1,5,5] w3> {
        a = Conv (x, w1)  b = Gather <axis = 1> (a, order)  c = Gather <axis = 1> (a, one)
        d = Conv (b, w2)  e = Unsqueeze (c, one)  y = Add (d, e) }""",
    "depthwise": """(float[1,3,6,6] x) => (float[1,2,4,4] y)
        <float[8,3,1,1] w1, float[8,1,3,3] wd, float[8] bd, float[2,8,1,1] w2> {
        a = Conv (x, w1)  b = Clip (a)  c = Conv <group = 8> (b, wd, bd)  d = HardSwish (c)  y = Conv (d, w2) }""",
    "depthwise with multiplier": """(float[1,3,6,6] x) => (float[1,2,4,4] y)
        <float[5,3,1,1] w1, float[10,1,3,3] wd, float[2,10,1,1] w2> {
        a = Conv (x, w1)  c = Conv <group = 5> (a, wd)  y = Conv (c, w2) }""",
    "few large groups": """(float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, float[12,4,1,1] wg, float[2,12,1,1] w2> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Conv <group = 2> (b, wg)  y = Conv (c, w2) }""",
    "many small groups": """(float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[12,3,1,1] w1, float[18,2,1,1] wg, float[2,18,1,1] w2> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Conv <group = 6> (b, wg)  y = Conv (c, w2) }""",
    "transposed convolutions": """(float[1,3,4,4] x) => (float[1,2,8,8] y)
        <float[3,6,2,2] w1, float[6] b1, float[6,1,1,1] wd, float[6,2,1,1] w2> {
        a = ConvTranspose <strides = [2,2]> (x, w1, b1)  b = Relu (a)  c = ConvTranspose <group = 6> (b, wd)
        y = ConvTranspose (c, w2) }""",
    "squeeze and excitation": """(float[2,3,6,6] x) => (float[2,2,6,6] y)
        <float[8,3,1,1] w1, float[4,8,1,1] ws, float[8,4,1,1] we, float[8] be, float[2,8,1,1] w2> {
        a = Conv (x, w1)  g = GlobalAveragePool (a)  h = Conv (g, ws)  i = Relu (h)  j = Conv (i, we, be)
        k = HardSigmoid (j)  l = Mul (k, a)  y = Conv (l, w2) }""",
    "batch normalization and constants per channel": """(float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[6,3,1,1] w1, float[6] scale, float[6] shift, float[6] mean, float[6] var = {1,2,3,4,5,6},
         float[1,6,1,1] m, float[6,1,1] k, float[6,1,1] slope, float scalar, float[1,1,1,1] one, float[2,6,1,1] w2> {
        a = Conv (x, w1)  b = BatchNormalization (a, scale, shift, mean, var)  c = Mul (m, b)  d = Add (c, k)
        e = PRelu (d, slope)  f = Sub (e, scalar)  g = Div (f, one)  y = Conv (g, w2) }""",
    "instance normalization": """(float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[6,3,1,1] w1, float[6] scale, float[6] shift, float[2,6,1,1] w2> {
        a = Conv (x, w1)  b = InstanceNormalization (a, scale, shift)  c = Sigmoid (b)  y = Conv (c, w2) }""",
    "flatten to gemm": """(float[N,3,4,4] x) => (float[N,3] y)
        <float[5,3,3,3] w1, float[20,6] w2, float[6] b2, float[3,6] w3> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Flatten (b)  d = Gemm (c, w2, b2)  e = Tanh (d)
        y = Gemm <transB = 1> (e, w3) }""",
    "reshape to gemm, batch of any size": """(float[N,3,4,4] x) => (float[N,3] y)
        <float[5,3,3,3] w1, int64[2] shape = {-1, 20}, float[20,3] w2> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Reshape (b, shape)  y = MatMul (c, w2) }""",
    "spatial axes merged and taken apart": """(float[2,3,4,4] x) => (float[2,2,4,4] y)
        <float[5,3,1,1] w1, int64[3] s1 = {2, 5, -1}, int64[4] s2 = {0, 5, 4, 4}, float[2,5,1,1] w2> {
        a = Conv (x, w1)  b = Reshape (a, s1)  c = Softmax <axis = 2> (b)  d = Reshape (c, s2)
        y = Conv (d, w2) }""",
    "channels last": """(float[1,3,4,4] x) => (float[1,4,4,2] y)
        <float[6,3,1,1] w1, float[6,5] w2, float[5] b2, float[5,2] w3> {
        a = Conv (x, w1)  b = Transpose <perm = [0,2,3,1]> (a)  c = MatMul (b, w2)  d = Add (c, b2)
        e = Sigmoid (d)  y = MatMul (e, w3) }""",
    "constant matrix on the left": """(float[1,4,6] x) => (float[1,2,6] y)
        <float[5,4] w1, float[2,5] w2> { a = MatMul (w1, x)  b = Sigmoid (a)  y = MatMul (w2, b) }""",
    "means, squeeze, unsqueeze": """(float[2,3,4,4] x) => (float[2,3] y)
        <float[6,3,1,1] w1, float[6,4] w2, float[4,3] w3, int64[1] last = {2}> {
        a = Conv (x, w1)  b = ReduceMean <axes = [2,3], keepdims = 0> (a)  c = Gemm (b, w2)
        d = Unsqueeze (c, last)  e = Sigmoid (d)  f = Squeeze (e, last)  y = Gemm (f, w3) }""",
    "pools, pad, resize by scales and by sizes": """(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[6,3,1,1] w1, int64[8] pads = {0,0,1,1,0,0,0,0}, float[4] scales = {1,1,2,2},
         int64[4] sizes = {1,6,8,8}, float[2,6,1,1] w2> {
        a = Conv (x, w1)  b = MaxPool <kernel_shape = [2,2]> (a)  c = AveragePool <kernel_shape = [2,2]> (b)
        d = Pad (c, pads)  e = Resize <mode = "nearest"> (d, , scales)  f = Resize <mode = "nearest"> (e, , , sizes)
        y = Conv (f, w2) }""",
    "every size the same": """(float[4,4,4,4] x) => (float[4,4,4,4] y)
        <float[4,4,1,1] w1, float[4] last, float[4,1] height, float[4,1,1] channel, float[4,1,1,1] batch,
         float[4,4,1,1] w2> {
        a = Conv (x, w1)  b = Add (a, last)  c = Mul (b, height)  d = Add (c, channel)  e = Mul (d, batch)
        y = Conv (e, w2) }""",
    "one weight in two places": """(float[1,4,5,5] x) => (float[1,4,5,5] y)
        <float[4,4,1,1] w, float[4] b> {
        v = Identity (w)  a = Conv (x, w, b)  c = Sigmoid (a)  d = Conv (c, v, b)  e = Sigmoid (d)
        y = Conv (e, w, b) }""",
    "weights in nodes": """(float[1,2,3,3] x) => (float[1,1,3,3] y) {
        w = Constant <value = float[3,2,1,1] {1,2,-3,1,0.5,2}> ()  b = Constant <value = float[3] {1,-1,2}> ()
        v = Constant <value = float[1,3,1,1] {1,-2,0.5}> ()  u = Identity (b)
        a = Conv (x, w, u)  c = Sigmoid (a)  y = Conv (c, v) }""",
    "bias reshaped before use": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[6,3,1,1] w1, float[6] bias, int64[4] shape = {1, 6, 1, 1}, float[2,6,1,1] w2> {
        a = Conv (x, w1)  b = Reshape (bias, shape)  c = Add (a, b)  d = Sigmoid (c)  y = Conv (d, w2) }""",
    "lengths of other axes": """(float[1,3,4,4] x) => (float[1,2,4,4] y, int64[1] h)
        <float[6,3,1,1] w1, int64[1] two = {2}, float[2,6,1,1] w2> {
        a = Conv (x, w1)  s = Shape (a)  h = Gather (s, two)  y = Conv (a, w2) }""",
    "spatial pyramid": """(float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[6,3,1,1] w1, float[5,24,1,1] w2, float[2,5,1,1] w3> {
        a = Conv (x, w1)  b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)
        c = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (b)
        d = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (c)
        e = Concat <axis = 1> (a, b, c, d)  f = Conv (e, w2)  g = Sigmoid (f)  y = Conv (g, w3) }""",
    "dense block": """(float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[4,3,1,1] w1, float[4] g1, float[4] b1, float[4] m1, float[4] v1 = {1,2,3,4}, float[3,4,1,1] w2,
         float[7] g2, float[7] b2, float[7] m2, float[7] v2 = {1,2,3,4,5,6,7}, float[3,7,1,1] w3, float[2,10,1,1] w4> {
        a = Conv (x, w1)  b = BatchNormalization (a, g1, b1, m1, v1)  c = Sigmoid (b)  d = Conv (c, w2)
        e = Concat <axis = 1> (a, d)  f = BatchNormalization (e, g2, b2, m2, v2)  g = Relu (f)  h = Conv (g, w3)
        i = Concat <axis = 1> (e, h)  y = Conv (i, w4) }""",
    "class token on the token axis": """(float[2,4,6] x) => (float[2,5,3] y)
        <float[6,8] w1, float[2,1,8] token, float[5,8] position, float[8,3] w2> {
        a = MatMul (x, w1)  b = Concat <axis = 1> (token, a)  c = Add (b, position)  d = Sigmoid (c)
        y = MatMul (d, w2) }""",
}


@pytest.mark.parametrize("name", CASES)
def test_oracles(name: str) -> None:
    graph = parse_graph(CASES[name])
    assert_oracles(graph, ChannelGroups.of(graph))


REFUSALS = {
    "graph output": (
        "(float[1,3,2,2] x) => (float[1,4,2,2] y) <float[4,3,1,1] w> { y = Conv (x, w) }",
        "graph output 'y'",
    ),
    "added to the input": (
        """(float[1,3,2,2] x) => (float[1,2,2,2] y) <float[3,3,1,1] w, float[2,3,1,1] v> {
        a = Conv (x, w)  b = Add (a, x)  y = Conv (b, v) }""",
        "graph input 'x'",
    ),
    "operator without a rule": (
        """(float[1,3,2,2] x) => (float[1,2,2,2] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
        a = Conv (x, w)  b = LRN <size = 3> (a)  y = Conv (b, v) }""",
        "LRN 'b' is an operator without a channel rule",
    ),
    "computed slice": (
        """(float[1,3,2,2] x, int64[1] n) => (float[1,M,2,2] y)
        <float[4,3,1,1] w, int64[1] zero = {0}, int64[1] axis = {1}> {
        a = Conv (x, w)  y = Slice (a, zero, n, axis) }""",
        "Slice 'y' has an input 2 that is no constant",
    ),
    "every other channel": (
        """(float[1,3,2,2] x) => (float[1,2,2,2] y) <float[4,3,1,1] w, int64[1] zero = {0}, int64[1] four = {4},
        int64[1] axis = {1}, int64[1] step = {2}> { a = Conv (x, w)  y = Slice (a, zero, four, axis, step) }""",
        "Slice 'y' takes every other channel",
    ),
    "softmax over channels": (
        """(float[1,3,2,2] x) => (float[1,2,2,2] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
        a = Conv (x, w)  b = Softmax <axis = 1> (a)  y = Conv (b, v) }""",
        "Softmax 'b' normalises over the channels",
    ),
    "mean over channels": (
        """(float[1,3,2,2] x) => (float[1,1,2,2] y) <float[4,3,1,1] w> {
        a = Conv (x, w)  y = ReduceMean <axes = [1]> (a) }""",
        "ReduceMean 'y' reduces over the channels",
    ),
    "channel count used in arithmetic": (
        """(float[1,3,2,2] x) => (float[1,2,2,2] y, int64 n) <float[4,3,1,1] w, float[2,4,1,1] v, int64 one = {1}> {
        a = Conv (x, w)  s = Shape (a)  n = Gather (s, one)  y = Conv (a, v) }""",
        "graph output 'n' tells how many they are",
    ),
    "single channel stretched": (
        """(float[1,3,2,2] x) => (float[1,3,2,2] y) <float[2,3,1,1] w, int64[1] zero = {0}, int64[1] one = {1}> {
        a = Conv (x, w)  b = Slice (a, zero, one, one)  y = Mul (b, x) }""",
        "Mul 'y' stretches a single channel",
    ),
    "nested graph": (
        """(float[1,3,2,2] x, bool c) => (float[1,4,2,2] y) <float[4,3,1,1] w> {
        a = Conv (x, w)
        y = If (c) <then_branch = t () => (float[1,4,2,2] u) { u = Relu (a) },
                    else_branch = e () => (float[1,4,2,2] v) { v = Neg (a) }> }""",
        "If 'y' runs nested graphs",
    ),
    "weight from outside": (
        """(float[1,3,2,2] x, float[2,4,1,1] v) => (float[1,2,2,2] y) <float[4,3,1,1] w> {
        a = Conv (x, w)  y = Conv (a, v) }""",
        "Conv 'y' has an input 1 that is no constant",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses_with_reason(name: str) -> None:
    text, reason = REFUSALS[name]
    found = ChannelGroups.of(parse_graph(text))
    assert reason in [group.fixed for group in found.groups]


def test_groups_tell_what_goes_together() -> None:
    found = ChannelGroups.of(parse_graph(CASES["uneven split"]))
    names = {g.name: g for g in found.groups}
    assert list(names) == ["a[0:4]", "a[4:10]", "y"]
    assert [(m.node, m.role, m.axis) for m in names["a[4:10]"].members] == [
        ("a", "out", 0),
        ("r", "out", 0),
        ("r", "in", 1),
        ("y", "in", 1),
    ]
    assert (names["a[0:4]"].size, names["y"].fixed) == (4, "graph output 'y'")


@pytest.mark.parametrize(
    ("case", "size", "channels", "unit"),
    [("many small groups", 6, 12, 1), ("few large groups", 4, 8, 2), ("depthwise", 8, 8, 1)],
)
def test_blocks_of_grouped_convolutions(case: str, size: int, channels: int, unit: int) -> None:
    found = next(g for g in ChannelGroups.of(parse_graph(CASES[case])).groups if g.name == "a")
    assert (found.size, found.channels, found.unit) == (size, channels, unit)


def test_kept_refuses_to_empty_a_group() -> None:
    found = ChannelGroups.of(parse_graph(CASES["chain"]))
    with pytest.raises(ValueError, match="'a' is no free group, or nothing of it is kept"):
        found.kept({"a": []})


def test_old_operator_sets_keep_sizes_in_attributes() -> None:
    text = """(float[1,3,4,4] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, int64[3] shape = {1, 4, -1}, int64[4] back = {1, 4, 4, 4}, float[2,4,1,1] w2> {
        a = Conv (x, w1)  p, q = Split <axis = 1, split = [3, 5]> (a)
        r = Slice <axes = [1], starts = [1], ends = [5]> (q)
        s = Pad <pads = [0,0,1,1,0,0,1,1]> (r)  y = Conv (s, w2) }"""
    graph = parse_graph(text, opset=9)
    found = ChannelGroups.of(graph)
    assert_cut_equals_mask(graph, found, random_choice(found, 0))
    assert len(found.free) >= 2
