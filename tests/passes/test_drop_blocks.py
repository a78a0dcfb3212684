"""`drop-blocks` removes the residual blocks that matter least, as many as asked, and says what each one cost."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxopt import Context, Graph, UsageError
from onnxopt.analysis.blocks import Block, Price, StandIn
from onnxopt.data import InputSpec, open_dataset
from onnxopt.manager import run_pass
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession
from onnxopt.testing import assert_preserves, parse_graph, plain_context
from onnxopt_passes.drop_blocks import KEY, DropBlocks, _without

NET = """(float[1,6,6,6] x) => (float[1,4,6,6] z)
    <float[8,6,3,3] w0, float[8] b0,
     float[16,8,1,1] u1, float[16,1,3,3] d1, float[8,16,1,1] v1,
     float[16,8,1,1] u2, float[16,1,3,3] d2, float[8,16,1,1] v2,
     float[8,8,3,3] u3, float[4,8,1,1] w4, float[4] b4> {
    s = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    a1 = Conv (s, u1)  r1 = Relu (a1)  e1 = Conv <group = 16, pads = [1, 1, 1, 1]> (r1, d1)  f1 = Relu (e1)
    c1 = Conv (f1, v1)  y1 = Add (s, c1)
    a2 = Conv (y1, u2)  r2 = Relu (a2)  e2 = Conv <group = 16, pads = [1, 1, 1, 1]> (r2, d2)  f2 = Relu (e2)
    c2 = Conv (f2, v2)  y2 = Add (c2, y1)
    a3 = Conv <pads = [1, 1, 1, 1]> (y2, u3)  r3 = Relu (a3)  y3 = Add (y2, r3)
    z = Conv (y3, w4, b4) }"""
TOKENS = """(float[1,5,8] x) => (float[1,5,4] z)
    <float[8,16] u1, float[16,8] v1, float[8,8] u2, float[8,4] w> {
    n1 = Softmax <axis = -1> (x)  a1 = MatMul (n1, u1)  r1 = Relu (a1)  c1 = MatMul (r1, v1)  y1 = Add (c1, x)
    n2 = Softmax <axis = -1> (y1)  a2 = MatMul (n2, u2)  y2 = Add (y1, a2)
    z = MatMul (y2, w) }"""
WEAK = {"y1": 0.3, "y2": 0.02, "y3": 0.1}
SHAPE = (1, 6, 6, 6)


def net(text: str = NET) -> Graph:
    """The graph with blocks that add more or less to their stream."""
    graph = parse_graph(text)
    for add in graph.nodes_of("Add"):
        branch = next(
            t for t in add.inputs if t.inputs and t.inputs[0].op in {"Conv", "MatMul", "Relu"} and t.name != "s"
        )
        node = branch.inputs[0] if branch.inputs[0].op != "Relu" else branch.inputs[0].inputs[0].inputs[0]
        weight = node.inputs[1]
        weight.values = (weight.values * 0.1 * WEAK[add.outputs[0].name]).astype(np.float32)
    graph.name_nodes()
    return graph


def samples(count: int = 30, shape: tuple[int, ...] = SHAPE, *, seed: int = 5) -> Context:
    generator = np.random.default_rng(seed)
    feeds = [{"x": generator.standard_normal(shape).astype(np.float32)} for _ in range(count)]
    inputs = (InputSpec("x", shape, np.dtype(np.float32)),)
    fit, holdout = open_dataset(feeds, inputs, role="calibration").split_holdout()
    return Context(plain_context().target, inputs=inputs, fit=fit, holdout=holdout)


def drop(graph: Graph, context: Context | None = None, **options: object) -> PassRecord:
    return run_pass(DropBlocks(**options), graph, context or samples(), [])


def adds(graph: Graph) -> list[str]:
    return [n.outputs[0].name for n in graph.nodes_of("Add")]


def error(before: Graph, after: Graph, shape: tuple[int, ...] = SHAPE) -> float:
    """Of unseen samples, as a share of the output's variance."""
    feeds = [s.feeds for s in samples(20, shape, seed=8).fit]
    first, second = ([OrtSession(g.to_proto()).run(f)["z"] for f in feeds] for g in (before, after))
    return float(np.square(np.subtract(first, second)).mean() / np.var(first))


