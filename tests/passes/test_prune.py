import json

import numpy as np
import pytest
from onnx.helper import make_tensor_value_info

from onnxopt import Context, Graph, UsageError
from onnxopt.analysis.cost import Cost
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
    with pytest.raises(UsageError, match="'backbone' matches no node with channels"):
        prune(parse_graph(CHAIN), ratio=0.5, **{option: ["backbone"]})


def test_budgets_exclude_each_other():
    with pytest.raises(UsageError, match="give ratio or macs, not both"):
        prune(parse_graph(CHAIN), ratio=0.5, macs=0.5)
    with pytest.raises(UsageError, match="give ratio or macs or size, not all"):
        prune(parse_graph(CHAIN), ratio=0.5, macs=0.5, size=0.5)


def test_ratio_out_of_range():
    with pytest.raises(UsageError, match=r"ratio=1.5 is above 1"):
        Prune(ratio=1.5)


@pytest.mark.parametrize("budget", ["macs", "params", "size"])
def test_budget_out_of_range(budget):
    with pytest.raises(UsageError, match=f"{budget}=-0.1 is below 0"):
        Prune(**{budget: -0.1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "prune without a budget has to run the model on samples: there are no samples; give ratio or macs"),
        ({"ratio": 0.5, "compensation": True}, "compensation=true has to run the model on samples"),
        ({"ratio": 0.5, "criterion": "activation"}, "criterion=activation has to run the model on samples"),
    ],
)
def test_what_needs_samples_says_so(options, message):
    with pytest.raises(UsageError, match=message):
        prune(parse_graph(CHAIN), **options)


def macs_of(graph: Graph) -> int:
    context = plain_context()
    context.bind(graph, PassRecord("cost"))
    return context.get(Cost).total_macs


def bytes_of(graph: Graph) -> int:
    return sum(c.values.nbytes for c in graph.initializers())


@pytest.mark.parametrize("kind", ["macs", "params", "size"])
@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("share", [0.8, 0.4])
def test_budgets_are_met(kind, with_data, share):
    graph = parse_graph(CHAIN)
    measured = macs_of if kind == "macs" else bytes_of
    before = measured(graph)
    # A pass on its own keeps the zeros that layers without a bias are given no longer than it needs them.
    prune(graph, data_context(graph) if with_data else None, align=1, compensation=False, **{kind: share})
    assert 0.8 * share * before <= measured(graph) <= share * before


def test_budget_that_cannot_be_met_says_so():
    graph = parse_graph(CHAIN)
    record = prune(graph, data_context(graph), macs=0.1, align=16)
    assert shapes(graph)[0][0] == 16
    assert any("the least that can remain is" in why for _, why in record.notes)


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"macs": 1.0}, {"params": 1.0}, {"size": 1.0}])
def test_nothing_to_remove_is_a_no_op(options):
    graph = parse_graph(CHAIN)
    before = graph.digest()
    assert not prune(graph, data_context(graph), align=1, **options).changed
    assert graph.digest() == before


def error(graph: Graph, context: Context) -> float:
    pairs = [(outputs_of(parse_graph(CHAIN), s.feeds)["y"], outputs_of(graph, s.feeds)["y"]) for s in context.holdout]
    return sum(float(np.square(a - b).sum()) for a, b in pairs)


@pytest.mark.parametrize("options", [{"ratio": 0.3}, {"macs": 0.7}, {"macs": 0.7, "criterion": "l1"}])
def test_case_28_refitted_layers_come_closer(options):
    errors = {}
    for compensation in (True, False):
        graph = parse_graph(CHAIN)
        context = data_context(graph, count=30)
        record = prune(graph, context, align=1, compensation=compensation, **options)
        errors[compensation] = error(graph, context)
    assert errors[True] < 0.5 * errors[False]
    assert record.options["compensation"] is False


def test_case_28_a_refit_that_does_not_help_is_taken_back(monkeypatch):
    context = data_context(parse_graph(CHAIN))
    plain = parse_graph(CHAIN)
    prune(plain, context, ratio=0.3, align=1, criterion="l2", compensation=False)

    def spoil(graph, before, readers, kept, samples):
        for reader in readers:
            matrix = reader.matrix(graph) * kept.where(reader.roots)[:, None, :]
            reader.write(graph, -matrix, reader.bias(graph))
        return len(readers)

    monkeypatch.setattr("onnxopt.analysis.compensation.study.refit_readers", spoil)
    graph = parse_graph(CHAIN)
    record = prune(graph, context, ratio=0.3, align=1, criterion="l2", compensation=True)
    assert any("taken back" in why for _, why in record.notes)
    assert "layers refitted" not in record.counts
    assert error(graph, context) == pytest.approx(error(plain, context), rel=1e-3)


