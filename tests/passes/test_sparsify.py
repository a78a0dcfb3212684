"""`sparsify` puts the zeros where they were asked for, makes up for them where it can, and says what it left alone."""

import json

import numpy as np
import pytest

from onnxopt import Context, Graph, UsageError
from onnxopt.analysis.sparsity import Rule
from onnxopt.data import InputSpec, open_dataset
from onnxopt.manager import run_pass
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets.ort import ORT
from onnxopt.testing import assert_preserves, assert_rewrites, parse_graph, plain_context
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ
from onnxopt_passes.sparsify import KEY, Sparsify

NET = """(float[1,8,6,6] x) => (float[1,5] y)
    <float[16,8,3,3] w1, float[16,1,3,3] d, float[12,16,1,1] w2, float[12,4,3,3] g, float[12,5] w3, float[5] b> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)  r = Relu (a)
    e = Conv <group = 16, pads = [1, 1, 1, 1]> (r, d)  f = Relu (e)
    c = Conv (f, w2)  h = Relu (c)
    i = Conv <group = 3> (h, g)  j = Relu (i)
    p = GlobalAveragePool (j)  q = Flatten (p)  y = Gemm (q, w3, b) }"""
SHAPE = (1, 8, 6, 6)


def sparsify(graph: Graph, context: Context | None = None, **options: object) -> PassRecord:
    graph.name_nodes()
    return run_pass(Sparsify(**options), graph, context or plain_context(), [])


