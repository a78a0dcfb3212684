"""Every model given, on one target, with no option and no data: `--passes quantize`.

Claim: no model makes it fail; what comes back is valid, finite, and faster than float on the target, or it is the float
model with the reason.

Each model is calibrated on a few made-up samples, so SQNR says that the arithmetic is right and nothing about accuracy
on pictures. Latencies are those of onnxopt's own guard: float and int8 open in one process, run in turns, medians.
Models run in a process of their own each and are given up after `--limit` seconds.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from workbench import number, table_of_models

from onnxopt import optimize
from onnxopt.errors import OnnxoptError

HEADER = ("model", "float, ms", "int8, ms", "faster by", "int8 MACs", "SQNR, dB", "handed back")


def figures(target: str, samples: int, file: Path) -> dict[str, Any]:
    """Quantize one model; what its report says."""
    start = time.monotonic()
    try:
        report = optimize(file, "quantize", target=target, samples=samples).report
    except OnnxoptError as error:
        return {"model": file.stem, "failed": str(error)}
    (stage,) = report.stages
    latency = stage.latency or {}
    return {
        "model": file.stem,
        "float_ms": latency.get("before_ms"),
        "int8_ms": latency.get("after_ms"),
        "speedup": latency.get("speedup"),
        "int8_share": report.after.int8_share if report.after is not None else None,
        "sqnr_db": report.quality.get("worst_sqnr_db"),
        "kept": stage.kept,
        "reason": stage.reason,
        "seconds": time.monotonic() - start,
    }


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    if "failed" in found:
        return (found["model"], "-", "-", "-", "-", "-", found["failed"])
    share = found["int8_share"]
    return (
        found["model"],
        number(found["float_ms"], 1),
        number(found["int8_ms"], 1),
        number(found["speedup"], 2, " x"),
        number(100 * share, 1, " %") if share is not None else "-",
        number(found["sqnr_db"], 1),
        "int8" if found["kept"] else "float: slower",
    )


def main() -> None:
    """Quantize all, print the table."""
    parser = workbench.command_line(__doc__, samples=4, files=True)
    parser.add_argument("--target", default="ort", help="default %(default)s")
    options = parser.parse_args()
    terms = f"target {options.target}, {options.samples} made-up samples"
    job = partial(figures, options.target, options.samples)
    table_of_models(options, f"zoo_{options.target}", terms, HEADER, job, row)


if __name__ == "__main__":
    main()