def test_blocks_are_found_and_priced():
    record = drop(net(), count=1)
    blocks = {row["name"]: row for row in record.details["blocks"]}
    assert list(blocks) == ["Add", "Add_1", "Add_2"]
    assert blocks["Add_1"]["damage"]["nothing"] < blocks["Add_2"]["damage"]["nothing"] < 1
    assert blocks["Add_2"]["damage"]["conv"] <= blocks["Add_2"]["damage"]["nothing"]


def test_the_cheapest_goes():
    graph = net()
    record = drop(graph, count=1)
    assert adds(graph) == ["y1", "y3"]
    assert record.counts["blocks removed"] == 1
    assert [row["name"] for row in record.details["dropped"]] == ["Add_1"]
    assert not {"a2", "e2", "c2"} & {t.name for n in graph.nodes for t in n.outputs}
    assert record.details["macs"] < 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_left_makes_up_for_it(count):
    graphs = [net(), net(), net()]
    drop(graphs[1], count=count, stand_in="nothing", refit=False)
    record = drop(graphs[2], samples(60), count=count)
    assert len(record.details["dropped"]) == count
    plain, kept = (error(graphs[0], g) for g in graphs[1:])
    assert kept < 0.8 * plain


def test_a_plain_removal_multiplies_by_nothing():
    graph = assert_preserves(DropBlocks(count=2, stand_in="nothing", refit=False), net(), context=samples())
    (run,) = json.loads(graph.metadata[KEY])
    assert run["plain"]
    assert len(run["blocks"]) == 2


def test_a_stand_in_goes_into_the_convolution_before():
    graph = net()
    record = drop(graph, count=1, stand_in="conv", refit=False, scope=["Add"])
    assert record.counts["stand-ins taken into the layer before"] == 1
    assert len(list(graph.nodes_of("Conv"))) == len(list(net().nodes_of("Conv"))) - 3
    assert adds(graph) == ["y2", "y3"]
    assert error(net(), graph) < 1


@pytest.mark.parametrize("stand_in", ["nothing", "readers", "affine", "conv"])
def test_every_stand_in_with_channels_last(stand_in):
    graph, shape = net(TOKENS), (1, 5, 8)
    before = graph.copy()
    record = drop(graph, samples(30, shape), count=2, stand_in=stand_in)
    assert len(record.details["dropped"]) == 2
    assert error(before, graph, shape) < 0.5


def test_a_budget_of_multiplications():
    graph = net()
    record = drop(graph, macs=0.7)
    assert record.details["macs"] <= 0.7
    assert len(record.details["dropped"]) < 3


def test_without_a_budget_the_outputs_hardly_change():
    graph = net()
    record = drop(graph)
    assert "Add" not in {row["name"] for row in record.details["dropped"]}
    assert record.details["damage"]["kept"] < 0.01


def test_more_than_there_are():
    graph = net()
    record = drop(graph, count=9)
    assert len(record.details["dropped"]) == 3
    assert ("blocks", "there are 3 to remove, not 9") in record.notes
    record = drop(net(), macs=0.01)
    assert any("of the multiply-accumulates remain" in reason for _, reason in record.notes)


