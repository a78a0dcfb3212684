"""How good a model is on labelled samples, and how far it agrees with the float model it came from.

```python
from onnxopt.evaluate import evaluate

found = evaluate("model.opt.onnx", "data.yaml", reference="model.onnx")
print(found.score, found.interval, found.agreement)
```

1. The metric is the one asked for, or suits the labels and what the model does (`evaluation.choosing`).
2. With a reference, both models are scored on the same samples and their outputs compared.
3. Without labels, only the agreement with the reference can be told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from onnxopt import __version__, gates, registry
from onnxopt.data import Boxes, Dataset, Sample, open_dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.choosing import choose_metric
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.evaluation.interval import drop_interval, score_interval
from onnxopt.evaluation.metrics import Metric, Score, Scoring, load_metric
from onnxopt.evaluation.predictions import Predictions
from onnxopt.evaluation.throughput import Timed, batch_size, run_all
from onnxopt.graph import Graph
from onnxopt.optimization.subject import Subject
from onnxopt.report.evaluation import Compared, Evaluation, Speed
from onnxopt.runtime import host, latency
from onnxopt.runtime.adapter import Session, load_runtime, prepared, processor_of
from onnxopt.runtime.ort import OrtRuntime, OrtSession
from onnxopt.targets import Target

Model = str | Path | onnx.ModelProto | Graph
Progress = Callable[[int, int], object]
ROUNDS, SECONDS = 30, 20.0  # of timing, where a gate asks for it
TIMED = frozenset({"latency", "speedup"})  # names of gates
COMPARED = frozenset({"agreement", "sqnr", "speedup"})


@dataclass(frozen=True)
class Evaluated:
    """What was found.

    Attributes:
        report: All of it, as a report has it.
        predictions: What the model said of each sample, if that was asked for.
    """

    report: Evaluation
    predictions: Predictions | None = None


def evaluate(
    model: Model,
    data: Any,
    *,
    target: str | Target = "ort",
    metric: Any = None,
    decode: str | None = None,
    reference: Model | None = None,
    preprocess: Any = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    threads: int = 1,
    provider: str | None = None,
    require: str | None = None,
    predictions: bool = False,
    progress: Progress | None = None,
) -> Evaluated:
    """Run a model over samples and say how good it is.

    Args:
        model: File, protobuf or graph.
        data: What to score on; see `--data`. Of a source with splits the one for validation is read.
        target: Whose runtime runs it; where that is not here, ONNX Runtime runs the graph as it is written.
        metric: See `load_metric`; default: what suits the labels.
        decode: Decoder by name, such as `yolox` or `ctc{alphabet=FILE}`; default: found.
        reference: The float model to agree with.
        preprocess: How pictures become inputs; default: inferred from metadata.
        samples: Use at most so many, spread evenly.
        input_shapes: Input name to shape, for dynamic inputs.
        batch: How many samples to run at once; default: the model's own batch, or 1.
        threads: Of each session.
        provider: Execution provider of ONNX Runtime, such as `cuda`.
        require: Gates, such as `map>=-1pt,latency<=20ms`.
        predictions: Keep what the model said of each sample.
        progress: Called with the number of samples done, and of all.

    Raises:
        UsageError: The model, the data or the request cannot be used, or there is nothing to judge by.
        OptimizationError: A runtime or the metric failed, or something is NaN.
        GateMissed: The model is not as good as required.
    """
    subject = Subject(model, _target(target, provider), input_shapes)
    shapes = {spec.name: spec.shape for spec in subject.inputs}
    compared = _reference(reference, subject.target, shapes) if reference is not None else None
    work = _Work(subject, compared, decode, batch, threads)
    work.open(data, preprocess, samples)
    work.choose(metric, require)
    return work.run(keep=predictions, progress=progress)


def _target(target: str | Target, provider: str | None) -> Target:
    table = registry.load_target(target) if isinstance(target, str) else target
    if provider is None:
        return table
    if not isinstance(load_runtime(table), OrtRuntime):
        raise UsageError(f"--provider is of ONNX Runtime on this machine, where target '{table.name}' does not run")
    return replace(table, runtime=OrtRuntime(provider))


def _reference(model: Model, target: Target, shapes: Mapping[str, Sequence[int]]) -> Subject:
    try:
        return Subject(model, target, shapes)
    except UsageError as error:
        raise UsageError(f"the reference cannot be compared: {error}") from None


class _Work:
    """One evaluation, from the opened models to the report.

    Args:
        subject: The model.
        reference: The float model, if there is one.
        decode: Decoder that the user named.
        batch: Samples at once, as asked.
        threads: Of each session.

    Raises:
        UsageError: The batch does not fit, the models do not take the same inputs, or they cannot be run.
    """

    def __init__(
        self, subject: Subject, reference: Subject | None, decode: str | None, batch: int | None, threads: int
    ) -> None:
        self.subject, self.reference, self.threads = subject, reference, threads
        self.warnings = [*subject.warnings]
        if not subject.small:
            raise UsageError(f"{subject.graph.source}: {subject.cannot_run}, so it cannot be run here")
        if subject.runtime is None:
            self.warnings.append(
                f"target {subject.target.name} cannot run here: ONNX Runtime runs the graph as it is written"
            )
        self.batch = batch_size(subject.graph, subject.inputs, batch)
        if reference is not None:
            batch_size(reference.graph, reference.inputs, self.batch)
        self.metadata = (reference.graph.metadata if reference is not None else {}) | subject.graph.metadata
        self.reader = Reader(self.metadata, decode)
        self.metric: Metric | None = None
        self.gates: tuple[gates.Gate, ...] = ()
        self.samples: Dataset

    def open(self, data: Any, preprocess: Any, samples: int | None) -> None:
        """Open the data.

        Raises:
            UsageError: It cannot be used.
        """
        self.samples = open_dataset(
            data,
            self.subject.inputs,
            role="evaluation",
            preprocess=preprocess,
            samples=samples,
            metadata=self.metadata,
        )

    def choose(self, metric: Any, require: str | None) -> None:
        """Settle what is measured, and refuse gates that could not be judged.

        Raises:
            UsageError: There is nothing to judge by, or a gate names what is not measured.
        """
        self.gates = gates.parse_gates(require) if require is not None else ()
        metric = metric if metric is not None else gates.named_metric(self.gates)
        if metric is None:
            metric = choose_metric(self.subject.graph, self.samples, self.reader.decode)
        if metric is not None:
            self.metric = load_metric(metric, metadata=self.metadata, decode=self.reader.decode)
        elif self.reference is None:
            self._refuse_unjudged(next(iter(self.samples)))
        untimed = "" if self.subject.runtime is not None else "the target cannot run here"
        gates.check_judgeable(self.gates, metric=self.metric, cannot_time=untimed)
        for gate in self.gates:
            if self.reference is None and (gate.against or gate.name in COMPARED):
                raise UsageError(f"--require: {gate} is read against the float model; give it with --reference")

    def _refuse_unjudged(self, sample: Sample) -> None:
        """Say what is missing where there is neither a metric nor a reference."""
        if sample.label is None:
            raise UsageError(
                f"{self.samples.description} have no labels, so there is nothing to score by; "
                "give labelled data, or the float model with --reference to agree with"
            )
        kind = "objects" if isinstance(sample.label, Boxes) else f"labels such as {sample.label!r:.40}"
        raise UsageError(
            f"{self.samples.description} have {kind}, and what the model gives does not look like that "
            f"({', '.join(map(str, self.subject.graph.outputs))}); say which --decode or --metric suits it"
        )

    def run(self, *, keep: bool, progress: Progress | None) -> Evaluated:
        """Run all samples through the models, and report.

        Raises:
            OptimizationError: A runtime or the metric failed, or something is NaN.
            GateMissed: The model is not as good as required.
        """
        predictions = Predictions(self.reader) if keep else None
        subjects = [self.subject] if self.reference is None else [self.subject, self.reference]
        timed = [Timed(self._session(subject), self.batch) for subject in subjects]
        scorings = [Scoring(self.metric) for _ in subjects] if self.metric is not None else []
        comparison = Comparison(self.metadata, self.reader.decode) if self.reference is not None else None
        count, task = 0, None
        for sample, outputs in run_all(timed, self.samples):
            # The float model comes first: by its outputs the decoder is told.
            for scoring, given in reversed(list(zip(scorings, outputs, strict=False))):
                scoring.update(given, sample)
            if comparison is not None:
                comparison.update(outputs[1], outputs[0], sample)
            if predictions is not None:
                predictions.update(outputs[0], sample)
            task = task or self.reader.task(outputs[-1], sample.feeds)
            count += 1
            if progress is not None:
                progress(count, len(self.samples))
        scores = [scoring.finish() for scoring in scorings]
        report = self._report(count, task, scores, timed[0])
        if comparison is not None:
            report.compared = self._compared(scores, comparison)
        report.speed = self._timed(report.speed, [each.session for each in timed])
        self._judge(report)
        return Evaluated(report, predictions)

    def _session(self, subject: Subject) -> Session:
        proto = subject.graph.to_proto()
        if self.subject.runtime is None:
            return OrtSession(proto, threads=self.threads, optimized=False)
        return self.subject.runtime.open(proto, threads=self.threads)

    def _report(self, count: int, task: str | None, scores: Sequence[Score], timed: Timed) -> Evaluation:
        metric, runtime = self.metric, self.subject.runtime
        rate = timed.clock.per_second
        report = Evaluation(
            model=_described(self.subject),
            target={
                "name": self.subject.target.name,
                "runtime": runtime.version if runtime is not None else "onnxruntime, the graph as it is written",
            },
            inputs=[str(spec) for spec in self.subject.inputs],
            data={"source": self.samples.description, "digest": self.samples.digest(), "samples": count},
            speed=Speed(rate, 1000 / rate if rate else 0.0, self.batch, self.threads),
            task=task,
            warnings=[*self.warnings, *self.samples.notes],
            environment={
                "onnxopt": __version__,
                "processor": processor_of(runtime),
                **host.versions("onnx", "onnxruntime", "numpy", "openvino", "pycocotools", "jiwer"),
            },
        )
        if metric is not None:
            evidence = scores[0].evidence()
            report.metric, report.lower_is_better, report.point = metric.name, metric.lower_is_better, metric.point
            report.score, report.details = scores[0].value, dict(scores[0].details())
            report.interval = score_interval(evidence) if evidence is not None else None
        return report

    def _compared(self, scores: Sequence[Score], comparison: Comparison) -> Compared:
        assert self.reference is not None
        agreement = comparison.result()
        parts = {name: distance.sqnr_db for name, distance in agreement.parts.items()}
        found = Compared(_described(self.reference), top1=agreement.top1, detections=agreement.detections, parts=parts)
        if self.metric is None:
            return found
        after, before = scores
        sign = -1.0 if self.metric.lower_is_better else 1.0
        evidence = before.evidence(), after.evidence()
        interval = (
            drop_interval(evidence[0], evidence[1], sign=sign)
            if evidence[0] is not None and evidence[1] is not None
            else None
        )
        return replace(found, score=before.value, drop=sign * (before.value - after.value), drop_interval=interval)

    def _timed(self, speed: Speed, sessions: Sequence[Session]) -> Speed:
        """Add latencies in rounds, one sample at a time, where a gate asks for them."""
        if not any(gate.name in TIMED for gate in self.gates):
            return speed
        feeds = fill_batch(next(iter(self.samples)).feeds, self.subject.inputs)
        runs = {str(i): prepared(session, feeds) for i, session in enumerate(reversed(sessions))}
        found = latency.compare(runs, rounds=ROUNDS, seconds=SECONDS).latencies
        ours = found[-1]
        speed = replace(speed, latency_ms=ours.milliseconds.median, latency_spread_ms=ours.milliseconds.spread)
        if len(found) == 1:
            return speed
        return replace(speed, reference_ms=found[0].milliseconds.median, speedup=ours.speedup.median)

    def _judge(self, report: Evaluation) -> None:
        if not self.gates:
            return
        outcomes = gates.judge_gates(self.gates, _figures(report))
        report.gates = [outcome.to_dict() for outcome in outcomes]
        gates.refuse_missed(outcomes)


def _described(subject: Subject) -> dict[str, Any]:
    return {"source": str(subject.graph.source), "digest": subject.digest, "bytes": subject.figures.bytes}


def _figures(report: Evaluation) -> dict[str, gates.Figure]:
    """What gates are judged by; relative ones have been refused where there is no reference."""
    compared, speed = report.compared, report.speed
    found = {"size": gates.Figure(report.model["bytes"], compared.model["bytes"] if compared is not None else None)}
    if report.score is not None and report.metric is not None:
        before = compared.score if compared is not None else None
        found[gates.SCORE] = found[report.metric] = gates.Figure(report.score, before, report.point)
    if speed.latency_ms is not None:
        found["latency"] = gates.Figure(speed.latency_ms, speed.reference_ms)
    if speed.speedup is not None:
        found["speedup"] = gates.Figure(speed.speedup, 1.0)
    if compared is not None and compared.share is not None:
        found["agreement"] = gates.Figure(compared.share, 1.0, point=0.01)
    if compared is not None and compared.worst_sqnr_db is not None:
        found["sqnr"] = gates.Figure(compared.worst_sqnr_db)
    return found
