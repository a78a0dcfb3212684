"""What each lossy stage of a pipeline does alone, beside what they do together: does pruning pay beside int8?"""

from collections.abc import Callable, Mapping, Sequence

from onnxopt.errors import OnnxoptError
from onnxopt.evaluation import measure
from onnxopt.evaluation.metrics import Metric, score
from onnxopt.evaluation.samples import JUDGED_SAMPLES, Samples
from onnxopt.graph import Graph
from onnxopt.guard import Attempt
from onnxopt.manager import run_step
from onnxopt.pass_api import Context
from onnxopt.pipeline import Stage
from onnxopt.report.run import Alone
from onnxopt.runtime.adapter import Runtime, prepared
from onnxopt.runtime.latency import compare

ROUNDS, SECONDS = 30, 20.0

NOTHING, ALL = "the model as given", "all stages"


def stages_alone(
    stages: Sequence[Stage],
    given: Graph,
    rounds: Sequence[Sequence[Attempt | None]],
    fresh: Callable[[], Context],
) -> dict[str, Graph]:
    """What every lossy stage makes by itself of the model as given, if two or more have changed it.

    Args:
        stages: The pipeline.
        given: The model as given.
        rounds: What became of each stage, each time that they were gone through; None where one was left out. The
            first time all are run.
        fresh: Makes a context that knows nothing of the run before.

    Returns:
        Text of a stage to graph, the model as given first and what all made together last; empty for fewer lossy
        stages. A stage that needs one before it is left out, and so is the last one where another was undone.
    """
    first = rounds[0]
    lossy = [i for i, attempt in enumerate(first) if attempt is not None and attempt.record.is_lossy]
    if len(lossy) < 2:
        return {}
    found = {NOTHING: given}
    for index in lossy:
        known = (r[index] for r in rounds if not any(a and a.record.kept and a.record.is_lossy for a in r[:index]))
        attempt = next((a for a in known if a is not None), None)
        graph = attempt.made if attempt is not None else _alone(stages[index], given, fresh())
        if graph is not None:
            found[stages[index].text] = graph
    together = [first[index] for index in lossy]
    if all(attempt and attempt.record.kept for attempt in together[:-1]) and together[-1]:
        found[ALL] = together[-1].made
    return found


def _alone(stage: Stage, given: Graph, context: Context) -> Graph | None:
    graph = given.copy()
    try:
        for step in stage.steps:
            run_step(step, graph, context, ())
    except OnnxoptError:
        return None
    return graph


def measured(
    graphs: Mapping[str, Graph],
    runtime: Runtime,
    samples: Samples,
    metric: Metric | None,
    macs: Callable[[Graph], int],
) -> list[Alone]:
    """Size, latency and quality of each, against the first.

    Args:
        graphs: Name to graph.
        runtime: The target's.
        samples: What to run them on.
        metric: The user's; None: only the likeness to the first is known.
        macs: Multiply-accumulates of a graph.
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
                bytes=graph.to_proto().ByteSize(),
                macs=macs(graph),
                latency_ms=timing[name].milliseconds.median,
                speedup=timing[name].speedup.median,
                spread=timing[name].speedup.spread,
                score=None if metric is None else score(metric, sessions[name].run, samples.evaluation).value,
                worst_sqnr_db=likeness["worst_sqnr_db"],
            )
        )
    return rows
