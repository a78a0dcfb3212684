"""The command line as typed, with no other option: `onnxopt run MODEL --passes prune,quantize`.

Claim: any trained vision model comes back finite, with an SQNR of at least 10 dB, never slower than it was, and at
most 0.35 times as large where nearly all of it are weights; the file given is not changed. And `prune{ratio=0.3}`
alone takes at least 20 % of MobileNetV2's MACs and makes it faster.

Each command runs in a process of its own on a copy of the model, with `--report` to read the figures from. The model
that it writes is then opened by ONNX Runtime and run on inputs of our own, to see that its outputs are finite.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import workbench
from workbench import Subject, markdown, number, say

from onnxopt.runtime.ort import OrtSession

PASSES = "prune,quantize"
MODELS = (
    "patches_classifier",
    "shapes_detector",
    "mobilenet_v2",
    "yolox_nano",
    "yolo11n_random_640",
    "ppocr_det",
    "ppocr_cls",
)
PRUNE = "prune{ratio=0.3}"
PRUNED = ("patches_classifier", "mobilenet_v2")
LEAST_SQNR = 10.0  # dB
# How large the file may be against the input's.
SIZE_BARS = {"mobilenet_v2": 0.35, "yolox_nano": 0.35}
HEADER = ("model", "exit", "s", "file", "MACs", "faster by", "SQNR, dB", "int8", "finite", "input kept", "undone", "ok")


def executable() -> str:
    """The installed command.

    Raises:
        SystemExit: There is none.
    """
    beside = Path(sys.executable).with_name("onnxopt")
    found = str(beside) if beside.is_file() else shutil.which("onnxopt")
    if found is None:
        raise SystemExit("the command `onnxopt` is not installed in this environment: pip install -e .")
    return found


def run(subject: Subject, passes: str) -> dict[str, Any]:
    """Run the command on a copy of the model and return what its report and its model say."""
    with tempfile.TemporaryDirectory() as folder:
        model, report = Path(folder, subject.file.name), Path(folder, "report.json")
        shutil.copyfile(subject.file, model)
        before = digest(model)
        began = time.perf_counter()
        command = [executable(), "run", str(model), "--passes", passes, "--report", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        record: dict[str, Any] = {
            "model": subject.name,
            "passes": passes,
            "exit": done.returncode,
            "seconds": time.perf_counter() - began,
            "input_kept": digest(model) == before,
        }
        if done.returncode:
            say(f"{subject.name}: exit {done.returncode}\n{done.stderr}")
            return record
        written = model.with_name(f"{model.stem}.opt.onnx")
        return record | _figures(json.loads(report.read_text(encoding="utf-8"))) | {"finite": finite(subject, written)}


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def finite(subject: Subject, file: Path) -> bool:
    """Whether all outputs of a model are finite on three made-up pictures."""
    session = OrtSession(file)
    return all(
        bool(np.isfinite(array).all())
        for sample in Subject(subject.name, subject.file).samples(3)
        for array in session.run(sample.feeds).values()
        if array.dtype.kind == "f"
    )


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    before, after = report["before"], report["after"]
    sqnr = report["quality"]["worst_sqnr_db"]
    return {
        "file_ratio": after["bytes"] / before["bytes"],
        "macs_ratio": after["macs"] / before["macs"],
        "speedup": report["speedup"]["median"],
        "speedup_spread": report["speedup"]["spread"],
        "sqnr_db": float(sqnr) if sqnr is not None else None,  # "inf" where nothing was changed
        "int8_share": after["int8_share"],
        "undone": [stage["text"] for stage in report["stages"] if not stage["kept"]],
        "warnings": report["warnings"],
    }


def holds(record: dict[str, Any]) -> bool:
    """Whether the claim holds for one model."""
    if record["exit"] or not record["finite"] or not record["input_kept"]:
        return False
    not_slower: bool = record["speedup"] >= 1 - record["speedup_spread"]
    if record["passes"] == PRUNE:
        return bool(record["macs_ratio"] <= 0.8 and record["speedup"] > 1)
    small = record["file_ratio"] <= SIZE_BARS.get(record["model"], np.inf)
    return bool(not_slower and small and record["sqnr_db"] is not None and record["sqnr_db"] >= LEAST_SQNR)


def table(records: Sequence[dict[str, Any]]) -> str:
    """One row per model."""
    return markdown(HEADER, [_row(record) for record in records])


def _row(r: dict[str, Any]) -> tuple[str, ...]:
    verdict = "yes" if holds(r) else "no"
    seconds = number(r["seconds"], 0)
    if r["exit"]:
        return (r["model"], str(r["exit"]), seconds, *["-"] * 6, str(r["input_kept"]), "-", verdict)
    return (
        r["model"],
        str(r["exit"]),
        seconds,
        number(r["file_ratio"], 3),
        number(r["macs_ratio"], 3),
        f"{r['speedup']:.2f} ± {r['speedup_spread']:.2f}",
        number(r["sqnr_db"], 1),
        number(100 * r["int8_share"], 0, " %"),
        str(r["finite"]),
        str(r["input_kept"]),
        ", ".join(r["undone"]) or "-",
        verdict,
    )


def main() -> None:
    """Run the commands one after the other, and print."""
    parser = workbench.command_line(__doc__)
    parser.add_argument("--passes", default=PASSES, help="default %(default)s")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}\n")
    everything = []
    for passes, names in ((options.passes, MODELS), (PRUNE, PRUNED)):
        records = []
        for subject in workbench.find_subjects(options, names):
            say(f"onnxopt run {subject.file.name} --passes {passes}")
            records.append(run(subject, passes))
        if records:
            print(f"`onnxopt run MODEL --passes {passes}`\n\n{table(records)}\n", flush=True)
        everything += records
    workbench.write_results(options.json, "zero_options", facts, everything)


if __name__ == "__main__":
    main()
