"""Budgets of `prune` that take more than counting: latency on the target, and accuracy lost."""

import numpy as np
import pytest

from onnxopt import Context, UsageError, optimize
from onnxopt.analysis.cost import Cost
from onnxopt.data import InputSpec, open_dataset
from onnxopt.manager import run_pass
from onnxopt.pipeline import resolve
from onnxopt.report.record import PassRecord
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import parse_graph
from onnxopt_passes.prune import Prune

WIDE = """(float[1,3,24,24] x) => (float[1,2,24,24] y)
    <float[128,3,1,1] w1, float[128,128,1,1] w2, float[2,128,1,1] w3> {
    a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  d = Relu (c)  y = Conv (d, w3) }"""
INPUTS = (InputSpec("x", (1, 3, 24, 24), np.dtype(np.float32)),)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr("onnxopt.analysis.compensation.fast_enough.ROUNDS", 30)


def feeds(count=9):
    generator = np.random.default_rng(5)
    return [{"x": generator.standard_normal((1, 3, 24, 24)).astype(np.float32)} for _ in range(count)]


def context(target=ORT, *, synthetic=False):
    fit, holdout = open_dataset(feeds(), INPUTS, role="calibration").split_holdout()
    return Context(target, inputs=INPUTS, fit=fit, holdout=holdout, synthetic=synthetic)


def macs(graph):
    found = Context(ORT, inputs=INPUTS)
    found.bind(graph, PassRecord("cost"))
    return found.get(Cost).total_macs


def test_a_latency_is_reached_by_cutting_and_becomes_a_share_of_the_macs():
    graph, where = parse_graph(WIDE), context()
    before = macs(graph)
    record = run_pass(Prune(latency="0.7", align=8), graph, where, [])
    assert record.changed
    assert record.options["latency"] is None
    assert macs(graph) <= record.options["macs"] * before < before
    assert " of the MACs: " in record.details["latency"][0]


def test_a_latency_that_is_kept_already_removes_nothing():
    graph = parse_graph(WIDE)
    record = run_pass(Prune(latency="100000ms"), graph, context(), [])
    assert not record.changed
    assert record.options["macs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": 4}, "milliseconds like 4.2ms or a share like 0.8, got '4.0'"),
        ({"latency": "soon"}, "milliseconds like"),
        ({"latency": "0.5", "macs": 0.5}, "macs or latency, not both"),
        ({"latency": "0.000001ms"}, "cannot reach 1e-06 ms"),
    ],
)
def test_latencies_that_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        run_pass(Prune(**options), parse_graph(WIDE), context(), [])


def test_a_share_of_the_latency_may_be_written_without_quotes():
    [stage] = resolve("prune{latency=0.7}")
    assert stage.passes == [Prune(latency=0.7)]
    trials = run_pass(Prune(latency=0.7, align=8), parse_graph(WIDE), context(), [])
    assert not [reason for _, reason in trials.notes if "the least that can remain" in reason]


def test_a_latency_as_now_is_not_even_measured():
    record = run_pass(Prune(latency=1), parse_graph(WIDE), context(), [])
    assert not record.changed
    assert "latency" not in record.details


def test_a_target_that_is_not_here_has_no_latency():
    with pytest.raises(UsageError, match="tensorrt cannot run here; give macs"):
        run_pass(Prune(latency="0.5"), parse_graph(WIDE), context(TENSORRT), [])


def test_made_up_samples_are_not_asked_about_damage():
    graph = parse_graph(WIDE)
    record = run_pass(Prune(macs=0.5, align=1), graph, context(synthetic=True), [])
    assert "sensitivity" not in record.details
    first, second = ([n.inputs[1].shape[0] for n in graph.nodes_of("Conv")])[:2]
    assert first == second < 128


def quality(max_drop):
    result = optimize(parse_graph(WIDE), "prune{align=1}", data=feeds(), max_drop=max_drop, verify="off")
    [stage] = result.report.stages
    return result, stage.passes[0]


def test_an_accuracy_budget_is_kept_by_half(monkeypatch):
    monkeypatch.setattr(
        "onnxopt.analysis.compensation.choosing.TOLERATED", 10.0
    )  # so that the budget, not the damage, decides
    result, record = quality("20%")
    budget = result.report.budget
    assert budget["met"]
    assert budget["drop"] <= budget["allowed"] / 2
    assert record.name == "prune"


def test_where_every_cut_costs_too_much_nothing_goes(monkeypatch):
    monkeypatch.setattr("onnxopt.analysis.compensation.choosing.SPENT", -1.0)
    result, record = quality("20%")
    assert not record.changed
    assert "every cut tried costs more than half of the accuracy budget" in {reason for _, reason in record.notes}
    assert macs(result.graph) == macs(parse_graph(WIDE))


def test_resolved_options_cut_alike_without_measuring():
    graph, again = parse_graph(WIDE), parse_graph(WIDE)
    record = run_pass(Prune(latency="0.7", align=8), graph, context(), [])
    repeated = run_pass(Prune(**record.options), again, context(), [])
    assert "latency" not in repeated.details
    assert again.digest() == graph.digest()
