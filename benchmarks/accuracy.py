"""Accuracy on labelled pictures: the float model, onnxopt's int8, and ONNX Runtime's `quantize_static`.

Claim: with calibration pictures and no training, onnxopt's int8 stays within 1.5 points of top-1 on MobileNetV2 and
within 3 points of mAP50-95 on YOLOX-nano, where ONNX Runtime's own quantization loses many more.

Both tools calibrate on the same pictures, never on those that are scored. Few pictures make scores noisy: differences
of about a point mean nothing. Agreement with the float model (share of equal top classes, or F1 of its confident
boxes) and SQNR, both over the scored pictures, are steadier; SQNR is that of the output that suffers most.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench
from peers import ORT_NAME, onnxopt_candidate, quantize_static_candidate
from workbench import Subject, markdown, number

from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.metrics import Accumulator, load_metric
from onnxopt.runtime.ort import OrtSession

OURS = "onnxopt"
MODELS = ("patches_classifier", "shapes_detector", "mobilenet_v2", "yolox_nano", "yolo11n_synth320")
# Points that onnxopt may lose against float.
BARS = {"mobilenet_v2": 1.5, "yolox_nano": 3.0}
HEADER = ("candidate", "score, points", "lost", "bar", "agreement", "SQNR, dB")


@dataclass
class Judged:
    """One candidate while it is judged."""

    session: OrtSession
    score: Accumulator
    distance: Comparison


def build(subject: Subject, passes: str, samples: int, folder: Path) -> dict[str, Path]:
    """Make the candidates; name to file, the float model first."""
    files = {"float": subject.file, OURS: folder / "onnxopt.onnx", ORT_NAME: folder / "ort.onnx"}
    onnxopt_candidate(subject, passes, samples, files[OURS])
    quantize_static_candidate(subject, samples, files[ORT_NAME])
    return files


def judge(subject: Subject, files: dict[str, Path], threads: int, limit: int | None) -> list[dict[str, Any]]:
    """Run all candidates over the scored pictures once, in constant memory; one record each."""
    metadata = subject.graph.metadata
    metric = load_metric(subject.metric, metadata=metadata)
    judged = {
        name: Judged(OrtSession(file, threads=threads), metric.start(), Comparison(metadata))
        for name, file in files.items()
    }
    count = 0
    for sample in subject.samples(limit, "evaluation"):
        outputs = {name: candidate.session.run(sample.feeds) for name, candidate in judged.items()}
        for name, candidate in judged.items():
            candidate.score.update(outputs[name], sample)
            candidate.distance.update(outputs["float"], outputs[name], sample)
        count += 1
    points = {name: 100 * candidate.score.compute() for name, candidate in judged.items()}
    return [
        {
            "model": subject.name,
            "candidate": name,
            "metric": metric.name,
            "points": points[name],
            "lost": points["float"] - points[name],
            "bar": BARS.get(subject.name) if name == OURS else None,
            **_distance(candidate.distance),
            "pictures": count,
        }
        for name, candidate in judged.items()
    ]


def _distance(comparison: Comparison) -> dict[str, float | None]:
    agreement = comparison.result()
    share = agreement.detections if agreement.detections is not None else agreement.top1
    return {"agreement": share, "sqnr_db": agreement.worst_sqnr_db}


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The figures of one model for people."""
    return markdown(
        HEADER,
        [
            (
                f["candidate"],
                number(f["points"], 1),
                number(f["lost"], 1) if f["candidate"] != "float" else "-",
                number(f["bar"], 1),
                number(100 * f["agreement"], 1, " %") if f["agreement"] is not None else "-",
                number(f["sqnr_db"], 1),
            )
            for f in figures
        ],
    )


def main() -> None:
    """Build, judge, print."""
    parser = workbench.command_line(__doc__, samples=128)
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of every session; default %(default)s")
    parser.add_argument("--limit", type=int, help="score on so many pictures only")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; passes {options.passes}, {options.samples} calibration pictures\n")
    everything = []
    for subject in workbench.find_subjects(options, MODELS):
        if subject.evaluation is None:
            workbench.say(f"not measured: {subject.name}; its labelled pictures are missing (--shared)")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = build(subject, options.passes, options.samples, Path(folder))
            except OnnxoptError as error:
                workbench.say(f"not measured: {subject.name}; onnxopt failed: {error}")
                continue
            figures = judge(subject, files, options.threads, options.limit)
        title = f"**{subject.name}**, {figures[0]['metric']} on {figures[0]['pictures']} pictures"
        print(f"{title}\n\n{table(figures)}\n", flush=True)
        everything += figures
    workbench.write_results(options.json, "accuracy", facts, everything)


if __name__ == "__main__":
    main()
