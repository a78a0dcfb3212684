"""Stages that together miss a budget: which of them stay, and what the report shows of all."""

import numpy as np
import pytest

from onnxopt import OptimizationError, Pass, optimize, option
from onnxopt.guard import Attempt
from onnxopt.optimization.rounds import ALL, NOTHING, Round, faster_alone
from onnxopt.report.record import PassRecord, StageRecord
from onnxopt.report.run import Alone
from onnxopt.testing import parse_graph

# Large enough to be timed: a stage must not be undone by chance.
NET = "(float[1,9,99,99] x) => (float[1,9,99,99] y) <float[1] w = {1}> { a = Mul (x, w) y = Tanh (a) }"
FEEDS = [{"x": np.full((1, 9, 99, 99), value, np.float32)} for value in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)]


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