@pytest.mark.parametrize("criterion", ["l1", "l2", "random", "activation", "reconstruction"])
def test_criteria_give_valid_models_and_are_told(criterion):
    graph = parse_graph(CHAIN)
    context = data_context(graph)
    record = prune(graph, context, ratio=0.5, align=1, criterion=criterion)
    assert record.options["criterion"] == criterion
    assert [s[0] for s in shapes(graph)] == [16, 12, 2]
    again = parse_graph(CHAIN)
    prune(again, context, ratio=0.5, align=1, criterion=criterion)
    assert again.digest() == graph.digest()


def test_defaults_follow_the_data():
    graph = parse_graph(CHAIN)
    record = prune(graph, data_context(graph), ratio=0.5)
    assert (record.options["criterion"], record.options["compensation"]) == ("reconstruction", True)
    record = prune(parse_graph(CHAIN), ratio=0.5)
    assert (record.options["criterion"], record.options["compensation"]) == ("l2", False)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("ratio", [0.5, 0.99, 1.0])
def test_case_28_fewer_pictures_than_channels(count, ratio):
    graph = parse_graph(CHAIN)
    context = data_context(graph, count=count)
    prune(graph, context, ratio=ratio, align=1)
    assert all(np.isfinite(c.values).all() for c in graph.initializers())
    assert np.isfinite(outputs_of(graph, random_feeds(graph))["y"]).all()


def test_layers_that_are_all_zero():
    graph = parse_graph(CHAIN)
    graph.nodes[0].inputs[1].values = np.zeros((32, 3, 1, 1), np.float32)
    prune(graph, data_context(graph), ratio=0.5, align=1)
    assert np.isfinite(outputs_of(graph, random_feeds(graph))["y"]).all()


def test_a_pruned_model_can_be_pruned_again():
    graph = parse_graph(CHAIN)
    context = data_context(graph)
    prune(graph, context, macs=0.7, align=1)
    before = macs_of(graph)
    prune(graph, context, macs=0.7, align=1)
    assert macs_of(graph) <= 0.7 * before
    assert len(json.loads(graph.metadata["onnxopt.prune"])) == 2


def weakened() -> Graph:
    """The chain with channels that matter a little, in steps, and vanish behind the activation."""
    graph = parse_graph(CHAIN.replace("Sigmoid", "Relu"))
    weight = graph.nodes[0].inputs[1]
    weight.values = (weight.values * np.geomspace(1e-4, 1, 32).reshape(32, 1, 1, 1)).astype(np.float32)
    last = graph.nodes[-1].inputs[1]
    last.values = (last.values * np.geomspace(1e-4, 1, 24).reshape(1, 24, 1, 1)).astype(np.float32)
    return graph


@pytest.mark.parametrize("compensation", [True, False])
def test_without_a_budget_outputs_keep_about_20_db(compensation):
    graph = weakened()
    context = data_context(graph, count=12)
    record = prune(graph, context, align=1, compensation=compensation)
    assert record.changed
    assert 0.3 <= record.options["macs"] < 1
    before, after = ([outputs_of(g, s.feeds)["y"] for s in context.holdout] for g in (weakened(), graph))
    worse = sum(float(np.square(a - b).sum()) for a, b in zip(before, after, strict=True))
    assert 10 * np.log10(sum(float(np.square(a).sum()) for a in before) / worse) >= 17


def test_resolved_options_give_the_same_model():
    graph = weakened()
    record = prune(graph, data_context(graph), align=1)
    again = weakened()
    prune(again, data_context(again), **record.options)
    assert again.digest() == graph.digest()


def test_sensitivity_is_in_the_report():
    graph = parse_graph(CHAIN)
    record = prune(graph, data_context(graph), macs=0.7, align=1)
    found = record.details["sensitivity"]
    assert set(found) == {"a", "c"}
    assert [int(c) for c in found["a"]] == [27, 22, 18, 13, 6]
    assert json.loads(json.dumps(found)) == found
    assert record.details["damage"]["kept"] <= record.details["damage"]["plain"]


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


@pytest.mark.parametrize("with_data", [True, False])
def test_a_quantized_model_loses_codes(with_data):
    text = """(float[1,3,4,4] x) => (float[1,8,4,4] y)
        <int8[16,3,1,1] v, int8[8,16,1,1] w, float s = {0.1}, int8 z = {0}> {
        a = DequantizeLinear (v, s, z)  b = Conv (x, a)  c = Relu (b)
        d = DequantizeLinear (w, s, z)  y = Conv (c, d) }"""
    graph = parse_graph(text)
    record = prune(graph, data_context(graph) if with_data else None, ratio=0.5, align=1)
    assert record.changed
    codes = [list(n.inputs[0].shape) for n in graph.nodes_of("DequantizeLinear")]
    assert codes == [[8, 3, 1, 1], [8, 8, 1, 1]]
    assert np.isfinite(outputs_of(graph, random_feeds(graph))["y"]).all()


