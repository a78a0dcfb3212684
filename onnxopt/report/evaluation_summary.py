"""An evaluation for people: the table at the end of `eval`, and the page of its `--report FILE.html`."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxopt.evaluation.interval import Interval
from onnxopt.report.document import Document, Facts, Row, Table, Tile
from onnxopt.report.evaluation import Evaluation
from onnxopt.report.findings import Findings
from onnxopt.report.table import bytes_text, table

DETAILS = {"map50": "at an overlap of 0.5", "exact": "texts without an error"}
PER_CLASS = "per_class"
TILES = frozenset({"lost", "top-1 agreement", "detections agreeing", "texts agreeing", "SQNR", "speed"})


def evaluation_summary(report: Evaluation) -> str:
    """Score, agreement and speed, then the score of each class, then what a reader must know; plain text."""
    parts = [table(evaluation_rows(report))]
    classes = report.details.get(PER_CLASS, {})
    if classes:
        parts += ["", table(_per_class(classes), ("class", str(report.metric)), right=(1,))]
    if report.gates:
        parts += ["", *(gate["text"] for gate in report.gates)]
    if report.warnings:
        parts += ["", *(f"note: {warning}" for warning in report.warnings)]
    return "\n".join(parts)


def evaluation_figures(report: Evaluation) -> dict[str, str]:
    """The same figures, each as one text by its name."""
    return {name: f"{value} {note}".strip() for name, value, note in evaluation_rows(report)}


def evaluation_document(report: Evaluation, findings: Findings | None = None) -> Document:
    """What a page shows of an evaluation.

    Args:
        report: What was measured.
        findings: And beside the float model, for the page alone.
    """
    found = findings or Findings()
    name = Path(report.model["source"]).name
    rows = [Row(row[0], (row[1],), row[2]) for row in evaluation_rows(report)]
    classes = report.details.get(PER_CLASS, {})
    per_class = tuple(Row(label, (value,)) for label, value in _per_class(classes))
    tables = (Table("Per class", (str(report.metric),), per_class, sortable=True),) if classes else ()
    return Document(
        title=name,
        lines=tuple(_lines(report, name)),
        tiles=tuple(_tiles(report)),
        figures=Table("What was measured", ("value",), tuple(rows)),
        warnings=(*report.warnings, *found.notes),
        tables=tables,
        pictures=found.pictures,
        layers=found.layers,
        layers_text=found.layers_text,
        spectra=found.spectra,
        facts=tuple(_facts(report)),
    )


def evaluation_rows(report: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and remark of each figure."""
    if report.metric is not None and report.score is not None:
        yield report.metric, f"{report.score:.4f}", _between(report.interval)
        for name, words in DETAILS.items():
            if name in report.details:
                yield f"  {words}", f"{report.details[name]:.4f}", ""
    yield from _compared(report)
    speed = report.speed
    together = f", {speed.batch} at once" if speed.batch > 1 else ""
    threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
    yield (
        "speed",
        f"{speed.per_second:.1f} samples a second",
        f"{speed.milliseconds:.2f} ms each{together}, {threads}, {report.target['runtime']}",
    )
    if speed.latency_ms is not None:
        faster = f"{speed.speedup:.2f} x faster than the float model" if speed.speedup is not None else ""
        yield "latency", f"{speed.latency_ms:.3f} ms", faster
    yield "file size", bytes_text(report.model["bytes"]), ""
    yield "samples", str(report.data["samples"]), str(report.data["source"])


def _compared(report: Evaluation) -> Iterator[tuple[str, str, str]]:
    found = report.compared
    if found is None:
        return
    if found.score is not None and found.drop is not None:
        yield "  of the float model", f"{found.score:.4f}", ""
        yield "  lost", f"{found.drop:+.4f}", _between(found.drop_interval)
    if found.top1 is not None:
        yield "top-1 agreement", f"{found.top1:.1%}", "same class as the float model"
    if found.detections is not None:
        yield "detections agreeing", f"{found.detections:.1%}", "F1 of what both models are sure of"
    if found.texts is not None:
        yield "texts agreeing", f"{found.texts:.1%}", "read letter by letter as the float model does"
    if found.worst_sqnr_db is not None and math.isnan(found.worst_sqnr_db):
        yield "SQNR", "none", f"'{found.worst_part}' is NaN or infinite in one of the models"
    elif found.worst_sqnr_db is not None:
        yield "SQNR", f"{found.worst_sqnr_db:.1f} dB", f"of the part that suffers most, '{found.worst_part}'"


def _between(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.level:.0%} interval {interval.low:.4f} to {interval.high:.4f}"


def _per_class(classes: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, f"{value:.4f}") for name, value in classes.items()]


def _lines(report: Evaluation, name: str) -> Iterator[str]:
    yield f"{name} ran on {report.data['samples']} samples of {report.data['source']} with {report.target['runtime']}."
    if report.score is not None:
        where = f" ({_between(report.interval)})" if report.interval is not None else ""
        yield f"Its {report.metric} is {report.score:.4f}{where}."
    if report.compared is not None:
        yield f"It was compared with {report.compared.model['source']}."
    yield from (gate["text"] for gate in report.gates)


def _tiles(report: Evaluation) -> Iterator[Tile]:
    for name, value, _ in evaluation_rows(report):
        if name in {
            report.metric,
            "  lost",
            "top-1 agreement",
            "detections agreeing",
            "texts agreeing",
            "SQNR",
            "speed",
        }:
            yield Tile(value.replace(" samples a second", "/s"), name.strip())


def _facts(report: Evaluation) -> Iterator[Facts]:
    model = {key: str(value) for key, value in report.model.items()}
    yield Facts("Model", tuple(model.items()))
    yield Facts("Data", tuple((key, str(value)) for key, value in report.data.items()))
    yield Facts("Environment", tuple(report.environment.items()))
