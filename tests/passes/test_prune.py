import json

import numpy as np
import pytest

from onnxopt import Context, Graph, UsageError
from onnxopt.data import InputSpec, open_dataset
from onnxopt.manager import run_pass
from onnxopt.report.record import PassRecord
from onnxopt.testing import assert_rewrites, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.prune import Prune

CHAIN = """(float[1,3,4,4] x) => (float[1,2,4,4] y)
    <float[32,3,1,1] w1, float[24,32,1,1] w2, float[2,24,1,1] w3> {
    a = Conv (x, w1)  b = Sigmoid (a)  c = Conv (b, w2)  d = Relu (c)  y = Conv (d, w3) }"""


def prune(graph: Graph, context: Context | None = None, **options: object) -> PassRecord:
    return run_pass(Prune(**options), graph, context or plain_context(), [])


def shapes(graph: Graph) -> list[list[int]]:
    return [list(node.inputs[1].shape) for node in graph.nodes_of("Conv")]


def data_context(graph: Graph, count: int = 6) -> Context:
    generator = np.random.default_rng(3)
    inputs = (InputSpec("x", (1, 3, 4, 4), np.dtype(np.float32)),)
    feeds = [{"x": generator.standard_normal((1, 3, 4, 4)).astype(np.float32)} for _ in range(count)]
    fit, holdout = open_dataset(feeds, inputs, role="calibration").split_holdout()
    return Context(plain_context().target, inputs=inputs, fit=fit, holdout=holdout)


def test_half_of_a_chain_goes():
    assert_rewrites(
        Prune(ratio=0.5, align=1),
        CHAIN,
        """(float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[16,3,1,1] w1, float[12,16,1,1] w2, float[2,12,1,1] w3> {
        a = Conv (x, w1)  b = Sigmoid (a)  c = Conv (b, w2)  d = Relu (c)  y = Conv (d, w3) }""",
        notes=["2 channels are fixed: graph output 'y'"],
    )


@pytest.mark.parametrize(
    ("ratio", "align", "left"),
    [
        (0.5, 8, [16, 16]),  # 12 of 24 lies between 8 and 16
        (0.3, 16, [16, 16]),
        (0.1, 16, [32, 24]),
        (0.99, 16, [16, 16]),
        (1.0, 1, [1, 1]),
        (0.5, 64, [32, 24]),
        (0.0, 1, [32, 24]),
    ],
)
def test_kept_counts_are_rounded_to_blocks(ratio, align, left):
    graph = parse_graph(CHAIN)
    record = prune(graph, ratio=ratio, align=align)
    assert [s[0] for s in shapes(graph)] == [*left, 2]
    assert record.changed == (left != [32, 24])


def test_small_and_rounded_groups_say_so():
    record = prune(parse_graph(CHAIN), ratio=0.1, align=32)
    assert ("a", "32 channels are no more than one block of 32") in record.notes
    assert ("c", "24 channels are no more than one block of 32") in record.notes
    record = prune(parse_graph(CHAIN), ratio=0.1, align=16)
    assert ("a", "rounded to multiples of 16, all 32 channels stay") in record.notes


def test_alignment_comes_from_the_target():
    graph = parse_graph(CHAIN)
    record = prune(graph, ratio=0.4)
    assert record.options["align"] == plain_context().target.alignment == 8
    assert shapes(graph)[0][0] == 16


def test_weakest_channels_go_first():
    graph = parse_graph(CHAIN)
    weight = graph.nodes[0].inputs[1]
    values = weight.values.copy()
    values[[3, 7, 30]] *= 1e-3
    weight.values = values
    record = prune(graph, ratio=3 / 32, align=1, scope=["a"])
    (group,) = record.details["groups"]
    assert group["name"] == "a"
    assert set(range(32)) - set(group["kept"]) == {3, 7, 30}


def test_threshold_removes_what_scores_lower():
    graph = parse_graph(CHAIN)
    weight = graph.nodes[0].inputs[1]
    values = weight.values.copy()
    values[[3, 7, 30]] = 0
    weight.values = values
    record = prune(graph, threshold=0.001, align=1)
    assert [s[0] for s in shapes(graph)] == [29, 24, 2]
    assert record.counts == {"channels removed": 3, "groups cut": 1}
    assert ("c", "no block of its 24 channels scores low enough") in record.notes


