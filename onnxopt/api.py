"""The Python face: what the command line and a deployment pipeline both call.

```python
from onnxopt import optimize

result = optimize("model.onnx", passes="prune,quantize", data="data.yaml", metric="coco-map")
result.save("model.opt.onnx")
print(result.report.to_json())
```
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import onnx

from onnxopt import __version__, apart, guard, model_io, registry
from onnxopt import recipe as recipes
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation import health, measure
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.evaluation.budget import Budget, Judge, Verdict
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.evaluation.metrics import Metric, load_metric, score
from onnxopt.evaluation.samples import JUDGED_SAMPLES, Samples, open_samples
from onnxopt.graph import Array, Graph
from onnxopt.manager import Observer, check_requirements
from onnxopt.observers.verify import Level, Verify
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Stage, resolve
from onnxopt.placement.retarget import is_quantized
from onnxopt.report.run import RunReport, kept_float
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Feeds, Runtime, load_runtime
from onnxopt.runtime.latency import Comparison
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

Passes = str | Iterable[Pass | str]
VERIFY_OUTPUTS_UP_TO = 200 * 2**20  # bytes of weights
UNLIKE = 3.0  # dB, half of the signal is noise; float arithmetic of two runtimes lies far above
ROUNDS, SECONDS = 30, 20.0  # of the final latency comparison; a stage's own is a third of that

SYNTHETIC_WARNING = "no --data given: calibrated on synthetic pictures, so accuracy is unverified"
JUDGED_ON_SYNTHETIC = "no --data given: judged on synthetic pictures, so accuracy is unverified"


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        graph: The optimized model.
        report: Everything measured and done.
        recipe: The resolved recipe; running it again gives the same bytes.
    """

    graph: Graph
    report: RunReport
    recipe: recipes.Recipe

    @property
    def model(self) -> onnx.ModelProto:
        """The optimized model as protobuf."""
        return self.graph.to_proto()

    def save(self, path: str | Path) -> list[Path]:
        """Write the model, whole or not at all; returns the files written.

        Raises:
            UsageError: The folder cannot be written, or the disk is full.
        """
        return model_io.save(self.graph, path)


def optimize(
    model: str | Path | onnx.ModelProto | Graph,
    passes: Passes | None = None,
    *,
    recipe: str | Path | recipes.Recipe | None = None,
    target: str | Target | None = None,
    data: Any = None,
    eval_data: Any = None,
    metric: Any = None,
    max_drop: str | float | None = None,
    calibration_table: str | Path | None = None,
    preprocess: Any = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    verify: Level | None = None,
    keep_anyway: bool = False,
    observers: Sequence[Observer] = (),
) -> Result:
    """Run passes over a model. The model given is never changed.

    Args:
        model: File, protobuf or graph.
        passes: Pipeline text, or passes and texts in order; default: those of the recipe.
        recipe: File or value; arguments given here come before what it says.
        target: Name or table; default `ort`.
        data: What to calibrate and fit on: path, `Dataset`, or an iterable of feeds; see `--data`.
        eval_data: What to score on; default: the source's validation split, else held-out samples of `data`.
        metric: `top1`, `coco-map`, `module:function`, a function `(outputs, sample) -> float`, or an object with
            `update(outputs, sample)` and `compute() -> float`.
        max_drop: Accuracy budget: `"1%"` of the float score, or points; without a metric, of agreement with the float
            model. See `evaluation.budget`.
        calibration_table: File of ranges. If it is there, only what it lacks is measured; else it is written.
        preprocess: How pictures become inputs; default: inferred from metadata.
        samples: Use at most so many of `data`.
        input_shapes: Input name to shape, for dynamic inputs.
        verify: off, structure, outputs or full; default outputs, structure for large models.
        keep_anyway: Undo nothing, and hand back whatever came out.
        observers: Watch the passes.

    Raises:
        UsageError: The model, the data or the request cannot be used as given.
        OptimizationError: A pass broke its promise, outputs are not finite, or the budget is missed.
    """
    said = recipes.load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    if passes is None and said is None:
        raise UsageError("nothing to do: give passes or a recipe")
    wanted = _Wanted(passes, target, data, eval_data, metric, max_drop, calibration_table, preprocess, samples).or_else(
        said
    )
    run = _Run(
        graph=_graph_of(model),
        size=Path(model).stat().st_size if isinstance(model, str | Path) else None,
        digest=_digest(model),
        target=_table(wanted.target or "ort"),
        stages=resolve(wanted.pipeline),
        keep_anyway=keep_anyway or (said is not None and not said.never_slower),
        input_shapes=input_shapes,
    )
    run.open(wanted, enforced=not keep_anyway)
    return run.run(verify, observers)


