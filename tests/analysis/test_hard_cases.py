"""Hard cases of pruning, by number: convolutional networks. Each is cut and judged by three oracles.

The oracles are mask equivalence, zeroed channels and permutation; see `mask_equivalence`.
"""

import pytest
from mask_equivalence import assert_oracles

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.testing import parse_graph

CASES = {
    "01 initializer shared by two convolutions, alias, weights in nodes": """
        (float[1,4,5,5] x) => (float[1,2,5,5] y)
        <float[6,4,1,1] w, float[6] b, float[2,12,1,1] w2> {
        v = Identity (w)  p = Conv (x, w, b)  q = Conv (x, v, b)  r = Sigmoid (p)  s = Tanh (q)
        k = Constant <value = float[6,1,1] {1,2,3,4,5,6}> ()  t = Mul (s, k)
        u = Concat <axis = 1> (r, t)  y = Conv (u, w2) }""",
    "01 weight that is a graph output too": """
        (float[1,4,5,5] x) => (float[1,2,5,5] y, float[6,4,1,1] w)
        <float[6,4,1,1] w, float[2,6,1,1] w2> { p = Conv (x, w)  r = Sigmoid (p)  y = Conv (r, w2) }""",
    "02 chunk by computed slices": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, float[4,4,3,3] w2, float[2,12,1,1] w3, int64 one = {1}, int64[1] axis = {1},
         int64[1] zero = {0}, int64 plus = {1}, int64 half = {2}, int64[1] a1 = {0}, int64[1] m1 = {1},
         int64[1] m2 = {2}> {
        a = Conv (x, w1)  b = Sigmoid (a)  s = Shape (b)  c = Gather <axis = 0> (s, axis)
        d = Add (c, plus)  e = Div (d, half)  f = Mul (e, m1)  g = Slice (b, zero, f, axis)
        h = Mul (e, m2)  i = Slice (b, f, h, axis)  j = Conv <pads = [1,1,1,1]> (i, w2)
        k = Concat <axis = 1> (g, i, j)  y = Conv (k, w3) }""",
    "02 chunk by Split": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, float[4,4,3,3] w2, float[2,12,1,1] w3, int64[2] sizes = {4, 4}> {
        a = Conv (x, w1)  b = Sigmoid (a)  g, i = Split <axis = 1> (b, sizes)
        j = Conv <pads = [1,1,1,1]> (i, w2)  k = Concat <axis = 1> (g, i, j)  y = Conv (k, w3) }""",
    "02 batch, height and width of any size": """
        (float[N,3,H,W] x) => (float[N,K] y)
        <float[8,3,1,1] w1, float[4,4,3,3] w2, float[3,12,1,1] w3, int64[1] axis = {1}, int64[1] zero = {0},
         int64[1] two = {2}, int64[1] big = {9223372036854775807}, int64 half = {2}, int64 i0 = {0},
         int64[1] flat = {-1}> {
        a = Conv (x, w1)  b = Sigmoid (a)  s = Shape (b)  c = Gather <axis = 0> (s, axis)  e = Div (c, half)
        g = Slice (b, zero, e, axis)  i = Slice (b, e, big, axis)  j = Conv <pads = [1,1,1,1]> (i, w2)
        k = Concat <axis = 1> (g, i, j)  l = Conv (k, w3)  t = Shape (l)  n = Gather <axis = 0> (t, zero)
        shape = Concat <axis = 0> (n, flat)  y = Reshape (l, shape) }""",
    "03 halves of different use: bottleneck, Concat and residual Add": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[10,3,1,1] w1, int64[2] sizes = {4, 6}, float[5,6,3,3] w2, float[6,5,3,3] w3, float[2,16,1,1] w4> {
        a = Conv (x, w1)  b = Sigmoid (a)  p, q = Split <axis = 1> (b, sizes)
        c = Conv <pads = [1,1,1,1]> (q, w2)  d = Tanh (c)  e = Conv <pads = [1,1,1,1]> (d, w3)
        f = Add (q, e)  g = Concat <axis = 1> (p, q, f)  y = Conv (g, w4) }""",
    "04 Concat of Concats, a tap that feeds two Concats and a convolution": """
        (float[1,3,8,8] x) => (float[1,2,4,4] y)
        <float[6,3,1,1] w1, float[4,6,1,1] w2, float[5,6,1,1] w3, float[7,9,1,1] w4, float[8,13,3,3] w5,
        float[3,6,3,3] w6,
         float[2,17,1,1] w7, float[4] up = {1,1,2,2}> {
        a = Conv (x, w1)  tap = Sigmoid (a)  b = Conv (tap, w2)  c = Conv (tap, w3)  d = Concat <axis = 1> (b, c)
        e = Conv (d, w4)  f = Concat <axis = 1> (e, tap)  g = Conv <strides = [2,2], pads = [1,1,1,1]> (f, w5)
        h = Conv <strides = [2,2], pads = [1,1,1,1]> (tap, w6)  i = Concat <axis = 1> (g, h)
        j = MaxPool <kernel_shape = [2,2], strides = [2,2]> (tap)  k = Concat <axis = 1> (i, j)  y = Conv (k,
        w7) }""",
    "06 head that picks the best by itself, without suppression": """
        (float[1,3,6,6] x) => (float[1,5,6] y)
        <float[8,3,1,1] w1, float[6,8,3,3] wb, float[4,6,1,1] wo, float[8,1,3,3] wd, float[7,8,1,1] wc,
         float[2,7,1,1] ws, int64[3] flat = {0, 0, -1}, int64[1] k = {5}, int64[1] last = {-1},
         int64[3] whole = {1,1,6}> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <pads = [1,1,1,1]> (b, wb)  d = Relu (c)  e = Conv (d, wo)
        f = Conv <group = 8, pads = [1,1,1,1]> (b, wd)  g = Relu (f)  h = Conv (g, wc)  i = Relu (h)  j = Conv (i, ws)
        l = Reshape (e, flat)  m = Reshape (j, flat)  n = Sigmoid (m)  o = Concat <axis = 1> (l, n)
        p = Transpose <perm = [0,2,1]> (o)  q = Transpose <perm = [0,2,1]> (n)  r = ReduceMax <axes = [-1],
        keepdims = 0> (q)  s, at = TopK (r, k)  u = Unsqueeze (at, last)  v = Tile (u, whole)
        y = GatherElements <axis = 1> (p, v) }""",
    "07 one tensor four times in one Concat": """
        (float[1,3,8,8] x) => (float[1,2,8,8] y) <float[6,3,1,1] w1, float[5,24,1,1] w2, float[2,5,1,1] w3> {
        a = Conv (x, w1)  b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)
        c = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (b)
        d = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (c)
        e = Concat <axis = 1> (a, b, c, d)  f = Conv (e, w2)  g = Sigmoid (f)  y = Conv (g, w3) }""",
    "08 head with box distribution and class tower, two scales": """
        (float[1,3,8,8] x) => (float[1,4,20] boxes, float[1,5,20] scores)
        <float[6,3,3,3] w1, float[8,6,3,3] w2, float[7,6,3,3] b1, float[16,7,1,1] b2, float[6,1,3,3] c1,
        float[9,6,1,1] c2,
         float[5,9,1,1] c3, float[7,8,3,3] e1, float[16,7,1,1] e2, float[9,8,1,1] f2, float[5,9,1,1] f3,
         float[1,4,1,1] bins = {0,1,2,3}, int64[3] sb = {1,16,-1}, int64[3] sc = {1,5,-1}, int64[4] s4 = {1,4,4,20},
         int64[3] s3 = {1,4,20}> {
        p = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w1)  q = Sigmoid (p)
        r = Conv <strides = [2,2], pads = [1,1,1,1]> (q, w2)  s = Sigmoid (r)
        a = Conv <pads = [1,1,1,1]> (q, b1)  aa = Sigmoid (a)  ab = Conv (aa, b2)  ac = Reshape (ab, sb)
        c = Conv <group = 6, pads = [1,1,1,1]> (q, c1)  ca = Conv (c, c2)  cb = Sigmoid (ca)  cc = Conv (cb, c3)
        cd = Reshape (cc, sc)
        e = Conv <pads = [1,1,1,1]> (s, e1)  ea = Sigmoid (e)  eb = Conv (ea, e2)  ec = Reshape (eb, sb)
        f = Conv (s, f2)  fa = Sigmoid (f)  fb = Conv (fa, f3)  fc = Reshape (fb, sc)
        scores = Concat <axis = 2> (cd, fc)  d = Concat <axis = 2> (ac, ec)  da = Reshape (d, s4)
        db = Transpose <perm = [0,2,1,3]> (da)  dc = Softmax <axis = 1> (db)  dd = Conv (dc, bins)
        boxes = Reshape (dd, s3) }""",
    "08 mask prototypes by ConvTranspose": """
        (float[1,3,4,4] x) => (float[1,2,8,8] y)
        <float[6,3,1,1] w1, float[6,5,2,2] w2, float[5] b2, float[2,5,3,3] w3> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = ConvTranspose <strides = [2,2]> (b, w2, b2)  d = Sigmoid (c)
        y = Conv <pads = [1,1,1,1]> (d, w3) }""",
    "09 squeeze and excitation on a residual stream": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w0, float[8,8,3,3] w1, float[3,8,1,1] ws, float[8,3,1,1] we, float[2,8,1,1] w2> {
        z = Conv (x, w0)  a = Conv <pads = [1,1,1,1]> (z, w1)  b = GlobalAveragePool (a)  c = Conv (b, ws)
        d = Relu (c)  e = Conv (d, we)  f = HardSigmoid (e)  g = Mul (a, f)  h = Add (z, g)  i = HardSwish (h)
        y = Conv (i, w2) }""",
    "10 depthwise with multiplier, grouped to ordinary to grouped with other counts": """
        (float[1,4,6,6] x) => (float[1,2,6,6] y)
        <float[12,4,1,1] w1, float[24,1,3,3] wd, float[12,6,1,1] g4, float[10,12,1,1] w2, float[20,5,1,1] g2,
         float[2,20,1,1] w3> {
        a = Conv (x, w1)  b = Conv <group = 12, pads = [1,1,1,1]> (a, wd)  c = Conv <group = 4> (b, g4)
        d = Sigmoid (c)
        e = Conv (d, w2)  f = Conv <group = 2> (e, g2)  g = Tanh (f)  y = Conv (g, w3) }""",
    "10 ResNeXt block": """
        (float[1,4,6,6] x) => (float[1,2,6,6] y)
        <float[16,4,1,1] w1, float[16,4,3,3] wg, float[4,16,1,1] w2, float[4,4,1,1] ws, float[2,4,1,1] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <group = 4, pads = [1,1,1,1]> (b, wg)  d = Relu (c)  e = Conv (d, w2)
        s = Conv (x, ws)  f = Add (e, s)  y = Conv (f, w3) }""",
    "11 channel shuffle after a split": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[12,3,1,1] w1, int64[2] sizes = {6, 6}, float[6,6,1,1] w2, float[6,1,3,3] wd, float[6,6,1,1] w3,
         int64[5] apart = {1,2,6,6,6}, int64[4] together = {1,-1,6,6}, float[6,6,1,1] w4, float[2,12,1,1] w5> {
        a = Conv (x, w1)  p, q = Split <axis = 1> (a, sizes)  b = Conv (q, w2)  c = Relu (b)
        d = Conv <group = 6, pads = [1,1,1,1]> (c, wd)  e = Conv (d, w3)  f = Concat <axis = 1> (p, e)
        g = Reshape (f, apart)  h = Transpose <perm = [0,2,1,3,4]> (g)  i = Reshape (h, together)
        r, s = Split <axis = 1> (i, sizes)  t = Conv (s, w4)  u = Concat <axis = 1> (r, t)
        j = Reshape (u, apart)  k = Transpose <perm = [0,2,1,3,4]> (j)  l = Reshape (k, together)  y = Conv (l,
        w5) }""",
    "11 channel shuffle between grouped convolutions": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[12,3,1,1] w1, float[12,4,1,1] g1, float[12,1,3,3] wd, float[12,4,1,1] g2, int64[5] apart = {1,3,4,6,6},
         int64[4] together = {1,12,6,6}, float[2,12,1,1] w2> {
        a = Conv (x, w1)  b = Conv <group = 3> (a, g1)  c = Reshape (b, apart)  d = Transpose <perm = [0,2,1,3,4]> (c)
        e = Reshape (d, together)  f = Conv <group = 12, pads = [1,1,1,1]> (e, wd)  g = Conv <group = 3> (f, g2)
        h = Sigmoid (g)  y = Conv (h, w2) }""",
    "11 channel shuffle between two groups": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, float[8,4,1,1] g1, float[8,1,3,3] wd, float[8,4,1,1] g2, int64[5] apart = {1,2,4,6,6},
         int64[4] together = {1,8,6,6}, float[2,8,1,1] w2> {
        a = Conv (x, w1)  b = Conv <group = 2> (a, g1)  c = Reshape (b, apart)  d = Transpose <perm = [0,2,1,3,4]> (c)
        e = Reshape (d, together)  f = Conv <group = 8, pads = [1,1,1,1]> (e, wd)  g = Conv <group = 2> (f, g2)
        h = Sigmoid (g)  y = Conv (h, w2) }""",
    "12 Concat, then a slice that cuts through it": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[5,3,1,1] w1, float[5,1,3,3] wd, int64[1] zero = {0}, int64[1] eight = {8}, int64[1] axis = {1},
         float[2,8,1,1] w2> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <group = 5, pads = [1,1,1,1]> (b, wd)  d = Sigmoid (c)
        e = Concat <axis = 1> (b, d)  f = Slice (e, zero, eight, axis)  y = Conv (f, w2) }""",
    "12 slices that overlap": """
        (float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[9,3,1,1] w1, int64[1] zero = {0}, int64[1] two = {2}, int64[1] six = {6}, int64[1] end = {9},
         int64[1] axis = {1}, float[4,6,1,1] w2, float[4,7,1,1] w3, float[2,8,1,1] w4> {
        a = Conv (x, w1)  p = Slice (a, zero, six, axis)  q = Slice (a, two, end, axis)
        b = Conv (p, w2)  c = Conv (q, w3)  d = Concat <axis = 1> (b, c)  y = Conv (d, w4) }""",
    "13 dense block with pre-activation": """
        (float[1,3,5,5] x) => (float[1,2,5,5] y)
        <float[4,3,1,1] w1, float[4] g1, float[4] b1, float[4] m1, float[4] v1 = {1,2,3,4}, float[3,4,1,1] w2,
         float[7] g2, float[7] b2, float[7] m2, float[7] v2 = {1,2,3,4,5,6,7}, float[3,7,1,1] w3, float[10] g3,
         float[10] b3,
         float[10] m3, float[10] v3 = {1,2,3,4,5,6,7,8,9,10}, float[2,10,1,1] w4> {
        a = Conv (x, w1)  b = BatchNormalization (a, g1, b1, m1, v1)  c = Relu (b)  d = Conv (c, w2)
        e = Concat <axis = 1> (a, d)  f = BatchNormalization (e, g2, b2, m2, v2)  g = Relu (f)  h = Conv (g, w3)
        i = Concat <axis = 1> (e, h)  j = BatchNormalization (i, g3, b3, m3, v3)  k = Relu (j)  y = Conv (k, w4) }""",
    "14 identity and projection shortcuts, pre-activation, layer scale": """
        (float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w0, float[4,8,1,1] w1, float[8,4,1,1] w2, float[8,1,1] gamma, float[8] g, float[8] b,
        float[8] m,
         float[8] v = {1,2,3,4,5,6,7,8}, float[5,8,1,1] w3, float[8,5,1,1] w4, float[8,8,1,1] wp, float rezero,
         float[2,8,1,1] w5> {
        a = Conv (x, w0)  c = Conv (a, w1)  d = Relu (c)  e = Conv (d, w2)  f = Mul (gamma, e)  h = Add (a, f)
        i = BatchNormalization (h, g, b, m, v)  j = Relu (i)  k = Conv (j, w3)  l = Conv (k, w4)  n = Mul (l, rezero)
        o = Conv (h, wp)  p = Add (o, n)  y = Conv (p, w5) }""",
    "15 constants of every shape, all sizes equal": """
        (float[4,4,4,4] x) => (float[4,4,4,4] y)
        <float[4,4,1,1] w1, float[4] last, float[4,1] height, float[4,1,1] channel, float[1,4,1,1] same,
         float[1,1,1,1] one, float[4,1,1,1] batch, float[4,4,1,1] w2> {
        a = Conv (x, w1)  b = Add (a, last)  c = Mul (b, height)  d = Add (c, channel)  e = Mul (d, batch)
        f = Mul (e, same)  g = Sub (f, one)  y = Conv (g, w2) }""",
    "15 channels last of rank three, as many tokens as channels": """
        (float[6,6,3] x) => (float[6,6,2] y) <float[3,6] w1, float[6] bias, float[6,6] position, float[6,2] w2> {
        a = MatMul (x, w1)  b = Add (a, bias)  c = Add (b, position)  d = Sigmoid (c)  y = MatMul (d, w2) }""",
    "16 Flatten with pixels left": """
        (float[N,3,4,4] x) => (float[N,3] y)
        <float[5,3,3,3] w1, float[20,6] w2, float[6] b2, float[3,6] w3> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Flatten (b)  d = Gemm (c, w2, b2)  e = Tanh (d)
        y = Gemm <transB = 1> (e, w3) }""",
    "16 Reshape with 0 and -1": """
        (float[N,3,4,4] x) => (float[N,3] y)
        <float[5,3,3,3] w1, int64[3] merge = {0, 0, -1}, int64[2] shape = {0, -1}, float[20,3] w2> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Reshape (b, merge)  d = Reshape (c, shape)  y = MatMul (d, w2) }""",
    "16 Reshape to a number behind -1, allowzero": """
        (float[N,3,4,4] x) => (float[N,3] y) <float[5,3,3,3] w1, int64[2] shape = {-1, 20}, float[20,3] w2> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Reshape <allowzero = 1> (b, shape)  y = MatMul (c, w2) }""",
    "17 islands of channels last": """
        (float[1,4,4,3] x) => (float[1,4,4,2] y)
        <float[6,3,1,1] w1, float[6] b1, float[5,6,1,1] w2, float[5] scale, float[5,2] w3> {
        a = Transpose <perm = [0,3,1,2]> (x)  b = Conv (a, w1, b1)  c = Transpose <perm = [0,2,3,1]> (b)
        d = Sigmoid (c)
        e = Transpose <perm = [0,3,1,2]> (d)  f = Conv (e, w2)  g = Transpose <perm = [0,2,3,1]> (f)  h = Mul (g,
        scale)
        y = MatMul (h, w3) }""",
    "17 block with normalisation in channels last": """
        (float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[6,3,1,1] w0, float[6,1,3,3] wd, float[6] g, float[6] b, float[6,8] w1, float[8] b1, float[8,6] w2,
         float[6,1,1] gamma, float[2,6,1,1] w3> {
        a = Conv (x, w0)  c = Conv <group = 6, pads = [1,1,1,1]> (a, wd)  d = Transpose <perm = [0,2,3,1]> (c)
        e = LayerNormalization (d, g, b)  f = MatMul (e, w1)  h = Add (f, b1)  i = Sigmoid (h)  j = MatMul (i, w2)
        k = Transpose <perm = [0,3,1,2]> (j)  l = Mul (gamma, k)  m = Add (a, l)  y = Conv (m, w3) }""",
}