def test_scope_and_ignore():
    graph = parse_graph(CHAIN)
    record = prune(graph, ratio=0.5, align=1, scope=["c*"])
    assert [s[0] for s in shapes(graph)] == [32, 12, 2]
    assert ("a", "outside scope") in record.notes
    graph = parse_graph(CHAIN)
    record = prune(graph, ratio=0.5, align=1, ignore=["y"])
    assert [s[0] for s in shapes(graph)] == [16, 24, 2]
    assert ("c", "ignored on request") in record.notes


@pytest.mark.parametrize("option", ["scope", "ignore"])
def test_pattern_that_matches_nothing(option):
    with pytest.raises(UsageError, match="'backbone' matches the name of no node with channels"):
        prune(parse_graph(CHAIN), ratio=0.5, **{option: ["backbone"]})


def test_ratio_and_threshold_exclude_each_other():
    with pytest.raises(UsageError, match="not both"):
        prune(parse_graph(CHAIN), ratio=0.5, threshold=0.5)


def test_ratio_out_of_range():
    with pytest.raises(UsageError, match=r"ratio=1.5 is above 1"):
        Prune(ratio=1.5)


def test_without_ratio_and_data():
    with pytest.raises(UsageError, match="give data, or a ratio"):
        prune(parse_graph(CHAIN))


def weakened() -> Graph:
    """The chain with channels that matter a little, in steps, and vanish behind the activation."""
    graph = parse_graph(CHAIN.replace("Sigmoid", "Relu"))
    weight = graph.nodes[0].inputs[1]
    weight.values = (weight.values * np.geomspace(1e-4, 1, 32).reshape(32, 1, 1, 1)).astype(np.float32)
    last = graph.nodes[-1].inputs[1]
    last.values = (last.values * np.geomspace(1e-4, 1, 24).reshape(1, 24, 1, 1)).astype(np.float32)
    return graph


def test_without_ratio_outputs_keep_20_db():
    graph = weakened()
    context = data_context(graph)
    record = prune(graph, context, align=1)
    assert record.changed
    before, after = ([outputs_of(g, s.feeds)["y"] for s in context.holdout] for g in (weakened(), graph))
    error = sum(float(np.square(a - b).sum()) for a, b in zip(before, after, strict=True))
    assert 10 * np.log10(sum(float(np.square(a).sum()) for a in before) / error) >= 20
    assert len(record.details["search_db"]) <= 12
    assert min(record.details["search_db"].values()) < 20  # it went to the limit


def test_resolved_options_give_the_same_model():
    graph = weakened()
    record = prune(graph, data_context(graph), align=1)
    again = weakened()
    prune(again, **record.options)
    assert again.digest() == graph.digest()


def test_nothing_is_removed_where_all_channels_matter():
    graph = parse_graph(CHAIN)
    before = graph.digest()
    record = prune(graph, data_context(graph), align=8)
    assert not record.changed
    assert graph.digest() == before
    assert record.options["threshold"] == 0.0


def test_reference_masks_the_original():
    before = parse_graph(CHAIN)
    graph = before.copy()
    prune(graph, ratio=0.5, align=1)
    reference = Prune(ratio=0.5).reference(before, graph)
    assert len(list(reference.nodes_of("Mul"))) == 2
    feeds = random_feeds(before)
    wanted, got, old = (outputs_of(g, feeds)["y"] for g in (reference, graph, before))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(got - old).max() > 1e-2
    again = graph.copy()
    prune(again, ratio=0.5, align=1)
    assert len(json.loads(again.metadata["onnxopt.prune"])) == 2
    twice = Prune(ratio=0.5).reference(graph, again)
    np.testing.assert_allclose(outputs_of(again, feeds)["y"], outputs_of(twice, feeds)["y"], atol=1e-5)
    assert Prune(ratio=0.5).reference(again, again) is None


def test_a_quantized_model_is_not_pruned_and_that_is_said():
    graph = parse_graph("""(float[1,8,4,4] x) => (float[1,8,4,4] y)
        <int8[16,8,1,1] v, int8[8,16,1,1] w, float s = {0.1}, int8 z = {0}> {
        a = DequantizeLinear (v, s, z)  b = Conv (x, a)  c = Relu (b)
        d = DequantizeLinear (w, s, z)  y = Conv (c, d) }""")
    record = run_pass(Prune(ratio=0.5), graph, plain_context(), [])
    assert not record.changed
    assert any("run strip-qdq before" in why for _, why in record.notes)
