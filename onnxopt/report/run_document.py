"""The report of a run as a page: what a `RunReport` and the findings beside it come to in words and tables."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnxopt.report.document import TIMES, Document, Facts, GroupDamage, Row, Stage, Table, Tile
from onnxopt.report.figure_rows import figure_rows, signed, tone_of_speed
from onnxopt.report.findings import Findings
from onnxopt.report.record import PassRecord, StageRecord
from onnxopt.report.run import RunReport
from onnxopt.report.table import bytes_text, count_text

SHOWN = 8  # places of one note


def run_document(report: RunReport, findings: Findings | None = None) -> Document:
    """What a page shows of a run.

    Args:
        report: What was done and measured.
        findings: What was measured for the page alone.
    """
    found = findings or Findings()
    return Document(
        title=Path(report.model["source"]).name,
        lines=tuple(run_lines(report)),
        tiles=tuple(run_tiles(report)),
        figures=Table("Before and after", ("before", "after"), tuple(figure_rows(report, found))),
        warnings=(*dict.fromkeys(report.warnings), *found.notes),
        stages=tuple(_stage(stage) for stage in report.stages),
        tables=tuple(_alone(report)),
        layers=found.layers,
        layers_text=found.layers_text,
        spectra=found.spectra,
        damages=tuple(_damages(report.stages)),
        pictures=found.pictures,
        facts=tuple(run_facts(report)),
        recipe=report.recipe,
    )


def run_tiles(report: RunReport) -> Iterator[Tile]:
    """The numbers to remember: speed, accuracy, size, int8."""
    before, after = report.before, report.after or report.before
    if report.speedup is not None:
        gain, spread = report.speedup["median"], report.speedup["spread"]
        yield Tile(f"{gain:.2f} {TIMES}", f"as fast on {report.target['runtime']}", tone_of_speed(gain, spread))
    if report.metric is not None and before.score is not None and after.score is not None:
        yield Tile(f"{after.score:.3f}", f"{report.metric}, {signed(after.score - before.score, 3)}")
    elif (share := report.agreement) is not None:
        yield Tile(f"{share:.1%}", "agreement with the model as given")
    if before.bytes:
        yield Tile(bytes_text(after.bytes), f"file size, {after.bytes / before.bytes:.2f} {TIMES} of what it was")
    if after.int8_share is not None:
        yield Tile(f"{after.int8_share:.0%}", "of the multiply-accumulates in int8")


def run_lines(report: RunReport) -> Iterator[str]:
    """What was done and what came of it, in five lines."""
    yield _what(report)
    yield _speed(report)
    yield _accuracy(report)
    yield _coverage(report)
    yield _data(report)


def _what(report: RunReport) -> str:
    kept = [s.text for s in report.stages if s.kept and not s.idle]
    undone = [s.text for s in report.stages if not s.kept]
    done = f"{Path(report.model['source']).name} went through {' and '.join(kept)}" if kept else "Nothing was changed"
    on = f" for {report.target['name']}"
    return f"{done}{on}{f'; {chr(44).join(undone)} did not pay and was undone' if undone else ''}."


def _speed(report: RunReport) -> str:
    before, after = report.before, report.after or report.before
    size = f"the file takes {bytes_text(after.bytes)} instead of {bytes_text(before.bytes)}"
    if report.speedup is None or before.latency_ms is None or after.latency_ms is None:
        return f"Latency was not measured ({report.target['why_not_measured']}); {size}."
    gain, spread = report.speedup["median"], report.speedup["spread"]
    word = "as fast as before within the noise" if abs(gain - 1) <= spread else f"{gain:.2f} times as fast as before"
    times = f"{before.latency_ms:.2f} → {after.latency_ms:.2f} ms"
    return f"One run on one thread is {word} ({times}); {size}."


def _accuracy(report: RunReport) -> str:
    before, after = report.before, report.after or report.before
    words = []
    if report.metric is not None and before.score is not None and after.score is not None:
        words.append(f"the score, {report.metric}, goes from {before.score:.4f} to {after.score:.4f}")
    share = report.agreement
    if share is not None:
        words.append(f"it agrees with the model as given on {share:.1%} of what they see")
    if report.budget is not None:
        words.append(f"the budget of {report.budget['max_drop']} is {'kept' if report.budget['met'] else 'missed'}")
    if not words:
        return "How accurate it is was not measured."
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def _coverage(report: RunReport) -> str:
    after = report.after or report.before
    if after.int8_share is None:
        return (
            f"It needs {count_text(after.macs)} multiply-accumulates and has {count_text(after.parameters)} parameters."
        )
    text = f"{after.int8_share:.0%} of its {count_text(after.macs)} multiply-accumulates run in int8"
    why = Counter(entry["reason"] for entry in report.unfused if entry["reason"])
    if not report.unfused or not after.int8_share:
        return f"{text}."
    reason = f", mostly because: {why.most_common(1)[0][0]}" if why else ""
    return f"{text}; {len(report.unfused)} layers stay in float{reason}."


def _data(report: RunReport) -> str:
    data = report.data
    if data["synthetic"]:
        return "There were no pictures: it was fitted and judged on made-up ones, so its accuracy is not known."
    return f"It was fitted on {data['fitted_on']} samples of {data['source']} and judged on others."


def _stage(stage: StageRecord) -> Stage:
    verdict = stage.idle if stage.kept else stage.reason
    if stage.kept and stage.latency is not None:
        verdict = f"{stage.latency['speedup']:.2f} {TIMES} as fast as before it, ± {stage.latency['spread']:.2f}"
    return Stage(stage.text, stage.kept, verdict, tuple(_counted(stage.passes)), tuple(_noted(stage.passes)))


def _counted(records: Iterable[PassRecord]) -> Iterator[str]:
    """What each pass did, its several runs added up."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        counted.setdefault(record.name, Counter()).update(record.counts)
    for name, counts in counted.items():
        if counts:
            yield f"{name}: " + ", ".join(f"{number} {what}" for what, number in counts.items())


