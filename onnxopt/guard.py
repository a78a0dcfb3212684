"""Never hand back a slower model in silence: each stage is timed against the graph before it, and undone if slower.

So is a stage whose result the target's runtime cannot run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxopt.errors import OptimizationError
from onnxopt.graph import Graph
from onnxopt.manager import Observer, run_step
from onnxopt.pass_api import Context
from onnxopt.pipeline import Stage
from onnxopt.report.record import StageRecord
from onnxopt.runtime.latency import Comparison

Judge = Callable[[Graph, Graph], Comparison]


@dataclass(frozen=True)
class Attempt:
    """One stage that was run.

    Attributes:
        graph: The graph to go on with.
        record: What happened.
        made: What the stage made, whether it is gone on with or not; None if it cannot be run.
    """

    graph: Graph
    record: StageRecord
    made: Graph | None


def run_stage(
    stage: Stage, graph: Graph, context: Context, observers: Sequence[Observer], judge: Judge | None
) -> Attempt:
    """Run one stage, and undo it if the model is slower by more than the measured spread, or cannot be run any more.

    Args:
        stage: What to run.
        graph: The graph before it; not changed.
        context: Shared by all stages.
        observers: Watch every pass.
        judge: Times the graph before and after; None where the target cannot run here or nothing may be undone.
    """
    record = StageRecord(stage.text)
    after = graph.copy()
    for step in stage.steps:
        records = run_step(step, after, context, observers)
        record.steps.append((step, records))
    if judge is None or not any(r.changed for r in record.passes):
        return Attempt(after, record, after)
    try:
        timing = judge(graph, after)
    except OptimizationError as error:
        record.kept = False
        record.reason = f"what it made cannot be run on {context.target.name} ({error}); undone"
        return Attempt(graph, record, None)
    before, now = timing.latencies
    record.latency = {
        "before_ms": before.milliseconds.median,
        "after_ms": now.milliseconds.median,
        "speedup": now.speedup.median,
        "spread": now.speedup.spread,
    }
    if now.slower():
        record.kept = False
        record.reason = (
            f"slower on {context.target.name}: {before.milliseconds.median:.2f} ms before, "
            f"{now.milliseconds.median:.2f} ms after ({now.speedup.median:.2f} x ± {now.speedup.spread:.2f}); undone"
        )
        return Attempt(graph, record, after)
    return Attempt(after, record, after)
