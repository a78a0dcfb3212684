"""What each lossy stage of a pipeline does alone, beside what they do together: does pruning pay beside int8?"""

from collections.abc import Callable, Mapping, Sequence

from onnxopt.errors import OnnxoptError
from onnxopt.evaluation import measure
from onnxopt.evaluation.metrics import Metric, score
from onnxopt.evaluation.samples import JUDGED_SAMPLES, Samples
from onnxopt.graph import Graph
from onnxopt.manager import run_step
from onnxopt.pass_api import Context
from onnxopt.pipeline import Stage
from onnxopt.report.record import StageRecord
from onnxopt.report.run import Alone
from onnxopt.runtime.adapter import Runtime, prepared
from onnxopt.runtime.latency import compare

ROUNDS, SECONDS = 30, 20.0

NOTHING, ALL = "the model as given", "all stages"


def stages_alone(
    stages: Sequence[Stage],
    records: Sequence[StageRecord],
    graphs: Sequence[Graph],
    fresh: Callable[[], Context],
) -> dict[str, Graph]:
    """Run every lossy stage by itself on the model as given, if two or more have changed it.

    Args:
        stages: The pipeline.
        records: What became of each.
        graphs: The model as given, then the graph after each stage.
        fresh: Makes a context that knows nothing of the run before.

    Returns:
        Text of a stage to graph, the model as given first and the last graph last; empty for fewer lossy stages. A
        stage that needs one before it is left out.
    """
    lossy = lossy_stages(records)
    if len(lossy) < 2:
        return {}
    found = {NOTHING: graphs[0]}
    for place, index in enumerate(lossy):
        if place == 0:
            found[stages[index].text] = graphs[index + 1]
            continue
        graph, context = graphs[0].copy(), fresh()
        try:
            for step in stages[index].steps:
                run_step(step, graph, context, ())
        except OnnxoptError:
            continue
        found[stages[index].text] = graph
    return {**found, ALL: graphs[-1]}


def lossy_stages(records: Sequence[StageRecord]) -> list[int]:
    """Places of the stages that were kept and changed what the model gives."""
    return [i for i, r in enumerate(records) if r.kept and any(p.changed and p.effect == "lossy" for p in r.passes)]


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