@pytest.mark.parametrize("with_data", [True, False])
def test_normalized_width_lets_a_normalization_lose_channels(with_data):
    text = """(float[1,3,4,4] x) => (float[1,2,4,4] y) <float[16,3,1,1] w1, float[2,16,1,1] w2> {
        a = Conv (x, w1)  m = ReduceMean <axes = [1]> (a)  b = Sub (a, m)  y = Conv (b, w2) }"""
    graph = parse_graph(text)
    context = data_context(graph) if with_data else None
    assert not prune(graph, context, ratio=0.5, align=1).changed
    before = graph.copy()
    options = {"ratio": 0.5, "align": 1, "normalized_width": True}
    record = prune(graph, context, **options)
    assert record.changed
    assert [s[0] for s in shapes(graph)] == [8, 2]
    feeds = random_feeds(graph)
    assert np.isfinite(outputs_of(graph, feeds)["y"]).all()
    if not with_data:
        reference = Prune(**options).reference(before, graph)
        np.testing.assert_allclose(outputs_of(graph, feeds)["y"], outputs_of(reference, feeds)["y"], atol=1e-5)


@pytest.mark.parametrize("compensation", [True, False])
def test_each_criterion_ranks_by_itself(compensation):
    kept = []
    for criterion in ("l2", "activation", "reconstruction"):
        graph = parse_graph(CHAIN)
        record = prune(graph, data_context(graph), ratio=0.5, align=1, criterion=criterion, compensation=compensation)
        assert ("layers refitted" in record.counts) <= compensation
        kept.append([group["kept"] for group in record.details["groups"]])
    assert kept[0] != kept[1] != kept[2] != kept[0]


def test_energy_decides_which_channels_stay():
    """Of two equal halves of the weights those stay that read a channel of x that is ever anything but 0."""
    text = """(float[1,2,4,4] x) => (float[1,2,4,4] y) <float[8,2,1,1] w1, float[2,8,1,1] w2> {
        a = Conv (x, w1)  b = Relu (a)  y = Conv (b, w2) }"""
    graph = parse_graph(text)
    weights = np.zeros((8, 2, 1, 1), np.float32)
    weights[:4, 1], weights[4:, 0] = 2.0, 1.0
    graph.own_constant(graph.nodes[0], 1).values = weights
    graph.own_constant(graph.nodes[2], 1).values = np.ones((2, 8, 1, 1), np.float32)
    inputs = (InputSpec("x", (1, 2, 4, 4), np.dtype(np.float32)),)
    generator = np.random.default_rng(0)
    feeds = [{"x": np.stack([generator.random((4, 4)), np.zeros((4, 4))])[None].astype(np.float32)} for _ in range(6)]
    fit, holdout = open_dataset(feeds, inputs, role="calibration").split_holdout()
    context = Context(plain_context().target, inputs=inputs, fit=fit, holdout=holdout)
    record = prune(graph, context, ratio=0.5, align=1, criterion="activation", compensation=False)
    assert record.details["groups"][0]["kept"] == [4, 5, 6, 7]


def test_a_ratio_that_blocks_keep_from_going_says_so():
    record = prune(parse_graph(CHAIN), ratio=0.99, align=16)
    assert [why for _, why in record.notes if "not 99%" in why] == [
        "50% of its 32 channels go, not 99%: they stay in blocks of 16",
        "33% of its 24 channels go, not 99%: they stay in blocks of 16",
    ]


def test_every_constant_that_was_cut_is_told_by_its_new_name():
    text = """(float[1,8,4,4] x) => (float[1,2,4,4] y, float[8,8,1,1] z)
        <float[8,8,1,1] w, float[8] c, float[2,8,1,1] v> {
        a = Conv (x, w, c)  b = Relu (a)  k = Conv (b, w, c)  d = Relu (k)  y = Conv (d, v)  z = Identity (w) }"""
    graph = parse_graph(text)
    before = {constant.name: constant.values for constant in graph.initializers()}
    told = prune(graph, ratio=0.5, align=1).details["weights"]
    cut = [c for c in graph.initializers() if c.values.shape != before.get(c.name, np.empty(0)).shape]
    assert sorted(told) == sorted(c.name for c in cut)
    for constant in cut:
        expected = before[told[constant.name]["was"]]
        for axis, places in told[constant.name]["axes"].items():
            expected = np.take(expected, places, int(axis))
        np.testing.assert_array_equal(constant.values, expected)


def test_weights_that_are_inputs_say_so():
    model = parse_graph(CHAIN).to_proto()
    model.graph.input.extend(make_tensor_value_info(w.name, w.data_type, w.dims) for w in model.graph.initializer)
    record = prune(Graph.from_proto(model), ratio=0.5)
    assert not record.changed
    assert any("its weights are inputs, too" in why for _, why in record.notes)
