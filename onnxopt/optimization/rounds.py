"""The rounds of a pipeline's stages: with all of them, and with some left out.

What each lossy stage does alone stands beside what they do together: does pruning pay beside int8?
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxopt.evaluation import measure
from onnxopt.evaluation.budget import Verdict
from onnxopt.evaluation.metrics import Metric, score
from onnxopt.evaluation.samples import JUDGED_SAMPLES, Samples
from onnxopt.graph import Graph
from onnxopt.guard import Attempt
from onnxopt.pass_api import Context
from onnxopt.pipeline import Stage
from onnxopt.report.record import StageRecord
from onnxopt.report.run import Alone
from onnxopt.runtime.adapter import Runtime, prepared
from onnxopt.runtime.latency import compare

ROUNDS, SECONDS = 30, 20.0  # of timing

NOTHING, ALL, HANDED_BACK = "the model as given", "all stages", "handed back"


@dataclass(frozen=True)
class Round:
    """All stages gone through once.

    Attributes:
        context: What they shared.
        graph: What came out.
        attempts: What became of each; None where one was left out.
        records: What there is to say of each.
        verdict: Whether the budget is kept; None where there is none.
    """

    context: Context
    graph: Graph
    attempts: list[Attempt | None]
    records: list[StageRecord]
    verdict: Verdict | None

    @property
    def tried(self) -> list[int]:
        """Places of the stages that changed what the model gives, whether they were kept or not."""
        return [i for i, attempt in enumerate(self.attempts) if attempt is not None and attempt.record.is_lossy]

    @property
    def lossy(self) -> list[int]:
        """Those that were kept."""
        return [i for i in self.tried if self.records[i].kept]

    def has_alone(self, index: int) -> bool:
        """Whether a stage was run with no lossy one before it."""
        return self.attempts[index] is not None and not any(i < index for i in self.lossy)

    def missed_with(self, index: int) -> StageRecord:
        """The record of a stage that is undone, for the budget is missed."""
        return self._undone(index, f"with it the accuracy budget is missed ({self.verdict})")

    def slower_with(self, index: int, together: float, without: float) -> StageRecord:
        """The record of a stage that is undone, for others are faster without it; times in milliseconds."""
        return self._undone(index, f"slower with it: {together:.2f} ms, {without:.2f} ms without it")

    def _undone(self, index: int, reason: str) -> StageRecord:
        return replace(self.records[index], kept=False, reason=f"{reason}; undone")


def stages_alone(stages: Sequence[Stage], given: Graph, rounds: Sequence[Round], final: Round) -> dict[str, Graph]:
    """What every lossy stage makes by itself of the model as given.

    Args:
        stages: The pipeline.
        given: The model as given.
        rounds: The first has all stages.
        final: The one that holds.

    Returns:
        Text of a stage to graph: the model as given first, then each stage, then what all made together, which is left
        out where one was undone before the last; at the end what is handed back, unless it is one of those. A stage
        that no round has alone is left out.
    """
    found = {NOTHING: given}
    lossy = rounds[0].tried
    for index in lossy:
        made = next((a.made for r in rounds if r.has_alone(index) and (a := r.attempts[index]) is not None), None)
        if made is not None:
            found[stages[index].text] = made
    together = rounds[0].attempts[lossy[-1]]
    if rounds[0].lossy == lossy:
        found[ALL] = rounds[0].graph
    elif together is not None and together.made is not None and rounds[0].lossy == lossy[:-1]:
        found[ALL] = together.made
    if not any(graph is final.graph for graph in found.values()):
        found[HANDED_BACK] = final.graph
    return found


def faster_alone(final: Round, rounds: Sequence[Round], rows: Sequence[Alone]) -> Round:
    """The round of one stage that keeps to the budget and is faster than all together, or else the final one.

    Args:
        final: With all stages.
        rounds: All there are.
        rows: What was measured.
    """
    timed = {row.stages: row for row in rows}
    together, best = timed.get(ALL), final
    if together is None or len(final.lossy) < 2:
        return final
    limit = together.speedup + together.spread
    for each in rounds:
        row = timed.get(each.records[each.lossy[0]].text) if len(each.lossy) == 1 else None
        if row is not None and (each.verdict is None or each.verdict.met) and row.speedup - row.spread > limit:
            left_out = {i: final.slower_with(i, together.latency_ms, row.latency_ms) for i in final.lossy}
            records = [r if i in each.lossy else left_out.get(i, r) for i, r in enumerate(each.records)]
            best, limit = replace(each, records=records), row.speedup
    return best


def measured(
    graphs: Mapping[str, Graph],
    runtime: Runtime,
    samples: Samples,
    metric: Metric | None,
    macs: Callable[[Graph], int],
    size: Callable[[Graph], int],
) -> list[Alone]:
    """Size, latency and quality of each, against the first.

    Args:
        graphs: Name to graph.
        runtime: The target's.
        samples: What to run them on.
        metric: The user's; None: only the likeness to the first is known.
        macs: Multiply-accumulates of a graph.
        size: Bytes of the files that it is written to.
    """
    feeds = next(iter(samples.holdout)).feeds
    sessions = {name: runtime.open(graph.to_proto()) for name, graph in graphs.items()}
    timing = compare({n: prepared(s, feeds) for n, s in sessions.items()}, rounds=ROUNDS, seconds=SECONDS)
    first = next(iter(graphs))
    rows = []
    for name, graph in graphs.items():
        likeness = measure.quality(
            sessions[first], sessions[name], samples.holdout.take(JUDGED_SAMPLES), graphs[first].metadata, strict=False
        )
        rows.append(
            Alone(
                stages=name,
                bytes=size(graph),
                macs=macs(graph),
                latency_ms=timing[name].milliseconds.median,
                speedup=timing[name].speedup.median,
                spread=timing[name].speedup.spread,
                score=None if metric is None else score(metric, sessions[name].run, samples.evaluation).value,
                worst_sqnr_db=likeness["worst_sqnr_db"],
            )
        )
    return rows
