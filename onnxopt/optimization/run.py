"""One optimization, from the request to the result."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import onnx

from onnxopt import __version__, formats, gates, guard
from onnxopt import recipe as recipes
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationTable
from onnxopt.doctor import short as doctor
from onnxopt.errors import OnnxoptError, OptimizationError, UsageError
from onnxopt.evaluation.budget import Budget, Judge, Verdict
from onnxopt.evaluation.choosing import AGREEMENT
from onnxopt.evaluation.metrics import Metric
from onnxopt.evaluation.samples import Samples, open_samples
from onnxopt.graph import Graph
from onnxopt.manager import Observer, check_requirements
from onnxopt.observers.verify import Level, Verify
from onnxopt.optimization.findings import Pair
from onnxopt.optimization.judging import UNSUITED, Judgement, choose_judgement
from onnxopt.optimization.outcome import measure_outcome, time_stage
from onnxopt.optimization.rounds import Round, faster_alone, measured, stages_alone
from onnxopt.optimization.subject import Subject
from onnxopt.pass_api import Context
from onnxopt.pipeline import Stage
from onnxopt.report.document import Document
from onnxopt.report.findings import Findings
from onnxopt.report.record import StageRecord
from onnxopt.report.run import Alone, RunReport, kept_float
from onnxopt.report.run_document import run_document
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Runtime, processor_of

VERIFY_OUTPUTS_UP_TO = 200 * 2**20  # bytes of weights
SYNTHETIC_WARNING = "no --data given: calibrated on synthetic pictures, so accuracy is unverified"
JUDGED_ON_SYNTHETIC = "no --data given: judged on synthetic pictures, so accuracy is unverified"


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        graph: The optimized model.
        report: Everything measured and done.
        recipe: The resolved recipe; running it again gives the same bytes.
        shapes: Input name to the size that it was run at.
        findings: What was measured for an HTML page alone, if it was asked for.
    """

    graph: Graph
    report: RunReport
    recipe: recipes.Recipe
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    findings: Findings | None = None

    @property
    def document(self) -> Document:
        """What an HTML page shows of it; see `onnxopt.report.html.write_html`."""
        return run_document(self.report, self.findings)

    @property
    def model(self) -> onnx.ModelProto:
        """The optimized model as protobuf."""
        return self.graph.to_proto()

    def save(self, path: str | Path) -> list[Path]:
        """Write the model, whole or not at all; the ending says in which format: see `onnxopt.formats`.

        Returns:
            The files written.

        Raises:
            UsageError: An unknown ending, a folder that cannot be written, or a full disk.
            OptimizationError: The runtime whose format it is does not take the model.
        """
        return formats.save(self.graph, path, self.shapes)


@dataclass(frozen=True)
class Wanted:
    """What was asked for, under the names that a recipe has for it; None: not said."""

    pipeline: Any
    target: Any
    source: Any
    evaluation: Any
    metric: Any
    max_drop: str | float | None
    calibration_table: str | Path | None
    preprocess: Any
    samples: int | None
    require: str | None = None

    def or_else(self, said: recipes.Recipe | None) -> "Wanted":
        """What a recipe says where nothing else was asked for."""
        missing = [f.name for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{name: getattr(said, name, None) for name in missing})


