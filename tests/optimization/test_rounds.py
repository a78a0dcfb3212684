"""Several lossy stages: which of them stay, and that each is shown alone."""

import json

import jsonschema
import numpy as np
import pytest

from onnxopt import OptimizationError, Pass, optimize, option
from onnxopt.graph import Variable
from onnxopt.guard import Attempt
from onnxopt.optimization.rounds import ALL, HANDED_BACK, NOTHING, Round, faster_alone
from onnxopt.report.record import PassRecord, StageRecord
from onnxopt.report.run import SCHEMA, Alone
from onnxopt.report.summary import summary
from onnxopt.runtime.latency import Latency
from onnxopt.testing import parse_graph

NET = "(float[1,9,99,99] x) => (float[1,9,99,99] y) <float[1] w = {1}> { a = Mul (x, w) y = Tanh (a) }"
FEEDS = [{"x": np.full((1, 9, 99, 99), value, np.float32)} for value in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)]

CONVS = """(float[1,3,16,16] x) => (float[1,8,10,10] y)
<float[32,3,3,3] w1, float[32,32,3,3] w2, float[8,32,3,3] w3> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = Relu (c)
  y = Conv (d, w3)
}"""


class Shrink(Pass):
    """Make the outputs smaller; the metric below is their size."""

    name = "shrink"
    effect = "lossy"

    by: float = option(default=0.05, help="Share.")
    after: str = option(default="", help="Only after the pass of this mark.")
    mark: str = option(default="first", help="What to leave in the metadata.")

    def run(self, graph, context):
        if self.after and self.after not in graph.metadata:
            return False
        weight = graph.own_constant(graph.nodes[0], 1)
        weight.values = weight.values * np.float32(1 - self.by)
        graph.set_metadata(self.mark, "done")
        return True


def run(*passes, target="tensorrt"):
    metric = lambda outputs, sample: float(np.arctanh(outputs["y"]).mean() / sample.feeds["x"].mean())  # noqa: E731
    return optimize(parse_graph(NET), list(passes), data=FEEDS, metric=metric, max_drop="10%", target=target)


def test_the_first_of_two_gives_way():
    result = run(Shrink(by=0.05), Shrink(by=0.08, mark="second"))
    first, second = result.report.stages
    assert not first.kept
    assert first.reason.startswith("with it the accuracy budget is missed (")
    assert second.kept
    assert result.report.budget["after"] == pytest.approx(0.92, abs=1e-3)


def test_the_first_comes_back_where_the_second_does_nothing_without_it():
    result = run(Shrink(by=0.05), Shrink(by=0.2, after="first", mark="second"))
    first, second = result.report.stages
    assert first.kept
    assert not second.kept
    assert "to 0.7600 on 2 pictures" in second.reason
    assert result.report.budget["after"] == pytest.approx(0.95, abs=1e-3)
    assert "second" not in result.graph.metadata


def test_no_stage_that_keeps_to_the_budget_is_an_error():
    with pytest.raises(OptimizationError, match="max drop 10% allows"):
        run(Shrink(by=0.2), Shrink(by=0.3, mark="second"))


@pytest.fixture
def equally_fast(monkeypatch):
    """Stages that change no time are not undone for what a busy machine makes of it; the budget alone decides."""
    monkeypatch.setattr(Latency, "slower", lambda self: False)


@pytest.mark.usefixtures("equally_fast")
def test_the_table_shows_what_was_undone():
    report = run(Shrink(by=0.05), Shrink(by=0.08, mark="second"), target="ort").report
    assert [stage.kept for stage in report.stages] == [False, True]
    assert [row.stages for row in report.alone] == [NOTHING, *(stage.text for stage in report.stages), ALL]
    assert [row.score for row in report.alone] == pytest.approx([1, 0.95, 0.92, 0.874], abs=1e-3)


def a_round(*kept, passes=("prune", "quantize")):
    """A round of two stages, of which some were kept; the others were left out."""
    graph = parse_graph(NET)
    records = [StageRecord(name, [(None, [PassRecord(name, {}, "lossy", changed=True)])]) for name in passes]
    attempts = [Attempt(graph, r, graph) if r.text in kept else None for r in records]
    return Round(None, graph, attempts, records, None)


def row(name, speedup):
    return Alone(name, 1, 1, 10 / speedup, speedup, 0.02, None, 20.0)


@pytest.mark.parametrize(("quantized", "kept"), [(1.5, ["quantize"]), (1.31, ["prune", "quantize"])])
def test_a_stage_alone_holds_where_it_is_clearly_faster(quantized, kept):
    both, single = a_round("prune", "quantize"), a_round("quantize")
    rows = [row(NOTHING, 1.0), row("prune", 1.02), row("quantize", quantized), row(ALL, 1.29)]
    best = faster_alone(both, [both, single], rows)
    assert [r.text for r in best.records if r.kept] == kept
    if kept == ["quantize"]:
        assert best.records[0].reason == "slower with it: 7.75 ms, 6.67 ms without it; undone"