def _noted(records: Iterable[PassRecord]) -> Iterator[tuple[str, str]]:
    """Reasons for leaving something alone, each with its places."""
    places: dict[str, list[str]] = {}
    for record in records:
        for where, reason in record.notes:
            places.setdefault(f"{record.name}: {reason}", []).append(where)
    for reason, found in places.items():
        unique = list(dict.fromkeys(found))
        more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
        yield reason, ", ".join(unique[:SHOWN]) + more


def _alone(report: RunReport) -> Iterator[Table]:
    if not report.alone:
        return
    score = (report.metric,) if report.metric is not None else ()
    rows = []
    for row in report.alone:
        scored = (f"{row.score:.4f}" if row.score is not None else "",) if score else ()
        sqnr = "equal" if row.worst_sqnr_db == float("inf") else f"{row.worst_sqnr_db:.1f} dB"
        timed = (f"{row.latency_ms:.2f} ms", f"{row.speedup:.2f} {TIMES} ± {row.spread:.2f}")
        rows.append(Row(row.stages, (bytes_text(row.bytes), count_text(row.macs), *timed, *scored, sqnr)))
    columns = ("size", "MACs", "latency", "as fast", *score, "worst SQNR")
    yield Table("Each stage alone", columns, tuple(rows), "What every stage does by itself to the model as given.")


def _damages(stages: Iterable[StageRecord]) -> Iterator[GroupDamage]:
    """Sensitivity of groups of channels, where pruning measured it."""
    for record in (r for stage in stages for r in stage.passes):
        sizes = record.details.get("sizes", {})
        kept = {group["name"]: len(group["kept"]) for group in record.details.get("groups", ())}
        for name, curve in record.details.get("sensitivity", {}).items():
            size = sizes[name]
            points = sorted((int(count) / size, float(damage)) for count, damage in curve.items())
            yield GroupDamage(name, size, kept.get(name, size), tuple(points))


def run_facts(report: RunReport) -> Iterator[Facts]:
    """Environment, files and data: what it takes to do it again."""
    model, data = report.model, report.data
    outputs = [str(file) for file in model.get("output", ())]
    files = [("model", model["source"]), ("SHA-256", model["digest"] or "not from a file")]
    yield Facts("Model", (*files, *(("written to", name) for name in outputs), ("run at", "; ".join(report.inputs))))
    table = data.get("calibration_table")
    ranges = (("ranges", table["file"]), ("their SHA-256", table["digest"])) if table else ()
    counts = (("fitted on", f"{data['fitted_on']} samples"), ("judged on", f"{data['judged_on']} others"))
    budget = report.budget
    scored = (
        (("scored on", budget["judged_on"]), ("scored by", f"{budget['metric']} ({budget['why']})")) if budget else ()
    )
    yield Facts("Data", (("source", data["source"]), ("SHA-256", data["digest"]), *counts, *scored, *ranges))
    target = report.target
    machine = (
        ("target", target["name"]),
        ("runtime", target["runtime"] or "not here"),
        ("threads", str(target["threads"])),
    )
    yield Facts("Environment", (*machine, *report.environment.items()))
