"""The table at the end of a run, for people."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from onnxopt.report.record import StageRecord
from onnxopt.report.run import RunReport
from onnxopt.report.table import bytes_text, count_text, table

SHOWN = 3  # places per reason
KINDS = 12  # reasons


def summary(report: RunReport) -> str:
    """Before → after, what was done, what was left alone and why, in plain text."""
    header, *rows = _rows(report)
    parts = [
        table(rows, header),
        *_budget(report),
        *(f"\n{gate['text']}" for gate in report.gates),
        *_stages(report),
        *_alone(report),
        *_left_alone(report),
        *_warnings(report),
    ]
    return "\n".join(parts)


def figures(report: RunReport) -> dict[str, str]:
    """The same of one line each, of what every run has: size, latency, score, agreement, int8 share."""
    kinds = {"file size": "size", "MACs": "MACs", "top-1 agreement": "agreement", "int8 share of MACs": "int8"}
    kinds |= {"detections agreeing": "agreement", report.metric or "": report.metric or ""}
    found = {}
    for name, before, after, note in _rows(report):
        kind = "latency" if name.startswith("latency") else kinds.get(name, "")
        if kind and after != "not measured":
            found[kind] = " ".join([*([before, "→"] if before else []), after, *([f"({note})"] if note else [])])
    return found


def _rows(report: RunReport) -> Iterator[tuple[str, str, str, str]]:
    before, after = report.before, report.after or report.before
    yield "", "before", "after", ""
    yield "file size", bytes_text(before.bytes), bytes_text(after.bytes), _ratio(after.bytes, before.bytes)
    yield "parameters", f"{before.parameters:,}", f"{after.parameters:,}", _ratio(after.parameters, before.parameters)
    yield "MACs", count_text(before.macs), count_text(after.macs), _ratio(after.macs, before.macs)
    if before.latency_ms is not None and after.latency_ms is not None and report.speedup is not None:
        speedup = f"{report.speedup['median']:.2f} x faster ± {report.speedup['spread']:.2f}"
        yield f"latency, {report.target['runtime']}", _ms(before), _ms(after), speedup
    else:
        yield "latency", "not measured", "not measured", str(report.target.get("why_not_measured", ""))
    if report.metric is not None and before.score is not None and after.score is not None:
        yield report.metric, f"{before.score:.4f}", f"{after.score:.4f}", f"{after.score - before.score:+.4f}"
    yield from _quality(report)
    if after.int8_share is not None:
        known = "unknown" if before.int8_share is None else f"{before.int8_share:.1%}"
        yield "int8 share of MACs", known, f"{after.int8_share:.1%}", ""


def _quality(report: RunReport) -> Iterator[tuple[str, str, str, str]]:
    for name, distance in report.quality.get("outputs", {}).items():
        yield f"SQNR of '{name}'", "", _db(distance["sqnr_db"]), f"cosine {distance['cosine']:.4f}"
    if report.quality.get("top1") is not None:
        yield "top-1 agreement", "", f"{report.quality['top1']:.1%}", f"{report.quality['samples']} inputs"
    for kind in ("detections", "texts"):
        if report.quality.get(kind) is not None:
            yield f"{kind} agreeing", "", f"{report.quality[kind]:.1%}", f"{report.quality['samples']} inputs"


def _budget(report: RunReport) -> Iterator[str]:
    """The verdict on `--max-drop`, how sure it is, and what it cost."""
    found = report.budget
    if found is None:
        return
    yield f"\nbudget {found['max_drop']}: {'kept' if found['met'] else 'MISSED'}"
    yield f"  judged by {found['metric']} ({found['why']})"
    yield (
        f"  {found['metric']}: {found['before']:.4f} before, {found['after']:.4f} after; "
        f"drop {found['drop']:.4f}, allowed {found['allowed']:.4f}"
    )
    interval = found["interval"]
    if interval is None:
        yield f"  judged on {found['pictures']} pictures; no interval for a metric of a whole set"
    else:
        yield (
            f"  {interval['level']:.0%} interval of the drop: {interval['low']:.4f} … {interval['high']:.4f} "
            f"({interval['resamples']} resamples of {found['pictures']} pictures)"
        )
        if interval["low"] == interval["high"]:
            # The rule of three: what none of n pictures shows has, at 95 %, a probability below 3 / n.
            yield f"  the draws do not differ: up to {min(1.0, 3 / found['pictures']):.1%} of all pictures still may"
    kept = found["kept_float"]
    if kept:
        shown = ", ".join(layer["node"] for layer in kept[:SHOWN])
        more = f" and {len(kept) - SHOWN} more" if len(kept) > SHOWN else ""
        yield f"  {len(kept)} layers stay float, {found['kept_float_share']:.1%} of the MACs: {shown}{more}"


def _stages(report: RunReport) -> Iterator[str]:
    yield ""
    for stage in report.stages:
        yield f"{stage.text}: {_verdict(stage)}"
        for line in _counts(stage):
            yield f"  {line}"
    if report.stages and not any(s.kept for s in report.stages):
        yield "no stage paid: the model's own graph is handed back"


def _alone(report: RunReport) -> Iterator[str]:
    """Each stage by itself, so that one sees which of them pays."""
    if not report.alone:
        return
    header = ("stage alone", "size", "MACs", "latency", "", report.metric or "", "worst SQNR")
    rows = [
        (
            row.stages,
            bytes_text(row.bytes),
            count_text(row.macs),
            f"{row.latency_ms:.2f} ms",
            f"{row.speedup:.2f} x ± {row.spread:.2f}",
            f"{row.score:.4f}" if row.score is not None else "",
            _db(row.worst_sqnr_db),
        )
        for row in report.alone
    ]
    yield "\n" + table(rows, header, right=(1, 2, 3))


def _verdict(stage: StageRecord) -> str:
    if not stage.kept:
        return stage.reason
    if stage.idle:
        return stage.idle
    if stage.latency is None:
        return "done"
    return f"done, {stage.latency['speedup']:.2f} x as fast as before ± {stage.latency['spread']:.2f}"


def _counts(stage: StageRecord) -> Iterator[str]:
    counted: dict[str, Counter[str]] = {}
    for record in stage.passes:
        counted.setdefault(record.name, Counter()).update(record.counts)
    for name, counts in counted.items():
        if counts:
            yield f"{name}: " + ", ".join(f"{number} {what}" for what, number in counts.items())


def _left_alone(report: RunReport) -> Iterator[str]:
    reasons: dict[str, list[tuple[str, str]]] = {}
    for stage in report.stages:
        for record in stage.passes:
            for where, reason in record.notes:
                reasons.setdefault(f"{record.name}: {_kind(reason)}", []).append((f"{record.name}: {reason}", where))
    if reasons:
        yield "\nleft alone (all of it with --report):"
    for kind, notes in list(reasons.items())[:KINDS]:
        unique = list(dict.fromkeys(where for _, where in notes))
        reason = notes[0][0] if len({text for text, _ in notes}) == 1 else kind
        shown = ", ".join(unique[:SHOWN])
        more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
        yield f"  {reason}: {shown}{more}"
    if len(reasons) > KINDS:
        yield f"  and for {len(reasons) - KINDS} other reasons"


def _kind(reason: str) -> str:
    """A reason without the numbers and names in which it differs from others of its kind."""
    return re.sub(r"\b\d+(\.\d+)?\b", "…", re.sub(r" '[^']*'", "", reason))


def _warnings(report: RunReport) -> Iterator[str]:
    for warning in report.warnings:
        yield f"warning: {warning}"


def _ratio(now: int, before: int) -> str:
    return f"{now / before:.2f} x" if before else ""


def _ms(measured: Any) -> str:
    return f"{measured.latency_ms:.2f} ms ± {measured.latency_spread_ms:.2f}"


def _db(value: float) -> str:
    return "equal" if value == float("inf") else f"{value:.1f} dB"