@pytest.mark.usefixtures("equally_fast")
def test_the_table_ends_with_what_is_handed_back_where_that_is_none_of_the_others():
    stages = (Shrink(by=0.03), Shrink(by=0.05, mark="second"), Shrink(by=0.02, mark="third"))
    report = run(Shrink(by=0.06, mark="zeroth"), *stages, target="ort").report
    kept = [stage.text for stage in report.stages if stage.kept]
    assert 1 < len(kept) < 4
    assert [row.stages for row in report.alone][-1] == HANDED_BACK
    assert report.alone[-1].score == pytest.approx(report.budget["after"], abs=1e-3)


@pytest.fixture(scope="module")
def feeds():
    generator = np.random.default_rng(0)
    return [{"x": generator.random((1, 3, 16, 16), np.float32)} for _ in range(6)]


@pytest.fixture(scope="module")
def report(feeds):
    passes = "prune{ratio=0.5, align=1, compensation=false},quantize{recover=off}"
    return optimize(parse_graph(CONVS), passes, data=feeds, keep_anyway=True).report


def test_each_stage_is_measured_alone(report):
    nothing, prune, quantize, both = report.alone
    assert [row.stages for row in report.alone] == [NOTHING, *(s.text for s in report.stages), ALL]
    assert (nothing.speedup, nothing.worst_sqnr_db) == (1.0, float("inf"))
    assert prune.macs == both.macs < quantize.macs == nothing.macs
    assert both.bytes < prune.bytes < nothing.bytes
    assert both.bytes == pytest.approx(report.after.bytes, abs=3000)  # the run signs the model
    assert both.worst_sqnr_db == report.quality["worst_sqnr_db"] < quantize.worst_sqnr_db


def test_the_report_holds_it(report):
    document = json.loads(report.to_json())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert [row["stages"] for row in document["alone"]] == [row.stages for row in report.alone]
    assert f"\n{ALL}" in summary(report)


def test_one_lossy_stage_has_nothing_to_be_compared_with(feeds):
    report = optimize(parse_graph(CONVS), "simplify,quantize{recover=off}", data=feeds, keep_anyway=True).report
    assert report.alone == []
    assert "stage alone" not in summary(report)


class Foreign(Pass):
    """Put an operator behind the model that no runtime knows."""

    name = "foreign"
    effect = "lossy"

    def run(self, graph, context):
        made = graph.outputs[0]
        inner = Variable(graph.unique_name("inner"), np.float32)
        graph.producer(made).outputs[0] = inner
        graph.add_node("Unheard", [inner], outputs=[made], domain="com.example")
        graph.set_opset("com.example", 1)
        return True


def test_a_stage_whose_result_cannot_be_loaded_is_undone(feeds):
    result = optimize(parse_graph(CONVS), [Foreign(), "simplify"], data=feeds, verify="structure")
    foreign, simplified = result.report.stages
    assert not foreign.kept
    assert foreign.reason.startswith("what it made cannot be run on ort")
    assert "com.example:Unheard" in foreign.reason
    assert foreign.reason.endswith("; undone")
    assert simplified.kept
    assert not list(result.graph.nodes_of("Unheard"))


def test_what_cannot_be_loaded_stands_in_no_table(feeds):
    report = optimize(parse_graph(CONVS), [Foreign(), "quantize{recover=off}"], data=feeds, verify="structure").report
    assert "foreign" not in [row.stages for row in report.alone]


def test_what_cannot_be_loaded_is_not_handed_back_even_if_asked_for(feeds):
    with pytest.raises(OptimizationError, match="cannot load"):
        optimize(parse_graph(CONVS), [Foreign()], data=feeds, verify="structure", keep_anyway=True)


class Narrow(Pass):
    """Cut a weight, but not what it is multiplied with."""

    name = "narrow"
    effect = "lossy"

    def run(self, graph, context):
        weight = graph.own_constant(graph.nodes[2], 1)
        weight.values = weight.values[:, :9]
        return True


def test_a_stage_whose_result_loads_and_does_not_run_is_undone(feeds):
    passes = [Narrow(), "simplify"]
    narrow, simplified = optimize(parse_graph(CONVS), passes, data=feeds, verify="off").report.stages
    assert (narrow.kept, simplified.kept) == (False, True)
    assert narrow.reason.startswith("what it made cannot be run on ort")


def test_a_pass_that_breaks_a_model_is_named_by_its_checks(feeds):
    with pytest.raises(OptimizationError, match="pass foreign left a model that does not run: ONNX Runtime cannot"):
        optimize(parse_graph(CONVS), [Foreign()], data=feeds, verify="outputs")
