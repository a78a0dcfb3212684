"""Whole models: what is prepared computes the same, and what is refitted comes closer (hard case 28)."""

import numpy as np
import pytest

from onnxopt import Context
from onnxopt.analysis.channels import ChannelGroups
from onnxopt.analysis.compensation import Samples, Study
from onnxopt.analysis.compensation.abreast import companions
from onnxopt.analysis.compensation.absorbing import absorb_normalizations, drop_absorbed
from onnxopt.analysis.compensation.reading import find_readers, give_bias
from onnxopt.analysis.compensation.streams import find_streams
from onnxopt.analysis.compensation.views import views
from onnxopt.data import InputSpec, open_dataset
from onnxopt.manager import run_pass
from onnxopt.testing import outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.prune import Prune

SIZE = (1, 3, 8, 8)
MODELS = {
    "3x3, strided": """<float[16,3,3,3] w1, float[12,16,3,3] w2, float[4,12,3,3] w3> {
        a = Conv <pads = [1,1,1,1]> (x, w1)  b = Relu (a)  c = Conv <strides = [2,2]> (b, w2)
        d = Sigmoid (c)  y = Conv <pads = [1,1,1,1]> (d, w3) }""",
    "dilated, padded": """<float[16,3,1,1] w1, float[4,16,3,3] w2> {
        a = Conv (x, w1)  b = Relu (a)  y = Conv <dilations = [2,2], pads = [2,2,1,1]> (b, w2) }""",
    "grouped": """<float[16,3,1,1] w1, float[8,8,3,3] w2, float[2,8,1,1] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <group = 2> (b, w2)  d = Relu (c)  y = Conv (d, w3) }""",
    "ConvTranspose": """<float[16,3,1,1] w1, float[16,8,2,2] w2, float[2,8,3,3] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = ConvTranspose <strides = [2,2]> (b, w2)  d = Relu (c)
        y = Conv (d, w3) }""",
    "depthwise": """<float[16,3,1,1] w1, float[16,1,3,3] d, float[4,16,1,1] w2> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <group = 16, pads = [1,1,1,1]> (b, d)  e = Relu (c)
        y = Conv (e, w2) }""",
    "Concat": """<float[16,3,1,1] w1, float[8,3,3,3] w2, float[4,24,3,3] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <pads = [1,1,1,1]> (x, w2)  d = Sigmoid (c)
        e = Concat <axis = 1> (b, d)  y = Conv (e, w3) }""",
    "two readers": """<float[16,3,1,1] w1, float[4,16,1,1] w2, float[4,16,3,3] w3> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  d = Conv <pads = [1,1,1,1]> (b, w3)  e = Tanh (c)
        y = Mul (e, d) }""",
    "residual": """<float[12,3,1,1] w1, float[12,12,3,3] w2, float[12,12,3,3] w3, float[4,12,1,1] w4> {
        a = Conv (x, w1)  b = Relu (a)  c = Conv <pads = [1,1,1,1]> (b, w2)  d = Relu (c)
        e = Conv <pads = [1,1,1,1]> (d, w3)  f = Add (e, b)  g = Relu (f)  y = Conv (g, w4) }""",
    "flattened": """<float[8,3,1,1] w1, float[5,512] w2> {
        a = Conv (x, w1)  b = Relu (a)  c = Flatten (b)  y = Gemm <transB = 1> (c, w2) }""",
    "several times": """<float[8,3,1,1] w1, float[5,24,1,1] w2> {
        a = Conv (x, w1)  b = Relu (a)  c = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (b)
        d = Concat <axis = 1> (b, c, b)  y = Conv (d, w2) }""",
    "split": """<float[16,3,1,1] w1, int64[2] s = {8, 8}, float[4,8,1,1] w2, float[4,8,1,1] w3> {
        a = Conv (x, w1)  b = Relu (a)  c, d = Split <axis = 1> (b, s)  e = Conv (c, w2)  f = Conv (d, w3)
        g = Tanh (e)  y = Mul (g, f) }""",
    "MatMul": """<float[8,16] w1, float[16] b1, float[16,4] w2> {
        a = MatMul (x, w1)  b = Add (a, b1)  c = Relu (b)  y = MatMul (c, w2) }""",
    "normalized": """<float[16,3,3,3] w1, float[16] s, float[16] t, float[16] m, float[16] v, float[4,16,1,1] w2> {
        a = Conv <pads = [1,1,1,1]> (x, w1)  n = BatchNormalization (a, s, t, m, v)  b = Relu (n)
        y = Conv (b, w2) }""",
}
STREAM = """(float[1,3,8,8] x) => (float[1,2,8,8] y)
    <float[8,3,1,1] w1, float[8] s, float[8] t, float[8] m, float[8] v, float[12,8,1,1] w2, float[8,12,1,1] w3,
    float[16,8,3,3] w4, float[2,16,1,1] w5> {
    a = Conv (x, w1)  n = BatchNormalization (a, s, t, m, v)  b = Conv (n, w2)  c = Relu (b)  d = Conv (c, w3)
    e = Add (n, d)  f = Conv <pads = [1,1,1,1]> (e, w4)  g = Relu (f)  y = Conv (g, w5) }"""