def shuffle_units(count: int) -> str:
    """As in ShuffleNet V2: half of the channels pass a branch, then all are shuffled."""
    weights, body, read = [], "  z0 = Conv (x, w0)", "z0"
    for i in range(1, count + 1):
        weights.append(f"float[6,6,1,1] u{i}, float[6,1,3,3] v{i}, float[6,6,1,1] w{i}")
        body += f"""
        p{i}, q{i} = Split <axis = 1> ({read}, sizes)  a{i} = Conv (q{i}, u{i})  b{i} = Sigmoid (a{i})
        c{i} = Conv <group = 6, pads = [1,1,1,1]> (b{i}, v{i})  d{i} = Conv (c{i}, w{i})  e{i} = Tanh (d{i})
        f{i} = Concat <axis = 1> (p{i}, e{i})  g{i} = Reshape (f{i}, apart)
        h{i} = Transpose <perm = [0,2,1,3,4]> (g{i})  z{i} = Reshape (h{i}, together)"""
        read = f"z{i}"
    return f"""(float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[12,3,1,1] w0, int64[2] sizes = {{6, 6}}, int64[5] apart = {{1,2,6,4,4}},
         int64[4] together = {{1,-1,4,4}}, {", ".join(weights)}, float[2,12,1,1] wy> {{
        {body}  y = Conv ({read}, wy) }}"""


