"""What came out beside what came in: outputs, score, latency, and which layers really run in int8."""

from dataclasses import asdict

from onnxopt.analysis.cost import Cost
from onnxopt.errors import OptimizationError, Unloadable, UsageError
from onnxopt.evaluation import measure
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.evaluation.interval import drop_interval
from onnxopt.evaluation.metrics import Metric, Score, score
from onnxopt.evaluation.samples import JUDGED_SAMPLES, Samples
from onnxopt.graph import Graph
from onnxopt.optimization.subject import UNLIKE, Subject
from onnxopt.placement.retarget import is_quantized
from onnxopt.report.run import RunReport
from onnxopt.runtime.adapter import Runtime, Session
from onnxopt.runtime.latency import Comparison
from onnxopt.runtime.ort import OrtSession

CLOSE = 50.0  # dB; what lies beyond is rounding
FAULT = 8.0  # dB that a runtime may lose beside int8: float layers in bf16 and approximated activations
ROUNDS, SECONDS = 30, 20.0  # of the final latency comparison; a stage's own is a third of that


def measure_outcome(
    subject: Subject,
    graph: Graph,
    size: int | None,
    samples: Samples,
    metric: Metric | None,
    report: RunReport,
    *,
    strict: bool,
) -> None:
    """Fill in what a report says of the optimized model, and of the model as it came.

    Args:
        subject: The model as it came.
        graph: What came out.
        size: Bytes of the files that it is written to; None: those of its weights.
        samples: Held-out ones to compare outputs on, and those to score on.
        metric: How to score; a report with a budget holds its scores already.
        report: Is filled in.
        strict: Refuse outputs that are not finite.

    Raises:
        OptimizationError: Outputs are NaN or infinite where those of the original are not, or it cannot be run.
        UsageError: The target cannot run the original either.
    """
    costs = measure.cost(graph, subject.target, subject.inputs)
    after = report.after = measure.figures(graph, costs, size)
    if metric is not None and report.budget is not None:
        report.before.score, after.score = report.budget["before"], report.budget["after"]
    if subject.runtime is None:
        return
    sessions = (subject.open(subject.runtime), _opened(subject, graph, subject.runtime))
    report.quality = measure.quality(
        *sessions, samples.holdout.take(JUDGED_SAMPLES), subject.graph.metadata, strict=strict
    )
    fault = _not_as_written(subject, graph, sessions, samples)
    if fault:
        report.warnings.append(fault)
    elif report.quality["worst_sqnr_db"] < UNLIKE:
        report.warnings.append(
            f"the outputs are hardly those of the model as given ({report.quality['worst_sqnr_db']:.1f} dB): "
            "ask for less"
        )
    if metric is not None and report.budget is None:
        scores = [score(metric, s.run, samples.evaluation) for s in sessions]
        report.before.score, after.score = (found.value for found in scores)
        report.quality["drop"] = _drop(scores[0], scores[1], metric)
    if not subject.only_after:
        timing = time_stage(subject.runtime, subject.graph, graph, samples, seconds=SECONDS)
        _note_latency(timing, report)
    _note_fusion(subject, graph, report, costs, subject.runtime)


def _opened(subject: Subject, graph: Graph, runtime: Runtime) -> Session:
    """What came out, on the target.

    Raises:
        UsageError: The target does not take it, nor what came in.
        OptimizationError: It took what came in.
    """
    try:
        return runtime.open(graph.to_proto())
    except Unloadable as error:
        if subject.only_after:
            raise UsageError(
                f"{subject.graph.source}: {error}; no pass made it run on {subject.target.name}"
            ) from error
        raise OptimizationError(
            f"what the passes made cannot be run on {subject.target.name} ({error}); nothing is written (without "
            "--keep-anyway the stage at fault is undone)"
        ) from error


def _not_as_written(subject: Subject, graph: Graph, sessions: tuple[Session, Session], samples: Samples) -> str:
    """That the target computes clearly worse outputs than the Q/DQ define, by which all was judged; else empty."""
    if not is_quantized(graph) or is_quantized(subject.graph):
        return ""
    feeds = next(iter(samples.holdout)).feeds
    wanted, got = ([session.run(feeds)] for session in sessions)
    run = worst_sqnr(wanted, got)
    written = worst_sqnr(wanted, [OrtSession(graph.to_proto(), optimized=False).run(feeds)])
    if run >= min(written, CLOSE) - FAULT:
        return ""
    return (
        f"{subject.target.name} computes something else than what is written: its outputs have {run:.1f} dB to the "
        f"model as given, those of the graph as ONNX defines it {written:.1f} dB"
    )


def _drop(before: Score, after: Score, metric: Metric) -> dict[str, float] | None:
    """How much of the score is probably lost; None for metrics that can only be computed over a whole set."""
    evidence = before.evidence(), after.evidence()
    if evidence[0] is None or evidence[1] is None:
        return None
    return asdict(drop_interval(evidence[0], evidence[1], sign=-1.0 if metric.lower_is_better else 1.0))


def time_stage(
    runtime: Runtime, before: Graph, after: Graph, samples: Samples, seconds: float = SECONDS / 3
) -> Comparison:
    """Latency of two graphs on a held-out sample, interleaved, one thread."""
    feeds = next(iter(samples.holdout)).feeds
    return measure.time_pair(runtime, before, after, feeds, rounds=ROUNDS, seconds=seconds)


def _note_latency(timing: Comparison, report: RunReport) -> None:
    assert report.after is not None
    for measured, latency in zip((report.before, report.after), timing.latencies, strict=True):
        measured.latency_ms = latency.milliseconds.median
        measured.latency_spread_ms = latency.milliseconds.spread
    speedup = timing.latencies[1].speedup
    report.speedup = {"median": speedup.median, "spread": speedup.spread, "rounds": timing.rounds}


def _note_fusion(subject: Subject, graph: Graph, report: RunReport, costs: Cost, runtime: Runtime) -> None:
    assert report.after is not None
    kernels = measure.read_kernels(graph, runtime)
    macs = measure.macs_by_name(graph, costs)
    report.after.int8_share = measure.int8_share(kernels, macs)
    if not is_quantized(subject.graph):
        report.before.int8_share = 0.0
    elif not subject.only_after:
        found = measure.read_kernels(subject.graph, runtime)
        report.before.int8_share = measure.int8_share(found, measure.macs_by_name(subject.graph, subject.costs))
    reasons = {where: why for stage in report.stages for r in stage.passes for where, why in r.notes}
    report.unfused = [
        {"node": name, "macs": count, "reason": next((w for k, w in reasons.items() if f"'{name}'" in k), "")}
        for name, count in sorted(macs.items(), key=lambda item: -item[1])
        if name in kernels.floating
    ]
