"""Patches of every kind of layer: weights times rows give what ONNX Runtime gives."""

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.analysis.compensation.reading import find_readers, give_bias, read
from onnxopt.testing import outputs_of, parse_graph, random_feeds

LAYERS = {
    "1x1": ("Conv", "[1,6,7,7]", "[4,6,1,1]", ""),
    "3x3": ("Conv", "[1,6,7,7]", "[4,6,3,3]", "pads = [1,1,1,1]"),
    "uneven": ("Conv", "[1,6,7,8]", "[4,6,3,2]", "pads = [0,1,2,0], strides = [2,1], dilations = [1,3]"),
    "strided": ("Conv", "[1,6,9,9]", "[4,6,3,3]", "strides = [2,2]"),
    "dilated": ("Conv", "[1,6,9,9]", "[4,6,3,3]", "dilations = [2,2], pads = [2,2,2,2]"),
    "grouped": ("Conv", "[1,6,7,7]", "[4,3,3,3]", "group = 2, pads = [1,1,1,1]"),
    "upper": ("Conv", "[1,6,7,8]", "[4,6,3,2]", 'auto_pad = "SAME_UPPER", strides = [2,2]'),
    "lower": ("Conv", "[1,6,7,8]", "[4,6,2,2]", 'auto_pad = "SAME_LOWER"'),
    "one axis": ("Conv", "[1,6,9]", "[4,6,3]", "pads = [1,1]"),
    "transposed": ("ConvTranspose", "[1,6,5,5]", "[6,4,2,2]", "strides = [2,2]"),
    "transposed, padded": (
        "ConvTranspose",
        "[1,6,5,4]",
        "[6,4,3,3]",
        "strides = [2,3], pads = [1,0,1,1], output_padding = [1,0]",
    ),
    "transposed, grouped": ("ConvTranspose", "[1,6,5,5]", "[6,2,3,3]", "group = 2, dilations = [2,2]"),
    "matrix": ("MatMul", "[2,5,6]", "[6,4]", ""),
    "gemm": ("Gemm", "[5,6]", "[6,4]", ""),
    "gemm, transposed": ("Gemm", "[5,6]", "[4,6]", "transB = 1"),
}


def given(attributes):
    return f"<{attributes}>" if attributes else ""


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_weights_are_the_outputs(name):
    op, source, shape, attributes = LAYERS[name]
    graph = parse_graph(f"(float{source} x) => (float y) <float{shape} w> {{ y = {op} {given(attributes)} (x, w) }}")
    reader = read(graph, 0, np.arange(6))
    feeds = random_feeds(graph)
    wanted = outputs_of(graph, feeds)["y"]
    rows, outputs = reader.rows(feeds["x"], wanted, 10**6)
    computed = rows.astype(np.float64) @ reader.matrix(graph).transpose(0, 2, 1)
    assert rows.shape[1] * outputs.shape[0] * outputs.shape[2] == wanted.size
    np.testing.assert_allclose(computed, outputs, rtol=1e-4, atol=1e-4)
    # What was read can be written back.
    before = graph.nodes[0].inputs[1].values.copy()
    reader.write(graph, reader.matrix(graph), None)
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].values, before)


@pytest.mark.parametrize("name", [n for n in LAYERS if "grouped" not in n])
def test_columns_know_their_channel(name):
    op, source, shape, attributes = LAYERS[name]
    graph = parse_graph(f"(float{source} x) => (float y) <float{shape} w> {{ y = {op} {given(attributes)} (x, w) }}")
    reader = read(graph, 0, np.arange(6))
    feeds = random_feeds(graph)
    axis = feeds["x"].ndim - 1 if op in {"MatMul", "Gemm"} else 1
    feeds["x"][...] = np.arange(6).reshape([-1 if i == axis else 1 for i in range(feeds["x"].ndim)]) + 1
    rows, _ = reader.rows(feeds["x"], outputs_of(graph, feeds)["y"], 10**6)
    for column, channel in enumerate(reader.roots[0]):
        assert set(np.unique(rows[0][:, column])) <= {0, channel + 1}


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Gemm", "beta = 0.5"), ("Gemm", "alpha = 2.0"), ("ConvTranspose", 'auto_pad = "SAME_UPPER"')],
)
def test_what_is_not_understood_is_no_reader(op, attributes):
    shape = "[6,4]" if op == "Gemm" else "[6,4,3,3]"
    source = "[5,6]" if op == "Gemm" else "[1,6,5,5]"
    graph = parse_graph(f"(float{source} x) => (float y) <float{shape} w> {{ y = {op} {given(attributes)} (x, w) }}")
    assert read(graph, 0, np.arange(6)) is None


def test_readers_of_free_channels_in_order():
    graph = parse_graph("""(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[8,3,1,1] w1, float[8,1,3,3] d, float[5,8,1,1] w2, float[2,5,1,1] w3> {
        a = Conv (x, w1)  b = Conv <group = 8, pads = [1,1,1,1]> (a, d)  c = Conv (b, w2)  y = Conv (c, w3) }""")
    found = ChannelGroups.of(graph)
    readers = find_readers(graph, found, found.free)
    assert [r.output(graph) for r in readers] == ["c", "y"]
    assert [r.output(graph) for r in find_readers(graph, found, found.free[1:])] == ["y"]


def test_biases_are_zeros():
    graph = parse_graph("""(float[1,4,4,4] x) => (float[5,3] y)
        <float[4,6,1,1] w1, float[8,6,1,1] w2, float[3,128] w3> {
        a = ConvTranspose (x, w1)  b = Conv (a, w2)  c = Flatten (b)  y = Gemm <transB = 1> (c, w3) }""")
    feeds = random_feeds(graph)
    before = outputs_of(graph, feeds)["y"]
    assert [i for i, node in enumerate(graph.nodes) if give_bias(graph, node)] == [0, 1, 3]
    assert [n.inputs[2].values.size for n in graph.nodes if len(n.inputs) > 2] == [6, 8, 3]
    np.testing.assert_array_equal(outputs_of(graph, feeds)["y"], before)
    assert not any(give_bias(graph, node) for node in graph.nodes)
