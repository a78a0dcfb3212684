"""One evaluation, from the opened models to the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxopt import __version__, gates
from onnxopt.data import Boxes, Dataset, Sample, open_dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.agreement import Comparison
from onnxopt.evaluation.batches import fill_dataset
from onnxopt.evaluation.choosing import AGREEMENT, choose_metric
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.evaluation.metrics import Metric, Scoring, load_metric
from onnxopt.evaluation.predictions import Predictions
from onnxopt.evaluation.throughput import Timed, batch_size, run_all
from onnxopt.optimization.findings import Pair
from onnxopt.optimization.judging import UNSUITED
from onnxopt.optimization.subject import Subject
from onnxopt.report.evaluation import Evaluation, Speed
from onnxopt.report.findings import Findings
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Session, install_hint, naming_model, processor_of
from onnxopt.runtime.ort import OrtSession
from onnxopt.scoring.outcome import add_score, compared, described, judge, nothing_fits, with_latency

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Evaluated:
    """What was found.

    Attributes:
        report: All of it, as a report has it.
        predictions: What the model said of each sample, if that was asked for.
        findings: What a page shows of the model beside the float model, if that was asked for and there is one.
    """

    report: Evaluation
    predictions: Predictions | None = None
    findings: Findings | None = None


class Work:
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
                f"{install_hint(subject.target)}"
            )
        elif getattr(subject.runtime, "processor", ""):
            self.warnings.append("samples travel to the device and back, and the speed includes that")
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
        agreement = isinstance(metric, str) and metric == AGREEMENT
        if agreement and self.reference is None:
            raise UsageError(f"metric {AGREEMENT} is with the float model; give it with --reference")
        if metric is None:
            metric = choose_metric(self.subject.graph, self.samples, self.reader.decode)
        if metric is not None and not agreement:
            self.metric = load_metric(metric, metadata=self.metadata, decode=self.reader.decode)
        elif self.reference is None:
            self._refuse_unjudged(next(iter(self.samples)))
        elif not agreement and next(iter(self.samples)).label is not None:
            self.warnings.append(f"{UNSUITED}: nothing is scored by them")
        gates.check_judgeable(self.gates, metric=self.metric, cannot_time=self.subject.why_not_run)
        for gate in self.gates:
            if self.reference is None and gate.needs_reference:
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

    def run(self, *, keep: bool, findings: bool, progress: Progress | None) -> Evaluated:
        """Run all samples through the models, and report.

        Args:
            keep: Keep what the model said of each sample.
            findings: Measure what a page shows beside the figures, too.
            progress: Called with the number of samples done, and of all.

        Raises:
            UsageError: A runtime does not take a model.
            OptimizationError: A runtime or the metric failed, or something is NaN.
            GateMissed: The model is not as good as required.
        """
        predictions = Predictions(self.reader) if keep else None
        subjects = [self.subject] if self.reference is None else [self.subject, self.reference]
        timed = [Timed(self._session(subject), self.batch) for subject in subjects]
        scorings = [Scoring(self.metric) for _ in subjects] if self.metric is not None else []
        comparison = Comparison(self.metadata, self.reader.decode) if self.reference is not None else None
        count, task, usual = 0, None, None
        for sample, outputs in run_all(timed, self.samples):
            # The float model comes first: by its outputs the decoder is told.
            for scoring, given in reversed(list(zip(scorings, outputs, strict=False))):
                scoring.update(given, sample)
            if comparison is not None:
                comparison.update(outputs[1], outputs[0], sample)
            if predictions is not None:
                predictions.update(outputs[0], sample)
            task = task or self.reader.task(outputs[-1], sample.feeds)
            usual = usual or Reader(self.metadata).decoder(outputs[-1], sample.feeds)
            count += 1
            if progress is not None:
                progress(count, len(self.samples))
        scores = [scoring.finish() for scoring in scorings]
        if self.metric is not None:
            self.warnings += nothing_fits(self.metric, scores[0], self.reader.decode, usual)
        report = self._report(count, task, timed[0])
        if self.metric is not None:
            add_score(report, self.metric, scores[0])
        if comparison is not None and self.reference is not None:
            report.compared = compared(self.reference, comparison, self.metric, scores)
        if any(gate.is_timed for gate in self.gates):
            feeds = fill_batch(next(iter(self.samples)).feeds, self.subject.inputs)
            report.speed = with_latency(report.speed, [each.session for each in timed], feeds)
        if self.gates:
            judge(report, self.gates)
        return Evaluated(report, predictions, self._findings() if findings else None)

    def _findings(self) -> Findings | None:
        if self.reference is None:
            return None
        subject = self.subject
        samples = fill_dataset(self.samples, subject.inputs)
        before, after, decode = self.reference.graph, subject.graph, self.reader.decode
        pair = Pair(before, after, subject.target, subject.runtime, subject.inputs, samples, samples, decode=decode)
        return pair.measure()

    def _session(self, subject: Subject) -> Session:
        proto = subject.graph.to_proto()
        with naming_model(subject.graph.source):
            if self.subject.runtime is None:
                return OrtSession(proto, threads=self.threads, optimized=False)
            return self.subject.runtime.open(proto, threads=self.threads)

    def _report(self, count: int, task: str | None, timed: Timed) -> Evaluation:
        runtime, rate = self.subject.runtime, timed.clock.per_second
        return Evaluation(
            model=described(self.subject),
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