def samples(count: int, shape: tuple[int, ...] = SHAPE, *, seed: int = 5) -> Context:
    """Inputs with correlated channels, as pictures and activations have."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).standard_normal((shape[1], shape[1])) * np.geomspace(1e-3, 5e-5, shape[1])
    feeds = [
        {"x": np.einsum("ij,nj...->ni...", mixing, generator.standard_normal(shape)).astype(np.float32)}
        for _ in range(count)
    ]
    inputs = (InputSpec("x", shape, np.dtype(np.float32)),)
    fit, holdout = open_dataset(feeds, inputs, role="calibration").split_holdout()
    return Context(plain_context().target, inputs=inputs, fit=fit, holdout=holdout)


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {n.name: graph.constant(n.inputs[1]) for n in graph.nodes_of("Conv", "Gemm", "MatMul")}


def four_by_four(weight: np.ndarray) -> bool:
    """The rule of TensorRT's documentation, written out."""
    rows, channels = weight.shape[:2]
    flat = weight.reshape(rows, channels, -1)
    return channels % 4 == 0 and all(
        np.count_nonzero(flat[k, 4 * c : 4 * c + 4, place]) <= 2
        for k in range(rows)
        for place in range(flat.shape[2])
        for c in range(channels // 4)
    )


@pytest.mark.parametrize("data", [0, 12])
def test_two_of_four_input_channels_at_each_place_of_the_kernel(data):
    graph = parse_graph(NET)
    record = sparsify(graph, samples(data) if data else None, pattern="2:4")
    found = weights(graph)
    for name in ("Conv", "Conv_2", "Conv_3"):
        assert four_by_four(found[name])
        assert np.count_nonzero(found[name]) == found[name].size / 2
    assert four_by_four(found["Gemm"].T)
    assert np.count_nonzero(found["Conv_1"]) == found["Conv_1"].size
    assert record.details["sparsity"] == 0.5
    assert record.options["method"] == ("reconstruction" if data else "magnitude")


def test_the_smallest_go_without_data():
    net = "(float[1,4] x) => (float[1,2] y) <float[4,2] w = {VALUES}> { y = MatMul (x, w) }"
    assert_rewrites(
        Sparsify(pattern="2:4", min_elements=1),
        net.replace("VALUES", "0.1, 5.0, -0.7, 1.0, 0.3, -2.0, 0.2, 3.0"),
        net.replace("VALUES", "0.0, 5.0, -0.7, 0.0, 0.3, 0.0, 0.0, 3.0"),
        notes=["the smallest weights go, without reconstruction: there are no samples"],
    )


@pytest.mark.parametrize(("share", "zeros"), [(0.5, 4), (0.25, 2), (1.0, 8)])
def test_a_share_anywhere(share, zeros):
    graph = parse_graph("(float[1,4] x) => (float[1,2] y) <float[4,2] w> { y = MatMul (x, w) }")
    before = np.sort(np.abs(weights(graph)[""].ravel()))
    sparsify(graph, sparsity=share, min_elements=1)
    after = np.sort(np.abs(weights(graph)["MatMul"].ravel()))
    assert (after[:zeros] == 0).all()
    assert np.array_equal(after[zeros:], before[zeros:])


def test_half_is_the_default():
    record = sparsify(parse_graph(NET))
    assert record.options["sparsity"] == 0.5
    assert record.details["sparsity"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("options", [{"pattern": "2:4"}, {"sparsity": 0.5}, {"pattern": "1:4"}])
def test_reconstruction_brings_the_outputs_closer(options):
    context = samples(60)
    graphs = [parse_graph(NET) for _ in range(3)]
    sparsify(graphs[1], context, method="magnitude", **options)
    record = sparsify(graphs[2], context, **options)
    other = samples(80, seed=6).fit
    outputs = [[OrtSession(g.to_proto()).run(s.feeds)["y"] for s in other] for g in graphs]
    errors = [np.square(np.subtract(outputs[0], o)).mean() for o in outputs[1:]]
    assert errors[1] < 0.6 * errors[0]
    damage = record.details["damage"]
    assert damage["reconstruction"] < damage["magnitude"]
    for row in record.details["layers"]:
        assert row["errors"]["plain"] >= 0


def test_reports_zeros_and_errors_of_each_layer():
    record = sparsify(parse_graph(NET), samples(30), pattern="2:4")
    rows = {row["name"]: row for row in record.details["layers"]}
    assert {name: row["sparsity"] for name, row in rows.items()} == {
        "Conv": 0.5,
        "Conv_1": 0.0,
        "Conv_2": 0.5,
        "Conv_3": 0.5,
        "Gemm": 0.5,
    }
    assert rows["Conv"]["errors"]["refitted"] < rows["Conv"]["errors"]["plain"]


def test_nothing_else_changes():
    graph = assert_preserves(Sparsify(pattern="2:4"), NET)
    (run,) = json.loads(graph.metadata[KEY])
    assert run == {"zeros": "2:4", "layers": 4, "method": "magnitude"}


def test_says_why_layers_are_left_alone():
    record = sparsify(parse_graph(NET.replace("8,", "6,").replace("1,6,6,6", "1,6,6,6")), pattern="2:4")
    notes = dict(record.notes)
    assert "one channel (depthwise)" in notes["Conv 'Conv_1'"]
    assert notes["Conv 'Conv'"] == "its outputs read 6 channels, no multiple of 4"


def test_quantized_weights_are_left_alone():
    net = """(float[1,4] x) => (float[1,4] y) <int8[4,4] q, float s = {0.1}> {
        w = DequantizeLinear (q, s)  y = MatMul (x, w) }"""
    record = sparsify(parse_graph(net))
    assert not record.changed
    assert "strip-qdq" in record.notes[-1][1]


@pytest.mark.parametrize("pattern", ["2:4", None])
def test_what_is_sparse_already_stays(pattern):
    graph = parse_graph(NET)
    sparsify(graph, pattern=pattern)
    before = weights(graph)
    record = sparsify(graph, samples(12), pattern=pattern)
    assert not record.changed
    assert weights(graph).keys() == before.keys()
    assert "already" in dict(record.notes)["Conv 'Conv'"]


def test_a_layer_of_zeros():
    graph = parse_graph(NET)
    node = graph.nodes[4]
    node.inputs[1].values = np.zeros_like(node.inputs[1].values)
    record = sparsify(graph, samples(12), pattern="2:4")
    assert record.changed
    assert "already" in dict(record.notes)["Conv 'Conv_2'"]
    assert all(np.isfinite(w).all() for w in weights(graph).values())


def test_dead_inputs_and_a_constant_output():
    graph = parse_graph(NET)
    first = graph.nodes[0]
    values = first.inputs[1].values.copy()
    values[:9] = 0
    first.inputs[1].values = values
    sparsify(graph, samples(12), sparsity=0.7)
    assert all(np.isfinite(w).all() for w in weights(graph).values())


def test_fewer_samples_than_channels():
    net = "(float[1,64] x) => (float[1,32] y) <float[64,32] w> { y = MatMul (x, w) }"
    graph = parse_graph(net)
    record = sparsify(graph, samples(3, (1, 64)), pattern="2:4")
    assert four_by_four(weights(graph)["MatMul"].T)
    assert record.details["damage"]


def test_arithmetic_stays():
    """A detector's head may hold a mean over distances, written as a convolution by 0, 1, … 15."""
    net = "(float[1,16,4,5] x) => (float[1,1,4,5] y) <float[1,16,1,1] w> { y = Conv (x, w) }"
    record = sparsify(parse_graph(net), pattern="2:4")
    assert not record.changed
    assert ("Conv 'Conv'", "its 16 weights are fewer than min_elements=32") in record.notes


def test_a_model_without_layers():
    record = sparsify(parse_graph("(float[1,4] x) => (float[1,4] y) { y = Relu (x) }"))
    assert not record.changed
    assert [why for _, why in record.notes] == ["has no Conv, Gemm or MatMul with weights"]


def test_nothing_is_asked_for():
    assert not sparsify(parse_graph(NET), sparsity=0.0).changed


def test_shared_weights():
    net = """(float[1,4] x) => (float[1,4] y) <float[4,4] w> { a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, w) }"""
    graph = parse_graph(net)
    record = sparsify(graph, pattern="2:4", min_elements=1)
    assert record.counts["layers with zeros"] == 2
    assert all(four_by_four(w.T) for w in weights(graph).values())


def test_scope_and_ignore():
    graph = parse_graph(NET)
    record = sparsify(graph, sparsity=0.5, scope=["Conv*"], ignore=["Conv_2"])
    full = {name for name, w in weights(graph).items() if np.count_nonzero(w) == w.size}
    assert full == {"Conv_1", "Conv_2", "Gemm"}
    assert ("Gemm 'Gemm'", "outside scope") in record.notes
    assert ("Conv 'Conv_2'", "ignored on request") in record.notes


@pytest.mark.parametrize("option", ["scope", "ignore"])
def test_pattern_that_matches_nothing(option):
    with pytest.raises(UsageError, match="'backbone' matches no Conv, Gemm or MatMul"):
        sparsify(parse_graph(NET), **{option: ["backbone"]})


@pytest.mark.parametrize("pattern", ["4:4", "0:4", "5:4", "2-4", "two", "2:4:8"])
def test_no_pattern(pattern):
    with pytest.raises(UsageError, match=r"for example 2:4"):
        sparsify(parse_graph(NET), pattern=pattern)


def test_bad_options():
    with pytest.raises(UsageError, match=r"sparsity=1.5 is above 1"):
        Sparsify(sparsity=1.5)
    with pytest.raises(UsageError, match="not both"):
        sparsify(parse_graph(NET), sparsity=0.5, pattern="2:4")
    with pytest.raises(UsageError, match="there are no samples"):
        sparsify(parse_graph(NET), method="reconstruction")


def test_the_checker():
    weight = np.zeros((2, 8, 3, 3), np.float32)
    weight[:, [0, 3, 4, 5]] = 1
    rule = Rule.parse("2:4")
    assert rule.follows(weight)
    assert four_by_four(weight)
    weight[1, 1, 2, 2] = 1
    assert not rule.follows(weight)
    assert not rule.follows(np.zeros((2, 6, 3, 3), np.float32))


def test_zeros_survive_quantization():
    graph, context = parse_graph(NET), samples(12)
    context.target = ORT
    sparsify(graph, context, pattern="2:4")
    run_pass(Calibrate(), graph, context, [])
    run_pass(InsertQDQ(), graph, context, [])
    codes = [graph.constant(n.inputs[0]) for n in graph.nodes_of("DequantizeLinear")]
    kernels = [c for c in codes if c is not None and c.ndim == 4 and c.shape[1] > 1]
    assert kernels
    assert all(four_by_four(c) for c in kernels)
