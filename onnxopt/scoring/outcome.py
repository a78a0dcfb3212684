"""What an evaluation found, put into its report: score, agreement, latency, gates."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from onnxopt import gates
from onnxopt.data import Feeds
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.decoding import Decoder, parse_decoder
from onnxopt.evaluation.interval import Interval, drop_interval, score_interval
from onnxopt.evaluation.metrics import PERCENT, Metric, Score
from onnxopt.optimization.subject import Subject
from onnxopt.report.evaluation import Compared, Evaluation, Speed
from onnxopt.runtime import latency
from onnxopt.runtime.adapter import Session, prepared

ROUNDS, SECONDS = 30, 20.0


def described(subject: Subject) -> dict[str, Any]:
    """Source, digest and bytes of a model."""
    return {"source": str(subject.graph.source), "digest": subject.digest, "bytes": subject.figures.bytes}


def add_score(report: Evaluation, metric: Metric, score: Score) -> None:
    """Add the model's score with its interval and details."""
    evidence = score.evidence()
    report.metric, report.lower_is_better, report.point = metric.name, metric.lower_is_better, metric.point
    report.score, report.details = score.value, dict(score.details())
    report.interval = score_interval(evidence) if evidence is not None else None


def nothing_fits(metric: Metric, score: Score, decode: str | None, usual: Decoder | None) -> list[str]:
    """What to look at where not a single answer is right, which no trained model deserves.

    Args:
        metric: What was measured.
        score: Of the model.
        decode: Decoder that the user named.
        usual: The one that is found where none is named.
    """
    if score.value != 0 or metric.lower_is_better or metric.point != PERCENT:
        return []
    said = f"{metric.name} is 0: nothing that the model says fits the labels; `onnxopt doctor` tells what may be wrong"
    if decode is not None and usual is not None and usual.name != parse_decoder(decode)[0]:
        said += f", and without --decode the outputs are read by '{usual.name}'"
    return [said]


def compared(reference: Subject, comparison: Comparison, metric: Metric | None, scores: Sequence[Score]) -> Compared:
    """How far the model agrees with the float model, and how much of its score is lost.

    Args:
        reference: The float model.
        comparison: Of the outputs of both.
        metric: What was measured, if anything.
        scores: By the metric, of the model and of the float model.
    """
    agreement = comparison.result()
    parts = {name: distance.sqnr_db for name, distance in agreement.parts.items()}
    found = Compared(
        described(reference),
        top1=agreement.top1,
        detections=agreement.detections,
        texts=agreement.texts,
        parts=parts,
    )
    if metric is None:
        return found
    after, before = scores
    sign = -1.0 if metric.lower_is_better else 1.0
    drop = sign * (before.value - after.value)
    return replace(found, score=before.value, drop=drop, drop_interval=_drop_interval(before, after, sign))


def _drop_interval(before: Score, after: Score, sign: float) -> Interval | None:
    first, second = before.evidence(), after.evidence()
    if first is None or second is None:
        return None
    return drop_interval(first, second, sign=sign)


def with_latency(speed: Speed, sessions: Sequence[Session], feeds: Feeds) -> Speed:
    """Add the latency of one run, measured in rounds, against that of the float model where there is one.

    Args:
        speed: What is known.
        sessions: The model, and the float model.
        feeds: What one run is fed.
    """
    runs = {str(i): prepared(session, feeds) for i, session in enumerate(reversed(sessions))}
    found = latency.compare(runs, rounds=ROUNDS, seconds=SECONDS).latencies
    ours = found[-1]
    speed = replace(speed, latency_ms=ours.milliseconds.median, latency_spread_ms=ours.milliseconds.spread)
    if len(found) == 1:
        return speed
    return replace(speed, reference_ms=found[0].milliseconds.median, speedup=ours.speedup.median)


def judge(report: Evaluation, wanted: Iterable[gates.Gate]) -> None:
    """Add how each gate went.

    Raises:
        GateMissed: One was missed.
    """
    outcomes = gates.judge_gates(wanted, _figures(report))
    report.gates = [outcome.to_dict() for outcome in outcomes]
    gates.refuse_missed(outcomes, report)


def _figures(report: Evaluation) -> dict[str, gates.Figure]:
    """What gates are judged by; relative ones have been refused where there is no reference."""
    compared, speed = report.compared, report.speed
    found = {"size": gates.Figure(report.model["bytes"], compared.model["bytes"] if compared is not None else None)}
    if report.score is not None and report.metric is not None:
        before = compared.score if compared is not None else None
        found[gates.SCORE] = found[report.metric] = gates.Figure(report.score, before, report.point)
    if speed.latency_ms is not None:
        found["latency"] = gates.Figure(speed.latency_ms, speed.reference_ms)
    if speed.speedup is not None:
        found["speedup"] = gates.Figure(speed.speedup, 1.0)
    if compared is not None and compared.share is not None:
        found["agreement"] = gates.Figure(compared.share, 1.0, point=0.01)
    if compared is not None and compared.worst_sqnr_db is not None:
        found["sqnr"] = gates.Figure(compared.worst_sqnr_db)
    return found