def test_a_block_within_a_block():
    text = """(float[1,6,6,6] x) => (float[1,6,6,6] y) <float[6,6,1,1] u, float[6,6,1,1] v, float[6,6,1,1] w> {
        s = Conv (x, u)  a = Conv (s, v)  b = Relu (a)  c = Conv (b, w)  y1 = Add (b, c)  y = Add (s, y1) }"""
    graph = parse_graph(text)
    graph.name_nodes()
    before = graph.copy()
    record = drop(graph, count=5)
    assert {row["name"] for row in record.details["blocks"]} == {"Add", "Add_1"}
    assert [o.name for o in graph.outputs] == ["y"]
    assert {s.shape for s in OrtSession(graph.to_proto()).run({"x": np.ones(SHAPE, np.float32)}).values()} == {SHAPE}
    assert before.digest() != graph.digest()


def test_a_block_between_input_and_output():
    graph = parse_graph(
        "(float[1,6,6,6] x) => (float[1,6,6,6] y) <float[6,6,1,1] w> { a = Conv (x, w)  y = Add (x, a) }"
    )
    record = drop(graph, count=1, stand_in="nothing", refit=False)
    assert record.changed
    values = {"x": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)}
    assert np.array_equal(OrtSession(graph.to_proto()).run(values)["y"], values["x"])


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv (x, w)  b = Conv (x, v)  y = Add (a, b)",
        "a = Conv (x, w)  y = Mul (x, a)",
        "a = Sigmoid (x)  y = Add (x, a)",
        "a = Conv (x, w)  g = GlobalAveragePool (a)  y = Add (x, g)",
    ],
    ids=["two branches", "no sum", "no weights", "other shape"],
)
def test_no_block(body):
    graph = parse_graph(f"(float[1,6,6,6] x) => (float[1,6,6,6] y) <float[6,6,1,1] w, float[6,6,1,1] v> {{ {body} }}")
    record = drop(graph, count=1)
    assert not record.changed
    assert record.notes == [("text", "has no residual block")]


@pytest.mark.parametrize("options", [{"count": 0}, {"macs": 1.0}])
def test_nothing_is_asked_for(options):
    assert not drop(net(), **options).changed


def test_scope_and_ignore():
    graph = net()
    record = drop(graph, count=3, stand_in="nothing", scope=["Add*"], ignore=["Add_1"])
    assert adds(graph) == ["y2"]
    assert ("Add_1", "ignored on request") in record.notes
    record = drop(net(), count=1, scope=["Add_2"])
    assert ("Add", "outside scope") in record.notes


@pytest.mark.parametrize("option", ["scope", "ignore"])
def test_pattern_that_matches_nothing(option):
    with pytest.raises(UsageError, match="'backbone' matches no node of a residual block"):
        drop(net(), **{option: ["backbone"]})


def test_bad_input():
    with pytest.raises(UsageError, match="not both"):
        drop(net(), count=1, macs=0.5)
    with pytest.raises(UsageError, match=r"macs=1.5 is above 1"):
        DropBlocks(macs=1.5)
    with pytest.raises(UsageError, match="there are no samples"):
        drop(net(), plain_context(), count=1)


def test_damage_of_blocks_that_are_not_measured_again_adds_up():
    gone, left = (
        Price(Block(name, name, "x", inner, macs, SHAPE, 1), None, {"nothing": damage}, macs)
        for name, inner, macs, damage in (("b", (), 30, 0.3), ("a", ("b",), 100, 0.5))
    )
    gone, left = (replace(p, stand_in=StandIn("nothing", *np.zeros((4, 1)))) for p in (gone, left))
    found = _without(left, gone, 0.1)
    assert found.damage == pytest.approx(0.7)
    assert (found.saved, found.block.macs) == (70, 70)


def test_fewer_samples_than_channels_and_a_dead_block():
    graph = net()
    for node in graph.nodes_of("Conv"):
        if node.inputs[1].name in {"u2", "v2"}:
            node.inputs[1].values = np.zeros_like(node.inputs[1].values)
    before = graph.copy()
    record = drop(graph, samples(3), count=1)
    assert [row["name"] for row in record.details["dropped"]] == ["Add_1"]
    assert error(before, graph) < 1e-3
