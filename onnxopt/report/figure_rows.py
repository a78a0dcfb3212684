"""The figures of two models as rows of a table: before, after, and what that means."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from onnxopt.report.document import TIMES, Row, Tone
from onnxopt.report.findings import Findings, Resources
from onnxopt.report.run import Measured, RunReport
from onnxopt.report.table import bytes_text, count_text

NOT_HERE = "not measurable here"
AGREEING = {
    "detections": "detections that agree (F1)",
    "top1": "first classes that agree",
    "texts": "texts that agree",
}
NOTICEABLE = 0.01  # a ratio nearer to 1 is neither good nor bad news


class Figures(Protocol):
    """What is known of a model without its scores and times; see `run.Measured`."""

    @property
    def bytes(self) -> int:
        """Size of the file."""

    @property
    def parameters(self) -> int:
        """Elements of its initializers."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""

    @property
    def int8_share(self) -> float | None:
        """Share of those that run in int8; None where unknown."""


def figure_rows(report: RunReport, found: Findings) -> Iterator[Row]:
    """Rows of everything that was measured of both models.

    Args:
        report: Of the run.
        found: What was measured for the page alone.
    """
    before, after = report.before, report.after or report.before
    yield from _scores(report, before, after)
    yield from _agreement(report)
    yield _latency(report, before, after)
    yield from model_rows(before, after, found)


def model_rows(before: Figures, after: Figures, found: Findings) -> Iterator[Row]:
    """Rows of what two models are made of, and of what they take.

    Args:
        before: The model as given.
        after: The optimized one.
        found: What was measured for the page alone.
    """
    yield smaller_row("file size", before.bytes, after.bytes, bytes_text)
    first, second = found.before, found.after
    if first.compressed_bytes and second.compressed_bytes:
        yield smaller_row("compressed (zlib)", first.compressed_bytes, second.compressed_bytes, bytes_text)
    yield smaller_row("multiply-accumulates", before.macs, after.macs, count_text)
    yield smaller_row("parameters", before.parameters, after.parameters, count_text)
    yield from _resources(first, second)
    if after.int8_share is not None:
        was = "unknown" if before.int8_share is None else f"{before.int8_share:.1%}"
        yield Row("multiply-accumulates in int8", (was, f"{after.int8_share:.1%}"))


def _scores(report: RunReport, before: Measured, after: Measured) -> Iterator[Row]:
    if report.metric is None or before.score is None or after.score is None:
        return
    interval = (report.budget or {}).get("interval") or report.quality.get("drop")
    yield score_row(report.metric, before.score, after.score, interval)


def score_row(metric: str, before: float, after: float, interval: Mapping[str, Any] | None) -> Row:
    """What a model scores.

    Args:
        metric: What was scored.
        before: Score of the model as given.
        after: Of the optimized one.
        interval: Where the loss probably lies: `level`, `low` and `high`; None where that is not known.
    """
    note = signed(after - before, 4)
    if interval is not None:
        level, low, high = f"{interval['level']:.0%}", interval["low"], interval["high"]
        note += f"; lost: {signed(low, 4)} … {signed(high, 4)} ({level} interval)"
    return Row(metric, (f"{before:.4f}", f"{after:.4f}"), note, _tone_of_drop(interval))


def signed(change: float, places: int) -> str:
    """A difference with its sign, as it is printed."""
    return f"{change:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def _tone_of_drop(interval: Mapping[str, Any] | None) -> Tone:
    """Bad or good news only where chance does not explain it."""
    if interval is None or interval["low"] <= 0 <= interval["high"]:
        return ""
    return "bad" if interval["low"] > 0 else "good"


def _agreement(report: RunReport) -> Iterator[Row]:
    quality = report.quality
    for kind, name in AGREEING.items():
        if quality.get(kind) is not None:
            yield Row(name, ("", f"{quality[kind]:.1%}"), f"on {quality['samples']} inputs")
    worst = quality.get("worst_sqnr_db")
    if worst is not None and not math.isnan(worst):
        yield Row("SQNR of the worst output", ("", "equal" if worst == math.inf else f"{worst:.1f} dB"))


def _latency(report: RunReport, before: Measured, after: Measured) -> Row:
    name = f"latency, {report.target['runtime'] or report.target['name']}"
    if before.latency_ms is None or after.latency_ms is None or report.speedup is None:
        return Row(name, ("", ""), f"not measured: {report.target['why_not_measured'] or 'no reason is known'}")
    first, second = [f"{m.latency_ms:.2f} ms ± {m.latency_spread_ms or 0:.2f}" for m in (before, after)]
    return latency_row(name, (first, second), report.speedup["median"], report.speedup["spread"])


def latency_row(name: str, cells: tuple[str, str], gain: float, spread: float) -> Row:
    """How long a run takes.

    Args:
        name: What was timed, and on what.
        cells: The two latencies, in words.
        gain: How many times as fast the optimized model is.
        spread: Of that.
    """
    return Row(name, cells, f"{gain:.2f} {TIMES} as fast, ± {spread:.2f}", tone_of_speed(gain, spread))


def tone_of_speed(gain: float, spread: float) -> Tone:
    """Good or bad news only beyond the noise."""
    return "good" if gain - 1 > spread else "bad" if 1 - gain > spread else ""


def smaller_row(name: str, before: int, after: int, text: Callable[[int], str]) -> Row:
    """Something of which less is better.

    Args:
        name: What it is.
        before: Of the model as given.
        after: Of the optimized one.
        text: Writes it.
    """
    if not before:
        return Row(name, (text(before), text(after)))
    ratio = after / before
    tone: Tone = "" if abs(ratio - 1) < NOTICEABLE else "good" if ratio < 1 else "bad"
    return Row(name, (text(before), text(after)), f"{ratio:.2f} {TIMES}", tone)


def _resources(before: Resources, after: Resources) -> Iterator[Row]:
    if before == after == Resources():
        return
    rows: list[tuple[str, float | None, float | None, Callable[[float], str]]] = [
        ("peak memory of a process", before.peak_bytes, after.peak_bytes, lambda size: bytes_text(int(size))),
        ("cold start", before.cold_start_ms, after.cold_start_ms, lambda ms: f"{ms:.0f} ms"),
        ("energy of one run", before.energy_mj, after.energy_mj, lambda mj: f"{mj:.2f} mJ"),
    ]
    for name, first, second, text in rows:
        cells = tuple("" if value is None else text(value) for value in (first, second))
        if second is None:
            yield Row(name, cells, NOT_HERE)
        elif not first:
            yield Row(name, cells)
        else:
            yield Row(name, cells, f"{second / first:.2f} {TIMES}", _tone(second / first))


def _tone(ratio: float) -> Tone:
    """One measurement each: only a large difference is news."""
    return "" if abs(ratio - 1) < 10 * NOTICEABLE else "good" if ratio < 1 else "bad"
