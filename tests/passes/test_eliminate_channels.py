import numpy as np
import pytest

from onnxopt.manager import run_pass
from onnxopt.testing import assert_preserves, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.eliminate_channels import EliminateChannels

ENDS = "(float[1,3,8,8] x) => (float[1,4,8,8] y)"
WEIGHTS = "<float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2, float[4] b2>"
CHAIN = f"""{ENDS} {WEIGHTS} {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)  y = Conv (b, w2, b2) }}"""
WITHOUT_BIAS = f"""{ENDS} <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)  y = Conv (b, w2) }}"""
PADDED = f"""{ENDS} <float[8,3,3,3] w1, float[8] b1, float[4,8,3,3] w2, float[4] b2> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)  y = Conv <pads = [1, 1, 1, 1]> (b, w2, b2) }}"""
SILU = f"""{ENDS} {WEIGHTS} {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  s = Sigmoid (a)  b = Mul (a, s)  y = Conv (b, w2, b2) }}"""
DEPTHWISE = f"""{ENDS} <float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] d, float[8] e, float[4,8,1,1] w2, float[4] b2> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], group = 8> (b, d, e)  f = Relu (c)  y = Conv (f, w2, b2) }}"""
RESIDUAL = f"""{ENDS} <float[8,3,3,3] w1, float[8] b1, float[8,8,1,1] w3, float[8] b3,
    float[4,8,1,1] w2, float[4] b2> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)  c = Conv (b, w3, b3)  d = Add (b, c)  e = Relu (d)
    y = Conv (e, w2, b2) }}"""
CONCAT = f"""{ENDS} <float[8,3,3,3] w1, float[8] b1, float[8,3,3,3] w3, float[8] b3, float[4,16,1,1] w2, float[4] b2> {{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)  c = Conv <pads = [1, 1, 1, 1]> (x, w3, b3)  d = Tanh (c)
    k = Concat <axis = 1> (b, d)  y = Conv (k, w2, b2) }}"""
NORMALIZED = f"""{ENDS} <float[8,3,3,3] w1, float[8] s, float[8] t, float[8] m, float[8] v = {{1, 1, 1, 1, 1, 1, 1, 1}},
    float[4,8,1,1] w2, float[4] b2> {{ a = Conv <pads = [1, 1, 1, 1]> (x, w1)  n = BatchNormalization (a, s, t, m, v)
    b = Relu (n)  y = Conv (b, w2, b2) }}"""
MLP = """(float[2,6] x) => (float[2,3] y) <float[8,6] w1, float[8] b1, float[3,8] w2, float[3] b2> {
    a = Gemm <transB = 1> (x, w1, b1)  b = Sigmoid (a)  y = Gemm <transB = 1> (b, w2, b2) }"""
HEAD = """(float[1,3,8,8] x) => (float[1,3] y) <float[8,3,3,3] w1, float[8] b1, float[8,3] w2> {
    a = Conv (x, w1, b1)  b = Relu (a)  g = GlobalAveragePool (b)  f = Flatten (g)  y = MatMul (f, w2) }"""


def silence(graph, weight, places, bias=0.0):
    """Let a layer make nothing of its input but a bias, at some of its channels."""
    for node in graph.nodes:
        for index, tensor in enumerate(node.inputs[1:], 1):
            if tensor.name == weight:
                graph.own_constant(node, index).values = without(tensor.values, places, 0.0)
                if len(node.inputs) > 2:
                    own = graph.own_constant(node, 2)
                    own.values = without(own.values, places, bias)
    return graph


def without(values, places, value):
    values = values.copy()
    values[list(places)] = value
    return values


def run(graph, runtimes=None, **options):
    """What is left of each Conv's or Gemm's channels, and what was counted; outputs must be the same."""
    feeds = [random_feeds(graph, seed) for seed in (1, 2)]
    first, second = (outputs_of(graph, f)["y"] for f in feeds)
    assert np.abs(first - second).max() > 1e-2 * np.abs(first).max(), "outputs do not depend on the input"
    step = EliminateChannels(**{"align": 1, **options})
    after = assert_preserves(step, graph, feeds=feeds[0], runtimes=runtimes)
    record = run_pass(step, graph.copy(), plain_context(), [])
    shapes = [list(n.inputs[1].shape) for n in after.nodes_of("Conv", "Gemm", "MatMul")]
    return shapes, record


