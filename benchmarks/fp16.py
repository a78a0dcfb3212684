"""FP16: `convert-fp16` on every model given.

Claim: each loads and runs, and its outputs keep 50 dB to the float model's, or the pass says why they do not; each node
that stays in float32 has a reason.

Each model is converted on a few made-up samples. The figures: bytes over those of the float model, notes on what stays
float32 or is lost, SQNR of the worst output over four other samples, in ONNX Runtime with all optimizations off (behind
a TopK or the like: of what goes into the choice, marked *), and the notes, alike ones with their number.

Models run in a process of their own each and are given up after `--limit` seconds.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from tensorrt_rules import sqnr
from workbench import number, table_of_models

from onnxopt import model_io, optimize
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.inputs import resolve_inputs

PASS = "convert-fp16"
BAR = 50.0  # dB
HELD_OUT = 4  # samples; from one to the next SQNR differs by 10 dB and more
HEADER = ("model", "bytes", "notes", "SQNR, dB", "held", "why float32 is left")


def figures(target: str, samples: int, file: Path) -> dict[str, Any]:
    """Convert one model and look at the result."""
    try:
        graph = model_io.load(file)
        result = optimize(graph, f"simplify,{PASS}", target=target, samples=samples, keep_anyway=True)
        worst, inner = sqnr(graph, result.graph, resolve_inputs(graph)[0], HELD_OUT)
    except OnnxoptError as error:
        return {"model": file.stem, "failed": str(error)}
    records = [r for stage in result.report.stages for r in stage.passes if r.name == PASS]
    reasons = Counter(re.sub(r"'[^']*'|\b\d[\d.e+-]*", "…", reason) for r in records for _, reason in r.notes)
    return {
        "model": file.stem,
        "bytes": result.graph.to_proto().ByteSize() / graph.to_proto().ByteSize(),
        "reasons": dict(reasons.most_common()),
        "sqnr_db": worst,
        "before_a_choice": inner,
        "held": worst >= BAR or any(reason.startswith("outputs keep") for reason in reasons),
    }


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    if "failed" in found:
        return (found["model"], "-", "-", "-", "NO", found["failed"])
    return (
        found["model"],
        number(found["bytes"], 2, " x"),
        str(sum(found["reasons"].values())),
        number(found["sqnr_db"], 1) + ("*" if found["before_a_choice"] else ""),
        "yes" if found["held"] else "NO",
        "; ".join(f"{reason} ({count})" for reason, count in found["reasons"].items()) or "-",
    )


def main() -> None:
    """Convert, look, print."""
    parser = workbench.command_line(__doc__, samples=16, files=True)
    parser.add_argument("--target", default="ort", help="default %(default)s")
    options = parser.parse_args()
    terms = f"target {options.target}, {options.samples} made-up samples"
    table_of_models(options, "fp16", terms, HEADER, partial(figures, options.target, options.samples), row)


if __name__ == "__main__":
    main()