def model(name):
    graph = parse_graph(f"(float[1,3,8,8] x) => (float y) {MODELS[name]}")
    for node in graph.nodes_of("BatchNormalization"):
        node.inputs[4].values = np.abs(node.inputs[4].values) + 0.5
    return graph


def data(graph, count=24):
    """Pictures with few degrees of freedom, so that channels can stand in for others."""
    generator = np.random.default_rng(1)
    bases = generator.standard_normal((6, *SIZE[1:]))
    mixed = [np.tensordot(generator.standard_normal(6), bases, 1)[None].astype(np.float32) for _ in range(count)]
    inputs = (InputSpec("x", SIZE, np.dtype(np.float32)),)
    fit, holdout = open_dataset([{"x": m} for m in mixed], inputs, role="calibration").split_holdout()
    return Context(plain_context().target, inputs=inputs, fit=fit, holdout=holdout)


def study(graph, context, **options):
    found = ChannelGroups.of(graph)
    samples = Samples(context.fit, context.holdout, lambda name: 4096, 10**6)
    return Study(graph, ChannelGroups.of, samples, [g.name for g in found.free], **options)


def log_softmax(scores):
    shifted = scores.astype(np.float64) - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def error(before, after, context):
    """Share of the outputs' energy that is wrong; of class scores, [1, classes], what their probabilities diverge."""
    pairs = [(outputs_of(before, s.feeds)["y"], outputs_of(after, s.feeds)["y"]) for s in context.holdout]
    if pairs[0][0].ndim == 2:
        logs = [(log_softmax(a), log_softmax(b)) for a, b in pairs]
        return float(np.mean([(np.exp(a) * (a - b)).sum() for a, b in logs]))
    return sum(float(np.square(a - b).sum()) for a, b in pairs) / sum(float(np.square(a).sum()) for a, _ in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_case_28_held_out_error_falls(name):
    errors = {}
    for criterion, compensation in (("reconstruction", True), ("reconstruction", False), ("l2", False)):
        graph = model(name)
        context = data(graph)
        pruning = Prune(ratio=0.25, align=1, criterion=criterion, compensation=compensation)
        record = run_pass(pruning, graph, context, [])
        assert record.changed
        errors[criterion, compensation] = error(model(name), graph, context)
        assert not any(n.op == "BatchNormalization" for n in graph.nodes) or not compensation
    assert errors["reconstruction", True] < 0.7 * errors["l2", False]
    assert errors["reconstruction", True] < errors["reconstruction", False]


@pytest.mark.parametrize("name", MODELS)
def test_segments_at_different_ratios(name):
    graph = model(name)
    context = data(graph)
    found = study(graph, context)
    sensitivity = found.measure({g.name: np.arange(g.size) for g in found.groups}, ())
    choice = {g.name: sensitivity[g.name].keep(max(1, g.size - 1 - 2 * i)) for i, g in enumerate(found.groups)}
    outcome = found.apply(graph, choice)
    assert outcome.after <= outcome.before
    assert error(model(name), graph, context) < 1


@pytest.mark.parametrize("name", MODELS)
def test_what_is_prepared_computes_the_same(name):
    graph = model(name)
    context = data(graph)
    found = study(graph, context)
    assert found.damage(graph) < 1e-8
    before = graph.digest()
    found.measure({g.name: np.arange(g.size) for g in found.groups})
    assert found.damage(found._graph) < 1e-8  # trials leave nothing behind
    assert graph.digest() == before


def stream(*change):
    graph = parse_graph(STREAM.replace(*change) if change else STREAM)
    for node in graph.nodes_of("BatchNormalization"):
        node.inputs[4].values = np.abs(node.inputs[4].values) + 0.5
    return graph


def test_a_turned_stream_computes_the_same():
    graph = stream()
    found = study(graph, data(graph))
    assert set(found.turned) == {"a"}
    feeds = random_feeds(graph)
    wanted, got = outputs_of(graph, feeds)["y"], outputs_of(found._graph, feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert not np.allclose(found._graph.nodes[0].inputs[1].values, graph.nodes[0].inputs[1].values)


def test_a_stream_of_low_rank_is_cut_without_loss():
    graph = stream()
    # What is written lies in three directions of eight, none of them an axis.
    directions = np.random.default_rng(0).standard_normal((8, 3))
    first, third = graph.nodes[0].inputs[1], graph.nodes[4].inputs[1]
    norm = next(graph.nodes_of("BatchNormalization"))
    for index, values in zip((1, 2, 3, 4), (np.ones(8), np.zeros(8), np.zeros(8), np.ones(8)), strict=True):
        norm.inputs[index].values = values.astype(np.float32)
    first.values = (directions @ first.values[:3, :, 0, 0])[..., None, None].astype(np.float32)
    third.values = (directions @ third.values[:3, :, 0, 0])[..., None, None].astype(np.float32)
    before, context = graph.copy(), data(graph)
    record = run_pass(Prune(ratio=5 / 8, align=1, scope=["a"]), graph, context, [])
    assert [g["other_basis"] for g in record.details["groups"]] == [True]
    assert graph.nodes[0].inputs[1].shape[0] == 3
    assert error(before, graph, context) < 1e-4
    plain = before.copy()
    run_pass(Prune(ratio=5 / 8, align=1, scope=["a"], compensation=False), plain, context, [])
    assert error(before, plain, context) > 0.05


@pytest.mark.parametrize(
    "change",
    [
        ("d = Conv (c, w3)", "h = Conv (c, w3)  d = Relu (h)"),  # something not linear writes
        ("f = Conv <pads = [1,1,1,1]> (e, w4)", "h = Relu (e)  f = Conv <pads = [1,1,1,1]> (h, w4)"),
        ("b = Conv (n, w2)", "h = Tanh (n)  b = Conv (h, w2)"),
    ],
)
def test_what_is_not_linear_is_no_stream(change):
    graph = stream(*change)
    absorbed = absorb_normalizations(graph)
    found = ChannelGroups.of(graph)
    readers = find_readers(graph, found, found.free)
    assert find_streams(graph, found, readers, absorbed) == []


def test_errors_of_a_skip_are_known_only_where_it_ran_before():
    graph = stream()
    absorb_normalizations(graph)
    found = ChannelGroups.of(graph)
    readers = {r.output(graph): r for r in find_readers(graph, found, found.free)}
    assert companions(graph, readers["d"]) == ["n"]
    assert companions(graph, readers["b"]) == []
    assert companions(graph, readers["y"]) == []


def test_normalizations_are_absorbed_exactly():
    graph = model("normalized")
    feeds = random_feeds(graph)
    wanted = outputs_of(graph, feeds)["y"]
    assert absorb_normalizations(graph) == [1]
    np.testing.assert_allclose(outputs_of(graph, feeds)["y"], wanted, rtol=1e-4, atol=1e-4)
    drop_absorbed(graph, [graph.nodes[1]])
    assert [n.op for n in graph.nodes] == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(outputs_of(graph, feeds)["y"], wanted, rtol=1e-4, atol=1e-4)
    assert [i for i, node in enumerate(graph.nodes) if give_bias(graph, node)] == [2]


def test_held_out_samples_are_never_fitted_on():
    graph = model("residual")
    context = data(graph)
    fitted, judged = ({s.feeds["x"].tobytes() for s in part} for part in (context.fit, context.holdout))
    lab = study(graph, context)._lab
    assert {f["x"].tobytes() for f in lab.fit} == fitted
    assert {f["x"].tobytes() for f in lab.held_out} == judged
    assert fitted.isdisjoint(judged)


def test_views_of_pictures():
    picture = {"x": np.random.default_rng(0).standard_normal((1, 3, 40, 48)).astype(np.float32)}
    found = [v["x"] for v in views(picture, 4, 7)]
    assert len(found) == 4
    np.testing.assert_array_equal(found[0], picture["x"])
    np.testing.assert_array_equal(found[1], picture["x"][..., ::-1])
    assert all(v.shape == (1, 3, 40, 48) and v.dtype == np.float32 for v in found)
    assert all(v.min() >= picture["x"].min() and v.max() <= picture["x"].max() for v in found)
    again = [v["x"] for v in views(picture, 4, 7)]
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    table = {"x": np.zeros((1, 40), np.float32)}
    assert len(list(views(table, 4, 7))) == 1