@pytest.mark.parametrize(
    "text", [CHAIN, WITHOUT_BIAS, PADDED, SILU, DEPTHWISE, RESIDUAL, CONCAT, NORMALIZED, MLP, HEAD]
)
def test_what_carries_something_stays(text):
    _, record = run(parse_graph(text))
    assert not record.changed


def test_channels_that_nothing_reads_go():
    graph = parse_graph(CHAIN)
    weight = graph.own_constant(graph.nodes[2], 1)
    weight.values = np.where(np.isin(np.arange(8), [2, 5, 6])[:, None, None], 0, weight.values).astype(np.float32)
    shapes, record = run(graph)
    assert shapes == [[5, 3, 3, 3], [4, 5, 1, 1]]
    assert record.counts == {"unread channels removed": 3}


@pytest.mark.parametrize("bias", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("text", [CHAIN, WITHOUT_BIAS, SILU])
def test_constant_channels_go_into_biases(text, bias):
    shapes, record = run(silence(parse_graph(text), "w1", [1, 3], bias))
    assert shapes == [[6, 3, 3, 3], [4, 6, 1, 1]]
    assert record.counts == {"constant channels removed": 2}


@pytest.mark.parametrize(("bias", "left"), [(0.7, 8), (-0.7, 7), (0.0, 7)])
def test_beside_the_picture_stand_zeros(bias, left):
    shapes, _ = run(silence(parse_graph(PADDED), "w1", [1], bias))
    assert shapes[0][0] == left


def test_constants_that_cannot_be_folded_may_still_be_equal():
    shapes, record = run(silence(parse_graph(PADDED), "w1", [1, 3, 4], 0.7))
    assert shapes[0][0] == 6
    assert record.counts == {"equal channels removed": 2}


@pytest.mark.parametrize("text", [DEPTHWISE, NORMALIZED, MLP])
def test_through_other_layers(text):
    graph = parse_graph(text)
    if text == NORMALIZED:
        for index in (1, 2):  # a scale of 0 switches a channel off, its shift stays
            own = graph.own_constant(graph.nodes[1], index)
            own.values = without(own.values, [0, 4], 0.0 if index == 1 else 0.3)
        silence(graph, "w1", [0, 4])
    else:
        silence(graph, "w1", [0, 4], -0.1 if text == DEPTHWISE else 0.4)
    shapes, record = run(graph)
    assert shapes[0][0] == 6
    assert record.counts == {"constant channels removed": 2}


def test_a_sum_of_branches_is_known_where_all_are():
    both = silence(silence(parse_graph(RESIDUAL), "w1", [2, 3], -1.0), "w3", [3, 4], 0.5)
    shapes, _ = run(both)
    assert shapes == [[7, 3, 3, 3], [7, 7, 1, 1], [4, 7, 1, 1]]


def test_parts_of_a_concat():
    graph = silence(silence(parse_graph(CONCAT), "w1", [0], -1.0), "w3", [1, 2], 0.5)
    shapes, _ = run(graph)
    assert shapes == [[7, 3, 3, 3], [6, 3, 3, 3], [4, 13, 1, 1]]


def test_a_matmul_has_no_bias_to_put_a_constant_into():
    assert run(silence(parse_graph(HEAD), "w1", [1], 0.5))[0][0] == [8, 3, 3, 3]
    assert run(silence(parse_graph(HEAD), "w1", [1], -0.5))[0][0] == [7, 3, 3, 3]


@pytest.mark.parametrize("text", [CHAIN, PADDED, SILU, DEPTHWISE, HEAD])
def test_equal_channels_become_one(text):
    graph = parse_graph(text)
    for node in graph.nodes[: 1 + 2 * (text == DEPTHWISE)]:
        for index in range(1, len(node.inputs)):
            own = graph.own_constant(node, index)
            own.values = own.values[[0, 1, 1, 3, 0, 5, 1, 7]]
    shapes, record = run(graph)
    assert shapes[0][0] == 5
    assert record.counts == {"equal channels removed": 3}


def test_channels_that_differ_later_on_are_not_equal():
    graph = parse_graph(DEPTHWISE)
    for index in (1, 2):
        own = graph.own_constant(graph.nodes[0], index)
        own.values = own.values[[0, 0, 2, 3, 4, 5, 6, 7]]
    assert not run(graph)[1].changed


@pytest.mark.parametrize(("align", "left"), [(1, 3), (4, 4), (8, 8), (16, 8)])
def test_whole_blocks_stay(align, left):
    shapes, record = run(silence(parse_graph(CHAIN), "w1", range(5), 0.7), align=align)
    assert shapes[0][0] == left
    assert any("stay whole" in why for _, why in record.notes) == (left > 3)


def test_one_goes_after_the_other():
    """What reads nothing but channels that are known is known itself, and only then."""
    text = f"""{ENDS} <float[8,3,1,1] w0, float[8] b0, float[8,8,1,1] w1, float[8] b1,
        float[4,8,1,1] w2, float[4] b2> {{
        a = Conv (x, w0, b0)  b = Relu (a)  c = Conv (b, w1, b1)  d = Relu (c)  y = Conv (d, w2, b2) }}"""
    graph = silence(parse_graph(text), "w0", [0, 1], 0.5)
    own = graph.own_constant(graph.nodes[2], 1)
    own.values = own.values.copy()
    own.values[3, 2:] = 0.0
    shapes, record = run(graph)
    assert shapes == [[6, 3, 1, 1], [7, 6, 1, 1], [4, 7, 1, 1]]
    assert record.counts == {"constant channels removed": 3}


def test_nothing_is_left_of_a_layer_that_makes_constants_alone():
    text = f"""{ENDS} <float[8,3,1,1] w1, float[8] b1, float[4,11,1,1] w2, float[4] b2> {{
        a = Conv (x, w1, b1)  b = Relu (a)  k = Concat <axis = 1> (x, b)  y = Conv (k, w2, b2) }}"""
    shapes, _ = run(silence(parse_graph(text), "w1", range(8), 0.5))
    assert shapes == [[1, 3, 1, 1], [4, 4, 1, 1]]


def test_codes_are_left_alone():
    graph = parse_graph(
        """(float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {0}> {
        q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"""
    )
    record = run_pass(EliminateChannels(), graph, plain_context(), [])
    assert not record.changed
    assert "strip-qdq" in record.notes[0][1]


@pytest.mark.parametrize("seed", range(12))
def test_random_redundancy(seed):
    """Channels of several kinds at once, in a net with branches."""
    generator = np.random.default_rng(seed)
    graph = parse_graph(RESIDUAL if seed % 2 else CONCAT)
    for name in ("w1", "w3"):
        silence(graph, name, generator.permutation(8)[:3], float(generator.choice([0.0, 0.4, -0.4])))
    for node in graph.nodes_of("Conv"):
        picks = np.arange(node.inputs[1].shape[0])
        if len(picks) == 8:
            picks[generator.integers(8)] = generator.integers(8)
            for index in (1, 2):
                own = graph.own_constant(node, index)
                own.values = own.values[picks]
    run(graph, align=int(generator.choice([1, 2])))


def batch_norm(opset):
    graph = parse_graph(
        f"""<ir_version: 8, opset_import: ["" : {opset}]> g {ENDS} <float[8,3,1,1] w1, float[8] b1, float[8] s,
        float[8] t, float[8] m, float[8] v = {{1, 2, 1, 2, 1, 2, 1, 2}}, float[4,8,1,1] w2, float[4] b2> {{
        a = Conv (x, w1, b1)  r = Relu (a)  n = BatchNormalization (r, s, t, m, v)  y = Conv (n, w2, b2) }}"""
    )
    return silence(graph, "w1", [0, 4], 0.7)


@pytest.mark.parametrize("opset", [9, 11, 13, 14, 15, 17])
def test_a_normalization_in_any_operator_set(opset):
    shapes, _ = run(batch_norm(opset), ["ort"])  # the reference evaluator trains it before 14
    assert shapes[0][0] == 6


@pytest.mark.parametrize(
    "text",
    [
        # a block of two channels is zero where both are
        """(float[1,3,8,8] x) => (float[1,4,6,6] y)
        <float[8,3,3,3] w1, float[8] b1, float[8,2,1,1] d, float[8] e, float[4,8,1,1] w2, float[4] b2> {
        a = Conv (x, w1, b1)  c = Conv <group = 4> (a, d, e)  y = Conv (c, w2, b2) }""",
        # rows of a constant stand beside those that are known
        """(float[1,3,8,8] x, float[1,8,1,6] k) => (float[1,4,7,6] y)
        <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2, float[4] b2> {
        a = Conv (x, w1, b1)  c = Concat <axis = 2> (a, k)  y = Conv (c, w2, b2) }""",
        # a bias per row, and as many rows as channels
        """(float[8,6] x) => (float[8,4] y) <float[6,8] w1, float[8,1] b1, float[8,4] w2> {
        a = Gemm (x, w1, b1)  y = MatMul (a, w2) }""",
        # what is random is not known
        """(float[1,3,8,8] x) => (float[1,4,6,6] y)
        <float[8,3,3,3] w1, float[8] b1, float r = {0.5}, bool t = {1}, float[4,8,1,1] w2, float[4] b2> {
        a = Conv (x, w1, b1)  c = Dropout (a, r, t)  y = Conv (c, w2, b2) }""",
        # windows of zeros alone
        """(float[1,3,4,4] x) => (float[1,4,1,1] y)
        <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2, float[4] b2> {
        a = Conv (x, w1, b1)  c = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], dilations = [3, 3]> (a)
        y = Conv (c, w2, b2) }""",
        # half would overflow
        """(float16[1,3,8,8] x) => (float16[1,4,6,6] y)
        <float16[8,3,3,3] w1, float16[8] b1, float16[4,8,1,1] w2, float16[4] b2> {
        a = Conv (x, w1, b1)  y = Conv (a, w2, b2) }""",
    ],
)
def test_what_is_not_certain_stays(text):
    graph = parse_graph(text)
    weight = graph.own_constant(graph.nodes[0], 1)
    if graph.nodes[0].op == "Gemm":
        weight.values = without(weight.values.T, [0], 0.0).T.copy()
    else:
        silence(graph, "w1", [0], 0.5)
    if "group" in graph.nodes[1].attrs:
        silence(graph, "w1", [0], 0.0)
    assert not run_pass(EliminateChannels(align=1), graph, plain_context(), []).changed


def test_channels_that_stand_twice_are_not_paired():
    """Of two equal pairs of channels, tied by a sum, a reader has the second one in another order."""
    graph = parse_graph(
        """(float[1,3,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] s)
        <float[4,3,1,1] w, int64[4] order = {0, 3, 2, 1}, float[2,4,1,1] v> {
        a = Conv (x, w)  p, q = Split <axis = 1> (a)  s = Add (p, q)
        g = Gather <axis = 1> (a, order)  y = Conv (g, v) }"""
    )
    own = graph.own_constant(graph.nodes[0], 1)
    own.values = own.values[[0, 0, 2, 2]]
    run(graph)


def test_zero_times_infinity_is_not_zero():
    graph = silence(parse_graph(CHAIN), "w1", [1, 2], -1.0)
    own = graph.own_constant(graph.nodes[2], 1)
    own.values = own.values.copy()
    own.values[:, 1] = np.inf
    record = run_pass(EliminateChannels(align=1), graph, plain_context(), [])
    assert record.counts == {"constant channels removed": 1}
    assert np.isnan(outputs_of(graph, random_feeds(graph, 1))["y"]).all()