@dataclass(frozen=True)
class _Wanted:
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

    def or_else(self, said: recipes.Recipe | None) -> "_Wanted":
        """What a recipe says where nothing else was asked for."""
        missing = [f.name for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{name: getattr(said, name, None) for name in missing})


def _graph_of(model: str | Path | onnx.ModelProto | Graph) -> Graph:
    if isinstance(model, Graph):
        return model.copy()
    if isinstance(model, onnx.ModelProto):
        own = onnx.ModelProto()
        own.CopyFrom(model)
        return Graph.from_proto(own)
    return model_io.load(model)


def _text(given: Any) -> str | None:
    """What a recipe can say of it."""
    return str(given) if isinstance(given, str | Path) else None


def _digest(model: str | Path | onnx.ModelProto | Graph) -> str | None:
    if not isinstance(model, str | Path):
        return None
    with Path(model).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _table(target: str | Target) -> Target:
    table = registry.load_target(target) if isinstance(target, str) else target
    return table if table.alignment else replace(table, alignment=host.channel_block())


class _Run:
    """One optimization, from the loaded model to the result."""

    def __init__(
        self,
        *,
        graph: Graph,
        size: int | None,
        digest: str | None,
        target: Target,
        stages: list[Stage],
        keep_anyway: bool,
        input_shapes: Mapping[str, Sequence[int]] | None,
    ) -> None:
        self.original = graph
        self.target = target
        self.stages = stages
        self.keep_anyway = keep_anyway
        self.warnings = health.check_weights(graph)
        self.small = measure.runnable(graph)
        self.cannot_run = "" if self.small else "the model is larger than 2 GB"
        self.only_after = False  # whether the target runs what comes out, but not what came in
        self.runtime: Runtime | None = load_runtime(target) if self.small else None
        self.inputs, notes = resolve_inputs(graph, dict(input_shapes) if input_shapes else None)
        self.warnings += notes
        self.costs = measure.cost(graph, target, self.inputs)
        self.before = measure.figures(graph, self.costs, size)
        self.digest = digest
        self.metric: Metric | None = None
        self.judge: Judge | None = None
        self.table: TableFile | None = None
        self.samples: Samples

    def open(self, wanted: _Wanted, *, enforced: bool) -> None:
        """Open table, data and metric; the float model is scored here, so that mistakes show early.

        Raises:
            UsageError: One of them cannot be used, or no pass has a use for the table.
        """
        budget = Budget.parse(wanted.max_drop) if wanted.max_drop is not None else None
        self.wanted, self.enforced = wanted, enforced
        if wanted.calibration_table is not None:
            if not any(CalibrationTable in p.provides for stage in self.stages for p in stage.passes):
                raise UsageError(f"no pass here calibrates, so {wanted.calibration_table} is of no use; add quantize")
            self.table = TableFile.at(wanted.calibration_table)
        self.samples = open_samples(
            self.original, self.inputs, wanted.source, wanted.evaluation, wanted.preprocess, wanted.samples
        )
        self.warnings += self.samples.notes
        if self.samples.synthetic and any(p.needs_data for stage in self.stages for p in stage.passes):
            self.warnings.append(SYNTHETIC_WARNING if self.table is None else JUDGED_ON_SYNTHETIC)
        if self.small:
            self._try_once()
        if wanted.metric is not None:
            self.metric = load_metric(wanted.metric, metadata=self.original.metadata)
        if budget is not None and self.cannot_run:
            raise UsageError(f"a budget needs the model to be run, and that is not possible: {self.cannot_run}")
        if budget is not None:
            runtime = None if self.only_after else self.runtime
            self.judge = Judge(budget, self.original, self.samples.evaluation, runtime, self.metric)

    def _try_once(self) -> None:
        """Run the model as it came: what is broken already is no pass's fault.

        Raises:
            UsageError: It does not run, and that is not for operators or types that ONNX Runtime does not have.
        """
        feeds = next(iter(self.samples.fit)).feeds
        try:
            wanted = OrtSession(self.original.to_proto(), optimized=False).run(feeds)
        except OptimizationError as error:
            custom = health.custom_operators(self.original)
            if not custom and "find an implementation" not in str(error):
                advice = "export it again, or give --input-shape where sizes are open"
                raise UsageError(f"{self.original.source}: {error}; {advice}") from None
            self.cannot_run = f"ONNX Runtime has no {', '.join(custom)}" if custom else str(error)
            self.warnings.append(f"{self.cannot_run}: outputs are not compared and latency is not measured")
            self.runtime = None
            return
        if self.runtime is not None:
            self._try_on_target(self.runtime, feeds, wanted)

    def _try_on_target(self, runtime: Runtime, feeds: Feeds, wanted: dict[str, Array]) -> None:
        """See whether the target runs the model as it came, and with the outputs that ONNX defines."""
        try:
            got = runtime.open(self.original.to_proto()).run(feeds)
            likeness = worst_sqnr([wanted], [got]) if is_quantized(self.original) else UNLIKE
            if likeness < UNLIKE:
                self.warnings.append(
                    f"{self.target.name} gives other outputs for the model as given than ONNX Runtime "
                    f"({likeness:.1f} dB): what is compared with them says little"
                )
        except OptimizationError as error:
            self.only_after = True
            self.warnings.append(
                f"the model as given does not run on {self.target.name} ({error}): "
                "latency is not measured, and outputs are compared with what ONNX Runtime makes of it"
            )

    def run(self, verify: Level | None, observers: Sequence[Observer]) -> Result:
        """Run the stages, measure, and report."""
        context = self._context()
        if self.table is not None:
            context.put(self.table)
        check_requirements(self.stages, context)
        watchers = [*observers, self._verifier(verify)]
        judge = self._judge if self.runtime is not None and not self.keep_anyway and not self.only_after else None
        graph, records, graphs = self.original, [], [self.original]
        for stage in self.stages:
            graph, record = guard.run_stage(stage, graph, context, watchers, judge)
            records.append(record)
            graphs.append(graph)
        graph = graph.copy()
        verdict = self._verdict(graph)
        resolved = recipes.Recipe(
            recipes.resolved_pipeline(records),
            target=self.target.name,
            source=_text(self.wanted.source),
            evaluation=_text(self.wanted.evaluation),
            preprocess=self.samples.preprocess,
            samples=self.wanted.samples,
            calibration_table=_text(self.wanted.calibration_table),
            max_drop=verdict.max_drop if verdict is not None and verdict.met else None,
            metric=_text(self.wanted.metric) if verdict is not None else None,
            never_slower=False,
        )
        report = self._report(graph, resolved)
        report.stages = records
        if verdict is not None:
            report.budget = {
                **verdict.to_dict(),
                "judged_on": self.samples.evaluation.description,
                **kept_float(records),
            }
        if self.table is not None and context.has(CalibrationTable):
            report.data["calibration_table"] = self.table.identify(context.get(CalibrationTable))
        self._measure(graph, report)
        if self.runtime is not None and not self.only_after:
            alone = apart.stages_alone(self.stages, records, graphs, self._context)
            report.alone = apart.measured(alone, self.runtime, self.samples, self.metric, self._macs) if alone else []
        self._sign(graph, resolved, report)
        return Result(graph, report, resolved)

    def _verdict(self, graph: Graph) -> Verdict | None:
        """Judge by the budget, if there is one; it is an error to miss it."""
        if self.judge is None:
            return None
        verdict = self.judge.verdict(graph)
        self.warnings += verdict.warnings()
        if not verdict.met and self.enforced:
            raise OptimizationError(
                f"{verdict}; nothing is written (allow more, or a larger `most` of keep-float, or --keep-anyway)"
            )
        return verdict

    def _context(self) -> Context:
        """A context that knows of no pass."""
        context = Context(self.target, inputs=self.inputs, synthetic=self.samples.synthetic, **self._fed())
        if self.judge is not None:
            context.put(self.judge)
        return context

    def _macs(self, graph: Graph) -> int:
        return measure.cost(graph, self.target, self.inputs).total_macs

    def _fed(self) -> dict[str, Any]:
        """What passes may run the model on. Of models that are merely large they run what parts they can."""
        if self.small and self.cannot_run:
            return {"cannot_run": self.cannot_run}
        return {"fit": self.samples.fit, "holdout": self.samples.holdout}

    def _verifier(self, level: Level | None) -> Verify:
        if level is None:
            level = "outputs" if self.original.nbytes() < VERIFY_OUTPUTS_UP_TO else "structure"
        if self.cannot_run:
            level = "off" if level == "off" else "structure"
        feeds = (
            [next(iter(part)).feeds for part in (self.samples.fit, self.samples.holdout)]
            if level in {"outputs", "full"}
            else []
        )
        return Verify(level, feeds)

    def _judge(self, before: Graph, after: Graph) -> Comparison:
        assert self.runtime is not None
        feeds = next(iter(self.samples.holdout)).feeds
        comparison: Comparison = measure.time_pair(
            self.runtime, before, after, feeds, rounds=ROUNDS, seconds=SECONDS / 3
        )
        return comparison

    def _report(self, graph: Graph, resolved: recipes.Recipe) -> RunReport:
        why = "" if self.runtime is not None else self.cannot_run or "the target cannot run here"
        why = "the target does not run the model as given" if self.only_after else why
        return RunReport(
            model={"source": graph.source, "digest": self.digest},
            target={
                "name": self.target.name,
                "runtime": self.runtime.version if self.runtime is not None else "",
                "why_not_measured": why,
                "threads": 1,
            },
            inputs=[str(i) for i in self.inputs],
            data=self.samples.to_dict(),
            before=self.before,
            recipe=str(resolved),
            metric=self.metric.name if self.metric is not None else None,
            # That made-up inputs say nothing of accuracy is among the warnings already.
            warnings=self.warnings
            + ([] if {SYNTHETIC_WARNING, JUDGED_ON_SYNTHETIC} & set(self.warnings) else self.samples.data.notes),
            environment={
                "onnxopt": __version__,
                "processor": host.processor(),
                **host.versions("onnx", "onnxruntime", "numpy", "numba", "openvino"),
            },
        )

    def _measure(self, graph: Graph, report: RunReport) -> None:
        costs = measure.cost(graph, self.target, self.inputs)
        after = report.after = measure.figures(graph, costs)
        if self.metric is not None and report.budget is not None:
            self.before.score, after.score = report.budget["before"], report.budget["after"]
        if self.runtime is None:
            return
        given = self.original.to_proto()
        reference = OrtSession(given, optimized=False) if self.only_after else self.runtime.open(given)
        sessions = (reference, self.runtime.open(graph.to_proto()))
        report.quality = measure.quality(
            *sessions, self.samples.holdout.take(JUDGED_SAMPLES), self.original.metadata, strict=not self.keep_anyway
        )
        if report.quality["worst_sqnr_db"] < UNLIKE:
            report.warnings.append(
                f"the outputs are hardly those of the model as given ({report.quality['worst_sqnr_db']:.1f} dB): "
                "ask for less"
            )
        if self.metric is not None and report.budget is None:
            self.before.score, after.score = (
                score(self.metric, s.run, self.samples.evaluation).value for s in sessions
            )
        if not self.only_after:
            self._time(graph, report, self.runtime)
        self._fusion(graph, report, costs, self.runtime)

    def _time(self, graph: Graph, report: RunReport, runtime: Runtime) -> None:
        feeds = next(iter(self.samples.holdout)).feeds
        timing = measure.time_pair(runtime, self.original, graph, feeds, rounds=ROUNDS, seconds=SECONDS)
        assert report.after is not None
        for measured, latency in zip((self.before, report.after), timing.latencies, strict=True):
            measured.latency_ms = latency.milliseconds.median
            measured.latency_spread_ms = latency.milliseconds.spread
        report.speedup = {
            "median": timing.latencies[1].speedup.median,
            "spread": timing.latencies[1].speedup.spread,
            "rounds": timing.rounds,
        }

    def _fusion(self, graph: Graph, report: RunReport, costs: Any, runtime: Runtime) -> None:
        assert report.after is not None
        kernels = measure.read_kernels(graph, runtime)
        macs = measure.macs_by_name(graph, costs)
        report.after.int8_share = measure.int8_share(kernels, macs)
        if not is_quantized(self.original):
            self.before.int8_share = 0.0
        elif not self.only_after:
            found = measure.read_kernels(self.original, runtime)
            self.before.int8_share = measure.int8_share(found, measure.macs_by_name(self.original, self.costs))
        reasons = {where: why for stage in report.stages for r in stage.passes for where, why in r.notes}
        report.unfused = [
            {"node": name, "macs": count, "reason": next((w for k, w in reasons.items() if f"'{name}'" in k), "")}
            for name, count in sorted(macs.items(), key=lambda item: -item[1])
            if name in kernels.floating
        ]

    def _sign(self, graph: Graph, resolved: recipes.Recipe, report: RunReport) -> None:
        """Write into the model's metadata what made it."""
        graph.set_metadata("onnxopt.version", __version__)
        graph.set_metadata("onnxopt.recipe", str(resolved.pipeline))
        graph.set_metadata("onnxopt.target", self.target.name)
        graph.set_metadata("onnxopt.data", report.data["digest"])
        if "calibration_table" in report.data:
            graph.set_metadata("onnxopt.calibration", report.data["calibration_table"]["digest"])
