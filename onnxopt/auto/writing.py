"""The files that a search leaves: three models, and what was tried as CSV, JSON and a plot."""

import csv
import io
import json
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from onnxopt import model_io
from onnxopt.auto.choice import Picks
from onnxopt.auto.findings import Findings
from onnxopt.auto.page import pareto
from onnxopt.auto.trial import Trial
from onnxopt.report.run import plain

SHEET, PLOT = "pareto.csv", "pareto.svg"
MARK, MARK_WITHIN = "<!-- written by onnxopt auto -->", 8  # a line among the first of a plot, and how many those are
PICKS = ("safe", "balanced", "small")
COLUMNS = (
    "target",
    "passes",
    "latency_ms",
    "latency_spread_ms",
    "speedup",
    "speedup_spread",
    "bytes",
    "parameters",
    "macs",
    "score_before",
    "score_after",
    "drop",
    "drop_low",
    "drop_high",
    "drop_allowed",
    "kept",
    "front",
    "picked",
)


def write_models(found: Findings, picks: Picks, folder: Path) -> list[Path]:
    """Write `NAME.safe.onnx`, `NAME.balanced.onnx` and `NAME.small.onnx`.

    Raises:
        UsageError: The folder cannot be written, or the disk is full.
    """
    written = []
    for name, trial in picks.items():
        file = place(found.model, name, folder)
        model_io.save(model_io.load(found.files[trial.passes, trial.target]), file)
        written.append(file)
    return written


def place(model: str, pick: str, folder: Path) -> Path:
    """Where a pick is written."""
    return folder / f"{model}.{pick}.onnx"


def write_front(found: Findings, folder: Path) -> list[Path]:
    """Write `pareto.csv`, and `pareto.svg` where matplotlib is installed.

    Raises:
        UsageError: The folder cannot be written, or the disk is full.
    """
    files = [folder / SHEET]
    model_io.write_text(files[0], as_csv(found))
    if find_spec("matplotlib") is not None:
        from onnxopt.report.charts import pareto_chart  # noqa: PLC0415 - an extra

        files.append(folder / PLOT)
        model_io.write_text(files[1], pareto_chart(pareto(found), alone=True).replace("<svg ", f"{MARK}\n<svg ", 1))
    return files


def is_front(file: Path) -> bool:
    """Whether a file is a `pareto.csv` or `pareto.svg` that a search left."""
    sign = MARK if file.name == PLOT else ",".join(COLUMNS)
    try:
        with file.open(encoding="utf-8") as stream:
            return any(line.rstrip("\n") == sign for line in islice(stream, MARK_WITHIN if file.name == PLOT else 1))
    except (OSError, UnicodeDecodeError):
        return False


def as_csv(found: Findings) -> str:
    """All candidates, the fastest first; scores, losses and milliseconds as measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    front = found.front
    for trial in found.trials:
        picked = " ".join(found.picks.names(trial)) if found.picks is not None else ""
        writer.writerow([*_figures(trial), int(trial in front), picked])
    return text.getvalue()


def _figures(trial: Trial) -> list[object]:
    verdict, interval = trial.verdict, trial.verdict.interval
    return [
        trial.target,
        trial.passes,
        trial.latency_ms,
        trial.latency_spread_ms,
        trial.speedup,
        trial.spread,
        trial.bytes,
        trial.parameters,
        trial.macs,
        verdict.before,
        verdict.after,
        verdict.drop,
        interval.low if interval is not None else "",
        interval.high if interval is not None else "",
        verdict.allowed,
        int(verdict.met),
    ]


def as_json(found: Findings) -> str:
    """Everything that was found, as strict JSON."""
    return json.dumps(plain(found.to_dict()), indent=2, ensure_ascii=False) + "\n"
