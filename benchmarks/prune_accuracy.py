"""Accuracy of pruned models without training, against the bars of `BARS`.

Claim: with calibration pictures alone, no labels and no training, models that lose a tenth to a third of their
multiply-accumulates stay within the bars, where removal by weight norm leaves nothing.

MACs are those of Conv, Gemm and MatMul of the whole graph. Every choice and fit is made on calibration pictures; the
scored pictures are seen by nothing else. KL is the mean divergence of the classes' probabilities from the float
model's, agreement the share of equal top classes or the F1 of confident boxes. Scores of few pictures are noisy.
"""

import time
from argparse import Namespace
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import workbench
from workbench import Subject, markdown, number

from onnxopt import Graph, UsageError
from onnxopt.analysis.cost import Cost
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.decoding import class_scores
from onnxopt.evaluation.metrics import load_metric
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.registry import load_target
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession
from onnxopt_passes.prune import Prune

HEADER = ("model, what remains", "MACs", "score", "lost", "agreement", "KL", "seconds", "bar", "held")


@dataclass(frozen=True)
class Bar:
    """A cut, and what it must hold.

    Attributes:
        macs: Share of the multiply-accumulates that may remain.
        align: Kept counts are multiples of this.
        score: Least score in points; None: `lost` counts.
        agreement: Least agreement in percent.
        divergence: Largest KL.
        lost: Points that may be lost.
    """

    macs: float
    align: int = 1
    score: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    lost: float | None = None

    def holds(self, found: dict[str, Any]) -> bool:
        """Whether figures are within."""
        return (
            (self.score is None or found["score"] >= self.score)
            and (self.agreement is None or found["agreement"] >= self.agreement)
            and (self.divergence is None or found["divergence"] <= self.divergence)
            and (self.lost is None or found["lost"] <= self.lost)
        )

    def __str__(self) -> str:
        if self.lost is not None:
            return f"{self.lost:g} lost"
        return f"{self.score:g} / {self.agreement:g} / {self.divergence:g}"


BARS = {
    "mobilenet_v2": (
        Bar(0.9, 1, 80, 91, 0.06),
        Bar(0.8, 1, 76.5, 85, 0.18),
        Bar(0.7, 1, 70.5, 76, 0.45),
        Bar(0.8, 16, 75.5, 82, 0.25),
        Bar(0.7, 16, 68, 73, 0.50),
    ),
    "yolox_nano": (Bar(0.9, 1, lost=3), Bar(0.8, 1, lost=8)),
    "yolo11n_synth320": (Bar(0.8, 1, lost=3), Bar(0.7, 1, lost=7)),
}


def prune(subject: Subject, bar: Bar, options: Namespace) -> tuple[Graph, float]:
    """The pruned model, and how many seconds it took."""
    context = Context(load_target("ort"), inputs=subject.inputs)
    context.fit, context.holdout = subject.samples(options.samples).split_holdout(3)
    graph = subject.graph.copy()
    start = time.perf_counter()
    run_pass(Prune(macs=bar.macs, align=bar.align, criterion=options.criterion), graph, context, [])
    return graph, time.perf_counter() - start


def macs_of(subject: Subject, graph: Graph) -> int:
    """Multiply-accumulates of one run."""
    context = Context(load_target("ort"), inputs=subject.inputs)
    context.bind(graph, PassRecord("cost"))
    return context.get(Cost).total_macs


def judge(subject: Subject, graph: Graph, limit: int | None) -> dict[str, Any]:
    """Score, agreement and divergence on the scored pictures."""
    metadata = subject.graph.metadata
    metric = load_metric(subject.metric, metadata=metadata)
    first, second = (OrtSession(g.to_proto()) for g in (subject.graph, graph))
    scores = [metric.start(), metric.start()]
    distance, divergences = Comparison(metadata), []
    for sample in subject.samples(limit, "evaluation"):
        outputs = [s.run(sample.feeds) for s in (first, second)]
        for score, found in zip(scores, outputs, strict=True):
            score.update(found, sample)
        distance.update(*outputs, sample)
        divergences.append(divergence(*outputs))
    agreement = distance.result()
    before, after = (100 * s.compute() for s in scores)
    share = agreement.share
    return {
        "score": after,
        "lost": before - after,
        "agreement": 100 * share if share is not None else None,
        "divergence": float(np.mean(divergences)) if subject.metric == "top1" else None,
    }


def divergence(wanted: dict[str, Any], got: dict[str, Any]) -> float:
    """KL of one picture's probabilities; 0 for models that are no classifiers."""
    first, second = class_scores(wanted), class_scores(got)
    if first is None or second is None:
        return 0.0
    p, q = (v - np.logaddexp.reduce(v, axis=1, keepdims=True) for v in (first.astype(float), second.astype(float)))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def measure(subject: Subject, bar: Bar, options: Namespace) -> dict[str, Any]:
    """One row of the table."""
    graph, seconds = prune(subject, bar, options)
    share = macs_of(subject, graph) / macs_of(subject, subject.graph)
    found = {**judge(subject, graph, options.limit), "model": subject.name, "macs": share, "seconds": seconds}
    return {**found, "bar": asdict(bar), "held": bar.holds(found), "text": str(bar)}


def row(found: dict[str, Any]) -> list[str]:
    """As the table has it."""
    aligned = f", aligned to {found['bar']['align']}" if found["bar"]["align"] > 1 else ""
    return [
        f"{found['model']}, {found['bar']['macs']:g}{aligned}",
        number(found["macs"], 3),
        number(found["score"], 2),
        number(found["lost"], 2),
        number(found["agreement"], 1),
        number(found["divergence"], 3),
        number(found["seconds"], 0),
        found["text"],
        "yes" if found["held"] else "no",
    ]


def main() -> None:
    """Cut, score, and print."""
    parser = workbench.command_line(__doc__, samples=128)
    parser.add_argument("--criterion", help="how channels are ranked; default: the pass's own")
    parser.add_argument("--macs", type=float, action="append", help="only the cuts that leave this share")
    parser.add_argument("--align", type=int, action="append", help="only the cuts aligned to this")
    parser.add_argument("--limit", type=int, help="score on so many pictures only")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}\n")
    everything = []
    for subject in workbench.find_subjects(options, BARS):
        if subject.evaluation is None or subject.calibration is None:
            workbench.say(f"not measured: {subject.name}; its pictures are missing (--shared)")
            continue
        for bar in BARS[subject.name]:
            if bar.macs not in (options.macs or [bar.macs]) or bar.align not in (options.align or [bar.align]):
                continue
            try:
                everything.append(measure(subject, bar, options))
            except UsageError as error:
                workbench.say(f"not measured: {subject.name}, {bar.macs:g}; {error}")
                continue
            print(markdown(HEADER, [row(everything[-1])]), flush=True)
    print("\n" + markdown(HEADER, map(row, everything)))
    workbench.write_results(options.json, "prune_accuracy", facts, everything)


if __name__ == "__main__":
    main()
