"""Accuracy on labelled pictures: the float model, onnxopt's int8 for each target, and ONNX Runtime's `quantize_static`.

Claim: with calibration pictures and no training, int8 stays within the bars of `BARS` on every target, where ONNX
Runtime's own quantization loses many points.

A target's model runs in its own runtime; that of a target which cannot run here runs as it is written, in ONNX Runtime
with all graph optimizations off. What is lost is lost against the float model in ONNX Runtime, in 32 bits.

All tools calibrate on the same pictures, never on those that are scored. Few pictures make scores noisy: differences
of about a point mean nothing. Agreement with the float model (share of equal top classes, or F1 of its confident
boxes) and SQNR, both over the scored pictures, are steadier; SQNR is that of the output that suffers most.
"""

import tempfile
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench
from peers import ORT_NAME, quantize_static_candidate
from workbench import Subject, markdown, number

from onnxopt import optimize
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.metrics import Accumulator, load_metric
from onnxopt.registry import load_target
from onnxopt.runtime.adapter import Runtime, Session, load_runtime
from onnxopt.runtime.ort import OrtRuntime, OrtSession

MODELS = ("patches_classifier", "shapes_detector", "mobilenet_v2", "yolox_nano", "yolo11n_synth320")
TARGETS = "ort,openvino,tensorrt"
HEADER = ("candidate", "run by", "score, points", "lost", "agreement", "SQNR, dB", "bar", "held")


@dataclass(frozen=True)
class Bar:
    """What onnxopt must hold against float.

    Attributes:
        lost: Points of score that it may lose.
        agreement: Least agreement with the float model, 0..1.
        sqnr_db: Least SQNR of the outputs, in dB.
    """

    lost: float
    agreement: float | None = None
    sqnr_db: float | None = None

    def holds(self, figures: dict[str, Any]) -> bool:
        """Whether a candidate's figures are within."""
        floors = (("agreement", self.agreement), ("sqnr_db", self.sqnr_db))
        return figures["lost"] <= self.lost and all(least is None or figures[name] >= least for name, least in floors)

    def __str__(self) -> str:
        floors = (number(100 * self.agreement, 0, " %") if self.agreement else "", number(self.sqnr_db, 0, " dB"))
        return ", ".join([f"{self.lost} lost", *(text for text in floors if text not in {"", "-"})])


BARS = {"mobilenet_v2": Bar(0.7, 0.94, 18.0), "yolox_nano": Bar(1.0), "yolo11n_synth320": Bar(0.5)}


@dataclass(frozen=True)
class Candidate:
    """A model to judge by its answers.

    Attributes:
        name: What tables call it.
        file: The model.
        runtime: What runs it; None: ONNX Runtime runs it as it is written, all graph optimizations off.
        ours: Whether onnxopt made it.
    """

    name: str
    file: Path
    runtime: Runtime | None
    ours: bool = False

    @property
    def run_by(self) -> str:
        """The runtime, for people."""
        return self.runtime.version if self.runtime is not None else "as written"

    def open(self, threads: int = 1) -> Session:
        """Load it."""
        if self.runtime is None:
            return OrtSession(self.file, threads=threads, optimized=False)
        return self.runtime.open(self.file, threads=threads)


def candidates_for(model: Path, targets: Sequence[str], folder: Path, **options: Any) -> list[Candidate]:
    """The float model, and what onnxopt makes of it for each target; what fails is named and left out.

    Args:
        model: The float model.
        targets: Names.
        folder: Where models go.
        options: Of `optimize`, `passes` and `data` among them.
    """
    candidates = [Candidate("float", model, OrtRuntime())]
    for target in targets:
        file = folder / f"{target}.onnx"
        try:
            # Whether int8 is faster here does not matter: what is judged are its answers.
            optimize(model, target=target, keep_anyway=True, **options).save(file)
        except OnnxoptError as error:
            workbench.say(f"not measured: {model.stem} for {target}; onnxopt failed: {error}")
            continue
        candidates.append(Candidate(f"onnxopt, {target}", file, load_runtime(load_target(target)), ours=True))
    return candidates


@dataclass
class Judged:
    """One candidate while it is judged."""

    candidate: Candidate
    session: Session
    score: Accumulator
    distance: Comparison


def build(subject: Subject, options: Namespace, folder: Path) -> list[Candidate]:
    """Make the candidates, the float model first."""
    data = subject.samples(options.samples)
    made = candidates_for(subject.file, options.targets.split(","), folder, passes=options.passes, data=data)
    if not options.peer:
        return made
    quantize_static_candidate(subject, options.samples, folder / "peer.onnx")
    return [*made, Candidate(ORT_NAME, folder / "peer.onnx", OrtRuntime())]


def judge(subject: Subject, candidates: Sequence[Candidate], threads: int, limit: int | None) -> list[dict[str, Any]]:
    """Run all candidates over the scored pictures once, in constant memory; one record each."""
    metadata = subject.graph.metadata
    metric = load_metric(subject.metric, metadata=metadata)
    judged = [Judged(c, c.open(threads), metric.start(), Comparison(metadata)) for c in candidates]
    count = 0
    for sample in subject.samples(limit, "evaluation"):
        outputs = [each.session.run(sample.feeds) for each in judged]
        for each, found in zip(judged, outputs, strict=True):
            each.score.update(found, sample)
            each.distance.update(outputs[0], found, sample)
        count += 1
    facts = {"model": subject.name, "metric": metric.name, "pictures": count}
    float_points = 100 * judged[0].score.compute()
    return [facts | figures(each, float_points, BARS.get(subject.name)) for each in judged]


def figures(each: Judged, float_points: float, bar: Bar | None) -> dict[str, Any]:
    """What was found of one candidate; `held` is None where there is no bar for it."""
    agreement = each.distance.result()
    points = 100 * each.score.compute()
    found: dict[str, Any] = {
        "candidate": each.candidate.name,
        "run_by": each.candidate.run_by,
        "points": points,
        "lost": float_points - points,
        "agreement": agreement.share,
        "sqnr_db": agreement.worst_sqnr_db,
    }
    judged = bar if each.candidate.ours else None
    return found | {"bar": str(judged or "-"), "held": judged.holds(found) if judged is not None else None}


def table(found: Sequence[dict[str, Any]]) -> str:
    """The figures of one model for people."""
    return markdown(
        HEADER,
        [
            (
                f["candidate"],
                f["run_by"],
                number(f["points"], 1),
                number(f["lost"], 2) if f["candidate"] != "float" else "-",
                number(100 * f["agreement"], 1, " %") if f["agreement"] is not None else "-",
                number(f["sqnr_db"], 1),
                f["bar"],
                {None: "-", True: "yes", False: "NO"}[f["held"]],
            )
            for f in found
        ],
    )


def main() -> None:
    """Build, judge, print."""
    parser = workbench.command_line(__doc__, samples=128)
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    parser.add_argument("--targets", default=TARGETS, metavar="NAMES", help="with commas; default %(default)s")
    parser.add_argument("--peer", action=BooleanOptionalAction, default=True, help=f"beside {ORT_NAME}")
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
            candidates = build(subject, options, Path(folder))
            found = judge(subject, candidates, options.threads, options.limit)
        title = f"**{subject.name}**, {found[0]['metric']} on {found[0]['pictures']} pictures"
        print(f"{title}\n\n{table(found)}\n", flush=True)
        everything += found
    workbench.write_results(options.json, "accuracy", facts, everything)


if __name__ == "__main__":
    main()
