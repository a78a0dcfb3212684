"""What the benchmarks share: models and their data, command line, tables, and what is said about the machine.

Three kinds of models are looked for:

1. those of `testdata/`, which are always there;
2. larger ones under `--shared` (default: a folder `shared` beside the repository), with pictures to calibrate and
   score on; `SUBJECTS` lists where in it each is expected;
3. the text detector and orientation classifier of the wheel `rapidocr-onnxruntime==1.4.4`, where `--ocr` names its
   folder `models` (`pip download --no-deps rapidocr-onnxruntime==1.4.4`, then unpack).

What is missing is named on stderr and left out; the rest runs.
"""

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxopt import Graph, __version__, model_io
from onnxopt.data import Dataset, InputSpec, open_dataset, synthetic
from onnxopt.data.folder import Role
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.runtime import host

REPOSITORY = Path(__file__).resolve().parent.parent
INT8_EXTENSIONS = ("avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Subject:
    """A model with what is needed to calibrate and to score it.

    Attributes:
        name: What it is called on the command line and in tables.
        file: The model.
        calibration: Pictures to calibrate on; None: made up.
        evaluation: Labelled pictures to score on; None: it cannot be scored.
        preprocess: How pictures become inputs; None: the model's metadata say.
        metric: `top1` or `coco-map`; None: it cannot be scored.
    """

    name: str
    file: Path
    calibration: Path | None = None
    evaluation: Path | None = None
    preprocess: str | None = None
    metric: str | None = None

    @cached_property
    def graph(self) -> Graph:
        """The model, loaded once."""
        return model_io.load(self.file)

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Its inputs at the sizes that it is run at."""
        return resolve_inputs(self.graph)[0]

    def samples(self, count: int | None, role: Role = "calibration") -> Dataset:
        """At most `count` samples to calibrate or to score on; made-up pictures where there are none."""
        source = self.evaluation if role == "evaluation" else self.calibration
        if source is None:
            return synthetic(self.inputs, count or 16)
        return open_dataset(
            source,
            self.inputs,
            role=role,
            preprocess=self.preprocess,
            samples=count,
            metadata=self.graph.metadata,
        )


@dataclass(frozen=True)
class Row:
    """Where a subject's files are expected, relative to the folder that `root` names."""

    root: str
    file: str
    calibration: str | None = None
    evaluation: str | None = None
    preprocess: str | None = None
    metric: str | None = None


# A data.yaml has both splits: calibration reads `train`, evaluation `val`.
SUBJECTS: dict[str, Row] = {
    "patches_classifier": Row(
        "testdata", "patches_classifier.onnx", "patches/train.csv", "patches/val.csv", "imagenet", "top1"
    ),
    "shapes_detector": Row(
        "testdata", "shapes_detector.onnx", "shapes/data.yaml", "shapes/data.yaml", None, "coco-map"
    ),
    "mobilenet_v2": Row(
        "shared",
        "models/mobilenet_v2_imagenet_bn.onnx",
        "data/imagenet/calib.csv",
        "data/imagenet/val.csv",
        "imagenet",
        "top1",
    ),
    "yolox_nano": Row(
        "shared", "models/yolox_nano.onnx", "data/coco/calib.json", "data/coco/val.json", "yolox", "coco-map"
    ),
    "yolo11n_synth320": Row(
        "shared", "models/yolo11n_synth320.onnx", "data/synth/data.yaml", "data/synth/data.yaml", None, "coco-map"
    ),
    "yolo11n_random_640": Row("shared", "models/yolo11n_random_640.onnx", "data/coco/calib.json"),
    "yolo26n_random_640": Row("shared", "models/yolo26n_random_640.onnx", "data/coco/calib.json"),
    "ppocr_det": Row("ocr", "ch_PP-OCRv4_det_infer.onnx"),
    "ppocr_cls": Row("ocr", "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
}


def command_line(
    description: str | None, *, rounds: int | None = None, samples: int | None = None, files: bool = False
) -> Any:
    """Return a parser with the arguments that benchmarks have in common.

    Args:
        description: The benchmark's docstring.
        rounds: Default of `--rounds`; None: there is no such argument.
        samples: Default of `--samples`; None: there is no such argument.
        files: Whether it takes further models, as `table_of_models` does.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = REPOSITORY.parent / "shared"
    parser.add_argument(
        "--shared", type=Path, default=shared, metavar="DIR", help="folder with models/ and data/; default ../shared"
    )
    parser.add_argument("--ocr", type=Path, metavar="DIR", help="folder `models` of rapidocr-onnxruntime 1.4.4")
    parser.add_argument("--only", action="append", metavar="NAME", choices=SUBJECTS, help="this model; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here, e.g. under results/")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds; default %(default)s")
    if samples is not None:
        parser.add_argument("--samples", type=int, default=samples, help="to calibrate on; default %(default)s")
    if files:
        parser.add_argument("files", nargs="*", type=Path, metavar="MODEL", help="further models")
        parser.add_argument("--limit", type=float, default=300, help="seconds per model; default %(default)s")
    return parser


def find_subjects(options: argparse.Namespace, names: Iterable[str]) -> list[Subject]:
    """Return those of the named models that are there and asked for; say which are not there."""
    roots = {"testdata": REPOSITORY / "testdata", "shared": options.shared, "ocr": options.ocr}
    found = []
    for name in names:
        if options.only and name not in options.only:
            continue
        row = SUBJECTS[name]
        root: Path | None = roots[row.root]
        if root is None or not (root / row.file).is_file():
            where = f"{root / row.file} is missing" if root is not None else "its folder is not given"
            say(f"not measured: {name}; {where} (--{row.root})")
            continue
        found.append(_subject(name, row, root))
    return found


def _subject(name: str, row: Row, root: Path) -> Subject:
    calibration, evaluation = (
        root / file if file is not None and (root / file).is_file() else None
        for file in (row.calibration, row.evaluation)
    )
    if calibration is None:
        say(f"{name}: calibrated on made-up pictures" + (f"; {row.calibration} is missing" if row.calibration else ""))
    return Subject(name, root / row.file, calibration, evaluation, row.preprocess, row.metric)


def table_of_models(
    options: argparse.Namespace,
    benchmark: str,
    terms: str,
    header: Sequence[str],
    figures: Callable[[Path], dict[str, Any]],
    row: Callable[[dict[str, Any]], Sequence[str]],
    told: Callable[[dict[str, Any]], Sequence[str]] | None = None,
) -> None:
    """Measure the files given, or all subjects, each in a process of its own; print and write the table.

    Args:
        options: Of a `command_line` with `files`. Models that take over `limit` seconds are given up.
        benchmark: Its name in the results.
        terms: Under which it was measured, for the first line; may be empty.
        header: Of the table.
        figures: Of one file.
        row: These as a line of the table, or why there are none (key `failed`).
        told: The same for the person at the terminal, as soon as it is there; default: `row`.
    """
    facts = machine()
    print("; ".join(filter(None, [describe_machine(facts), terms])), end="\n\n", flush=True)
    subjects = find_subjects(options, SUBJECTS) if options.only or not options.files else []
    everything = []
    for file in [*(s.file for s in subjects), *options.files]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                found = pool.apply_async(figures, (file,)).get(options.limit)
            except multiprocessing.TimeoutError:
                found = {"model": file.stem, "failed": f"not done in {options.limit:g} s"}
        say(" | ".join((told or row)(found)))
        everything.append(found)
    print(markdown(header, map(row, everything)))
    write_results(options.json, benchmark, facts, everything)


def say(text: str) -> None:
    """Tell the person at the terminal, beside the figures."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, its int8 instructions, load, versions."""
    version = __version__
    commit = _commit()
    return {
        "processor": host.processor(),
        "int8_extensions": [name for name in INT8_EXTENSIONS if name in host.features()],
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "python": sys.version.split()[0],
        "onnxopt": f"{version} ({commit})" if commit else version,
        **host.versions("onnxruntime", "onnx", "numpy", "numba", "onnxslim"),
    }


def _commit() -> str | None:
    """The checkout's commit, with a plus where files differ from it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine(facts: dict[str, Any]) -> str:
    """One line of text for `machine()`; a load near the number of cores means that timings are noisy."""
    known = {"processor", "int8_extensions", "cores", "load"}
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in known)
    extensions = ", ".join(facts["int8_extensions"]) or "no int8 instructions known"
    load = "/".join(map(str, facts["load"]))
    return f"{facts['processor']}, {extensions}, {facts['cores']} cores, load {load}; {versions}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that can also be read in a terminal; the first column is text, the others numbers."""
    body = [list(row) for row in rows]
    widths = [max(2, *(len(line[i]) for line in [list(header), *body])) for i in range(len(header))]
    lines = [list(header), ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], *body]
    return "\n".join("| " + " | ".join(_cells(line, widths)) + " |" for line in lines)


def _cells(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first = line[0].ljust(widths[0])
    return [first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A figure for a table; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}{unit}"


def write_results(file: Path | None, benchmark: str, facts: dict[str, Any], figures: Any) -> None:
    """Write the figures as JSON, where that was asked for."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": benchmark, "machine": facts, "figures": _plain(figures)}
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    say(f"wrote {file}")


def _plain(value: Any) -> Any:
    """What JSON can say; it knows no infinity, which is the SQNR of equal outputs."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