CASES["11 sixteen units with a shuffle each"] = shuffle_units(16)


@pytest.mark.parametrize("name", CASES)
def test_oracles(name: str) -> None:
    graph = parse_graph(CASES[name])
    assert_oracles(graph, ChannelGroups.of(graph))


def sizes_of(name: str) -> dict[str, int]:
    return {g.name: g.size for g in ChannelGroups.of(parse_graph(CASES[name])).free}


def test_02_computed_halves_may_lose_different_numbers() -> None:
    assert (
        sizes_of("02 chunk by computed slices") == sizes_of("02 chunk by Split") == {"a[0:4]": 4, "a[4:8]": 4, "j": 4}
    )


def test_08_the_towers_of_two_scales_share_nothing() -> None:
    found = ChannelGroups.of(parse_graph(CASES["08 head with box distribution and class tower, two scales"]))
    assert {g.name: g.size for g in found.free} == {"p": 6, "r": 8, "a": 7, "ca": 9, "e": 7, "f": 9}
    fixed = {g.name: g.fixed for g in found.groups if g.fixed}
    assert fixed["cc"] == "graph output 'scores'"
    assert "normalises over the channels" in str(fixed["ab"])


def test_09_positions_along_the_channels_hold_them() -> None:
    text = """(float[1,3,6,6] x) => (float[1,2,6,6] y)
        <float[8,3,1,1] w1, float[1,1,3] we, int64[1] last = {3}, int64[1] mid = {2}, float[2,8,1,1] w2> {
        a = Conv (x, w1)  b = GlobalAveragePool (a)  c = Squeeze (b, last)  d = Transpose <perm = [0,2,1]> (c)
        e = Conv <pads = [1,1]> (d, we)  f = Transpose <perm = [0,2,1]> (e)  g = Unsqueeze (f, last)  h = Sigmoid (g)
        i = Mul (a, h)  y = Conv (i, w2) }"""
    (group,) = [g for g in ChannelGroups.of(parse_graph(text)).groups if g.name == "a"]
    assert group.fixed == "Conv 'e' reads axis 2 as a position, not as channels"


def test_11_both_halves_of_a_shuffle_lose_as_many() -> None:
    sizes = sizes_of("11 channel shuffle after a split")
    assert max(sizes.values()) <= 6


def test_11_a_shuffle_between_groups_keeps_them_equally_full() -> None:
    assert sizes_of("11 channel shuffle between two groups") == {"a": 4, "b": 2, "g": 4}


def test_14_identity_shortcuts_make_one_group_and_a_projection_begins_another() -> None:
    sizes = sizes_of("14 identity and projection shortcuts, pre-activation, layer scale")
    assert sizes == {"a": 8, "c": 4, "k": 5, "l": 8}