class Optimization:
    """A model, the stages it goes through, and the data that it is fitted, judged and scored on.

    Table, data and metric are opened and the float model is scored here, so that mistakes show early.

    Args:
        subject: The model as it came.
        stages: What to do.
        wanted: The request.
        undo: Undo a stage that made the model slower, or with which the budget is missed.
        enforced: Refuse a result that misses the budget, or whose outputs are not finite.
        may_miss: Hand back what misses the budget all the same; the report says so.
        ending: Of the file that will be written, whose size the report has and gates are held to.

    Raises:
        UsageError: Something cannot be used, no pass has a use for the table, or a gate could not be judged.
    """

    def __init__(
        self,
        subject: Subject,
        stages: Sequence[Stage],
        wanted: Wanted,
        *,
        undo: bool = True,
        enforced: bool = True,
        may_miss: bool = False,
        ending: str = ".onnx",
    ) -> None:
        self.subject, self.stages, self.wanted, self.ending = subject, list(stages), wanted, ending
        self.undo, self.enforced, self.may_miss = undo, enforced, may_miss
        if not ending.startswith("."):
            raise UsageError(f"the ending '{ending}' has no dot; give one such as .onnx or .xml")
        formats.check(Path(f"model{ending}"), subject.target)
        budget = Budget.parse(wanted.max_drop) if wanted.max_drop is not None else None
        self.gates = gates.parse_gates(wanted.require) if wanted.require is not None else ()
        self.table = self._open_table(wanted.calibration_table)
        self.samples: Samples = open_samples(
            subject.graph, subject.inputs, wanted.source, wanted.evaluation, wanted.preprocess, wanted.samples
        )
        self.warnings = [*self.samples.notes]
        if self.samples.synthetic and any(p.needs_data for stage in self.stages for p in stage.passes):
            self.warnings.append(SYNTHETIC_WARNING if self.table is None else JUDGED_ON_SYNTHETIC)
        subject.try_once(next(iter(self.samples.fit)).feeds)
        if not self.samples.synthetic and not subject.cannot_run:
            self.warnings += doctor.warnings(subject.graph, subject.inputs, self.samples.data, subject.costs.total_macs)
        self.judgement = self._judgement(suited=budget is not None)
        if self.judgement.why == UNSUITED:
            self.warnings.append(f"{UNSUITED}: they are not used, and agreement with the float model judges")
        gates.check_judgeable(
            self.gates, metric=self.metric, cannot_time=subject.why_not_measured, cannot_run=subject.why_not_run
        )
        self.judge: Judge | None = None
        if budget is not None and subject.cannot_run:
            raise UsageError(f"a budget needs the model to be run, and that is not possible: {subject.cannot_run}")
        if budget is not None and self.samples.evaluation is self.samples.fit:
            raise UsageError(
                "a budget cannot be judged on the single sample that the model is fitted to; "
                "give more with --data, or others with --eval-data"
            )
        if budget is not None:
            self.judge = Judge(budget, subject.graph, self.samples.evaluation, subject.timed_on, self.metric)
        self.shared: tuple[Any, ...] = ()

    def _judgement(self, *, suited: bool) -> Judgement:
        """What judges; labels are looked at where a budget or a gate needs a score."""
        suited = (suited or any(gate.is_score for gate in self.gates)) and not self.subject.cannot_run
        return choose_judgement(
            self.subject.graph, self.samples.evaluation, self.wanted.metric, self.gates, suited=suited
        )

    @property
    def metric(self) -> Metric | None:
        """The score; None for agreement with the float model."""
        return self.judgement.metric

    def with_stages(self, stages: Sequence[Stage], shared: Iterable[Any] = ()) -> "Optimization":
        """The same request with other stages; nothing is opened, and the float model is not scored, again.

        Args:
            stages: What to do instead.
            shared: Artefacts that passes of several optimizations use together.
        """
        other = copy.copy(self)
        other.stages, other.warnings, other.shared = list(stages), [*self.warnings], tuple(shared)
        return other

    def _open_table(self, file: str | Path | None) -> TableFile | None:
        if file is None:
            return None
        if not any(CalibrationTable in p.provides for stage in self.stages for p in stage.passes):
            raise UsageError(f"no pass here calibrates, so {file} is of no use; add quantize")
        return TableFile.at(file)

    def run(self, verify: Level | None, observers: Sequence[Observer], *, alone: bool = True) -> Result:
        """Run the stages, measure, and report.

        Args:
            verify: How far each pass is checked; None: by the size of the model.
            observers: Watch the passes.
            alone: Whether to measure each lossy stage by itself, too.

        Raises:
            OptimizationError: A pass broke its promise, outputs are not finite, or the budget is missed.
            GateMissed: The result is not as good as required.
        """
        watchers, runtime = [*observers, self._verifier(verify)], self.subject.timed_on
        rounds = self._rounds(watchers)
        self._refuse_missed(rounds[-1].verdict)
        last, rows = (rounds[-1], []) if runtime is None or not alone else self._compared(rounds, verify, runtime)
        context, records, verdict = last.context, last.records, last.verdict
        graph = last.graph.copy()
        self.warnings += verdict.warnings() if verdict is not None else []
        resolved = self._resolved(records, verdict)
        report = self._report(resolved, records, verdict)
        if self.table is not None and context.has(CalibrationTable):
            report.data["calibration_table"] = self.table.identify(context.get(CalibrationTable))
        report.alone = rows
        _sign(graph, resolved, report)
        size = self._size(graph) if self.subject.small else None
        measure_outcome(self.subject, graph, size, self.samples, self.metric, report, strict=self.enforced)
        self._hold_gates(report)
        return Result(graph, report, resolved, self._shapes)

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {i.name: i.shape for i in self.subject.inputs}

    def _size(self, graph: Graph) -> int:
        """Bytes of the files that a graph is written to."""
        return formats.size_of(graph, self.ending, self._shapes)

    def _rounds(self, watchers: Sequence[Observer]) -> list[Round]:
        """Go through the stages, and again without the first lossy one as long as they miss the budget together.

        The last round holds. As a rule the first stage gains less than those behind it; where none of these pays
        without it, it is the one that stays.
        """
        undone: dict[int, StageRecord] = {}
        rounds = [self._round(watchers, undone, {})]
        while self._is_too_much(rounds[-1]):
            index = rounds[-1].lossy[0]
            undone[index] = rounds[-1].missed_with(index)
            rounds.append(self._round(watchers, undone, {}))
        if len(rounds) > 1 and not rounds[-1].lossy:
            first, *others = rounds[0].lossy
            records = rounds[-1].records
            out = {i: rounds[0].missed_with(i) if records[i].kept else records[i] for i in others}
            back = self._round(watchers, out, dict(enumerate(rounds[0].attempts[: first + 1])))
            if back.verdict is not None and back.verdict.met:
                rounds.append(back)
        return rounds

    def _is_too_much(self, last: Round) -> bool:
        """Whether there is a stage to undo since the budget is missed."""
        missed = last.verdict is not None and not last.verdict.met
        return missed and self.undo and not self.may_miss and len(last.lossy) > 1

    def _round(
        self,
        watchers: Sequence[Observer],
        undone: Mapping[int, StageRecord],
        known: Mapping[int, guard.Attempt | None],
    ) -> Round:
        """Run the stages, but those that were undone before, and those of which it is known what they make here."""
        context = self._context()
        if self.table is not None:
            context.put(self.table)
        check_requirements(self.stages, context)
        runtime = self.subject.timed_on
        judge = (lambda a, b: time_stage(runtime, a, b, self.samples)) if runtime is not None and self.undo else None
        graph, attempts, records = self.subject.graph, [], []
        for index, stage in enumerate(self.stages):
            attempt = known.get(index)
            if attempt is None and index not in undone:
                attempt = guard.run_stage(stage, graph, context, watchers, judge)
            graph = attempt.graph if attempt is not None else graph
            attempts.append(attempt)
            records.append(attempt.record if attempt is not None else undone[index])
        verdict = self.judge.verdict(graph) if self.judge is not None else None
        return Round(context, graph, attempts, records, verdict)

    def _compared(self, rounds: Sequence[Round], verify: Level | None, runtime: Runtime) -> tuple[Round, list[Alone]]:
        """Measure each lossy stage by itself; the round that holds, and the figures.

        With a budget, a stage alone holds if it is faster than all together and keeps to the budget, too. Passes that
        are run for this alone are verified, but nobody else watches them.
        """
        lossy = rounds[0].tried
        if len(lossy) < 2:
            return rounds[-1], []
        known = list(rounds)
        for index in (i for i in lossy if not any(r.has_alone(i) for r in rounds)):
            try:
                out = {i: rounds[0].records[i] for i in lossy if i != index}
                known.append(self._round([self._verifier(verify)], out, {}))
            except OnnxoptError:  # it needs one before it
                continue
        graphs = stages_alone(self.stages, self.subject.graph, known, rounds[-1])
        rows = measured(graphs, runtime, self.samples, self.metric, self.subject.macs, self._size)
        may_choose = self.undo and self.judge is not None and len(rounds) == 1
        return (faster_alone(rounds[-1], known, rows) if may_choose else rounds[-1]), rows

    def findings(self, graph: Graph) -> Findings:
        """Measure what an HTML page shows beside the figures of a run; takes some seconds.

        Args:
            graph: What came out.
        """
        subject = self.subject
        if subject.cannot_run:
            return Findings(notes=(f"layers, tensors and pictures: not measured ({subject.cannot_run})",))
        pair = Pair(
            subject.graph,
            graph,
            subject.target,
            subject.runtime,
            subject.inputs,
            self.samples.holdout,
            self.samples.evaluation,
            only_after=subject.only_after,
        )
        return pair.measure()

    def _refuse_missed(self, verdict: Verdict | None) -> None:
        """It is an error to miss the budget."""
        if verdict is not None and not verdict.met and self.enforced and not self.may_miss:
            raise OptimizationError(
                f"{verdict}; nothing is written (allow more, or a larger `most` of keep-float, or --keep-anyway)"
            )

    def _hold_gates(self, report: RunReport) -> None:
        """Refuse a result that is not as good as required, whatever else may be handed back."""
        assert report.after is not None
        quality = report.quality
        found = gates.figures(
            report.before,
            report.after,
            metric=self.metric,
            speedup=report.speedup["median"] if report.speedup is not None else None,
            agreement=report.agreement,
            sqnr_db=quality.get("worst_sqnr_db"),
        )
        outcomes = gates.judge_gates(self.gates, found)
        report.gates = [outcome.to_dict() for outcome in outcomes]
        gates.refuse_missed(outcomes, report, [f"{s.text}: {s.reason}" for s in report.stages if not s.kept])

    def _context(self) -> Context:
        """A context that knows of no pass. Of models that are merely large passes run what parts they can."""
        subject = self.subject
        fed: dict[str, Any] = {"fit": self.samples.fit, "holdout": self.samples.holdout}
        if subject.small and subject.cannot_run:
            fed = {"cannot_run": subject.cannot_run}
        context = Context(subject.target, inputs=subject.inputs, synthetic=not self.samples.can_judge, **fed)
        for artefact in (self.judge, *self.shared):
            if artefact is not None:
                context.put(artefact)
        return context

    def _verifier(self, level: Level | None) -> Verify:
        if level is None:
            level = "outputs" if self.subject.graph.nbytes() < VERIFY_OUTPUTS_UP_TO else "structure"
        if self.subject.cannot_run:
            level = "off" if level == "off" else "structure"
        parts = (self.samples.fit, self.samples.holdout) if level in {"outputs", "full"} else ()
        return Verify(level, [next(iter(part)).feeds for part in parts])

    def _resolved(self, records: list[StageRecord], verdict: Verdict | None) -> recipes.Recipe:
        """What was done, with every decision that was made on the way."""
        wanted = self.wanted
        return recipes.Recipe(
            recipes.resolved_pipeline(records),
            target=self.subject.target.name,
            source=_text(wanted.source),
            evaluation=_text(wanted.evaluation),
            preprocess=self.samples.preprocess,
            samples=wanted.samples,
            calibration_table=_text(wanted.calibration_table),
            max_drop=verdict.max_drop if verdict is not None and verdict.met else None,
            metric=self._metric_in_use() if verdict is not None else None,
            require=",".join(map(str, self.gates)) or None,
            never_slower=False,
        )

    def _metric_in_use(self) -> str | None:
        """How a recipe names it; nothing can be said of a metric that was given as an object."""
        if self.wanted.metric is None:
            return self.metric.name if self.metric is not None else AGREEMENT
        return _text(self.wanted.metric)

    def _report(self, resolved: recipes.Recipe, records: list[StageRecord], verdict: Verdict | None) -> RunReport:
        """What is known before the outcome is measured."""
        subject = self.subject
        warnings = subject.warnings + self.warnings
        # That made-up inputs say nothing of accuracy is among the warnings already.
        if not {SYNTHETIC_WARNING, JUDGED_ON_SYNTHETIC} & set(warnings):
            warnings += self.samples.data.notes
        return RunReport(
            model={"source": subject.graph.source, "digest": subject.digest},
            target={
                "name": subject.target.name,
                "runtime": subject.runtime.version if subject.runtime is not None else "",
                "why_not_measured": subject.why_not_measured,
                "threads": 1,
            },
            inputs=[str(i) for i in subject.inputs],
            data=self.samples.to_dict(),
            before=replace(subject.figures),
            recipe=str(resolved),
            metric=self.metric.name if self.metric is not None else None,
            budget=self._budget(verdict, records) if verdict is not None else None,
            stages=records,
            warnings=warnings,
            environment={
                "onnxopt": __version__,
                "processor": processor_of(subject.runtime),
                **host.versions("onnx", "onnxruntime", "numpy", "numba", "openvino"),
            },
        )

    def _budget(self, verdict: Verdict, records: list[StageRecord]) -> dict[str, Any]:
        judged_on, why = self.samples.evaluation.description, self.judgement.why
        return {**verdict.to_dict(), "why": why, "judged_on": judged_on, **kept_float(records)}


def _text(given: Any) -> str | None:
    """What a recipe can say of it."""
    return str(given) if isinstance(given, str | Path) else None


def _sign(graph: Graph, resolved: recipes.Recipe, report: RunReport) -> None:
    """Write into the model's metadata what made it."""
    graph.set_metadata("onnxopt.version", __version__)
    graph.set_metadata("onnxopt.recipe", str(resolved.pipeline))
    graph.set_metadata("onnxopt.target", report.target["name"])
    graph.set_metadata("onnxopt.data", report.data["digest"])
    if "calibration_table" in report.data:
        graph.set_metadata("onnxopt.calibration", report.data["calibration_table"]["digest"])
