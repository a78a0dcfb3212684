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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from onnxopt import __version__, guard, model_io, registry
from onnxopt import recipe as recipes
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import Dataset, Preprocess, infer_preprocess, open_dataset, parse_preprocess, synthetic
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation import health, measure
from onnxopt.evaluation.batches import fill_dataset
from onnxopt.evaluation.budget import ENOUGH_PICTURES, Budget, Judge, Verdict
from onnxopt.evaluation.input_range import guess_range
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.evaluation.metrics import Metric, load_metric, score
from onnxopt.graph import Graph
from onnxopt.manager import Observer, check_requirements
from onnxopt.observers.verify import Level, Verify
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Stage, resolve
from onnxopt.report.run import RunReport, kept_float
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Runtime, Session, load_runtime
from onnxopt.runtime.latency import Comparison
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

Passes = str | Iterable[Pass | str]
SYNTHETIC_SAMPLES = 24
DEFAULT_SAMPLES = 128
JUDGED_SAMPLES = 32  # held-out inputs on which SQNR and agreement are measured
VERIFY_OUTPUTS_UP_TO = 200 * 2**20  # bytes of weights
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
        max_drop: Accuracy budget: `"1%"` of the float model's score, or so many points (0.01 of top1, coco-map and
            agreement, 1 of a metric of your own). Judged on what is scored on; without a metric by agreement with the
            float model.
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

    def chosen(given: Any, key: str) -> Any:
        return given if given is not None else getattr(said, key, None)

    if passes is None and said is None:
        raise UsageError("nothing to do: give passes or a recipe")
    limit = chosen(max_drop, "max_drop")
    budget = Budget.parse(limit) if limit is not None else None
    run = _Run(
        graph=_graph_of(model),
        size=Path(model).stat().st_size if isinstance(model, str | Path) else None,
        digest=_digest(model),
        target=_table(chosen(target, "target") or "ort"),
        stages=resolve(chosen(passes, "pipeline")),
        keep_anyway=keep_anyway or (said is not None and not said.never_slower),
        input_shapes=input_shapes,
    )
    run.open_table(chosen(calibration_table, "calibration_table"))
    run.open_data(
        chosen(data, "source"),
        chosen(eval_data, "evaluation"),
        chosen(preprocess, "preprocess"),
        chosen(samples, "samples"),
    )
    run.open_metric(chosen(metric, "metric"), budget, enforced=not keep_anyway)
    return run.run(verify, observers)


def _graph_of(model: str | Path | onnx.ModelProto | Graph) -> Graph:
    if isinstance(model, Graph):
        return model.copy()
    if isinstance(model, onnx.ModelProto):
        own = onnx.ModelProto()
        own.CopyFrom(model)
        return Graph.from_proto(own)
    return model_io.load(model)


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
        self.runtime: Runtime | None = load_runtime(target) if self.small else None
        self.inputs, notes = resolve_inputs(graph, dict(input_shapes) if input_shapes else None)
        self.warnings += notes
        self.costs = measure.cost(graph, target, self.inputs)
        self.before = measure.figures(graph, self.costs, size)
        self.digest = digest
        self.metric: Metric | None = None
        self.judge: Judge | None = None
        self.enforced = True
        self.table: TableFile | None = None
        self.asked_metric: str | None = None
        self.data: Dataset
        self.fit: Dataset
        self.holdout: Dataset
        self.evaluation: Dataset
        self.source: str | None = None
        self.synthetic = False

    def open_table(self, file: str | Path | None) -> None:
        """Read the calibration table, if there is one.

        Raises:
            UsageError: It is damaged, or no pass has a use for it.
        """
        if file is None:
            return
        if not any(CalibrationTable in p.provides for stage in self.stages for p in stage.passes):
            raise UsageError(f"no pass of this pipeline calibrates, so the table {file} is of no use; add quantize")
        self.table = TableFile.at(file)

    def open_metric(self, metric: Any, budget: Budget | None, *, enforced: bool) -> None:
        """Load the metric, and the judge of the budget; the float model is scored here, so mistakes show early."""
        self.asked_metric = metric if isinstance(metric, str) else None
        self.metric = load_metric(metric, metadata=self.original.metadata) if metric is not None else None
        if budget is None:
            return
        if self.cannot_run:
            raise UsageError(f"a budget needs the model to be run, and that is not possible: {self.cannot_run}")
        self.enforced = enforced
        self.judge = Judge(budget, self.original, self.evaluation, self._session, self.metric)

    def _session(self, graph: Graph) -> Session:
        """On the target's own runtime, or where that is not here, as the graph is written."""
        if self.runtime is not None:
            return self.runtime.open(graph.to_proto())
        return OrtSession(graph.to_proto(), optimized=False)

    def open_data(self, data: Any, eval_data: Any, preprocess: Any, samples: int | None) -> None:
        """Open the data, or make some up; split what is fitted on from what is judged on."""
        self.synthetic = data is None
        self.source = str(data) if isinstance(data, str | Path) else None
        self.asked = (eval_data, preprocess, samples)
        if data is None:
            made_up = synthetic(self.inputs, samples or SYNTHETIC_SAMPLES, preprocess=self._made_up(preprocess))
            self.data = fill_dataset(made_up, self.inputs)
            if any(p.needs_data for stage in self.stages for p in stage.passes):
                self.warnings.append(SYNTHETIC_WARNING if self.table is None else JUDGED_ON_SYNTHETIC)
        else:
            self.data = self._open(data, "calibration", preprocess, samples or DEFAULT_SAMPLES)
        self.fit, self.holdout = self.data.split_holdout(3)
        if not len(self.holdout):
            self.holdout = self.fit
            self.warnings.append("a single sample: outputs are judged on the sample that they were fitted on")
        self.evaluation = self.holdout
        if eval_data is not None:
            self.evaluation = self._open(eval_data, "evaluation", preprocess, None)
        elif isinstance(data, str | Path) and Path(data).suffix in {".yaml", ".yml"}:
            self.evaluation = self._open(data, "evaluation", preprocess, None)
        if self.small:
            self._try_once()

    def _try_once(self) -> None:
        """Run the model as it came: what is broken already is no pass's fault.

        Raises:
            UsageError: It does not run, and that is not for operators or types that ONNX Runtime does not have.
        """
        feeds = next(iter(self.fit)).feeds
        try:
            OrtSession(self.original.to_proto(), optimized=False).run(feeds)
        except OptimizationError as error:
            custom = health.custom_operators(self.original)
            if not custom and "find an implementation" not in str(error):
                advice = "export it again, or give --input-shape where sizes are open"
                raise UsageError(f"{self.original.source}: {error}; {advice}") from None
            self.cannot_run = f"ONNX Runtime has no {', '.join(custom)}" if custom else str(error)
            self.warnings.append(f"{self.cannot_run}: outputs are not compared and latency is not measured")
            self.runtime = None

    def _made_up(self, preprocess: Any) -> Preprocess | None:
        """In which range made-up pictures come: as asked, as the metadata says, or as the first layer suggests."""
        if isinstance(preprocess, Preprocess):
            return preprocess
        if preprocess is not None:
            return parse_preprocess(preprocess) if isinstance(preprocess, str) else Preprocess.from_dict(preprocess)
        found = infer_preprocess(self.original.metadata, self.inputs)
        found = found or (guess_range(self.original, self.inputs) if self.small else None)
        if found is None:
            return None
        self.warnings.append(found[1])
        return found[0]

    def _open(self, source: Any, role: Any, preprocess: Any, samples: int | None) -> Dataset:
        metadata = self.original.metadata
        opened = open_dataset(source, self.inputs, role=role, preprocess=preprocess, samples=samples, metadata=metadata)
        return fill_dataset(opened, self.inputs)

    def run(self, verify: Level | None, observers: Sequence[Observer]) -> Result:
        """Run the stages, measure, and report."""
        context = Context(
            self.target,
            inputs=self.inputs,
            synthetic=self.synthetic,
            **self._samples(),
        )
        for artefact in (self.judge, self.table):
            if artefact is not None:
                context.put(artefact)
        check_requirements(self.stages, context)
        watchers = [*observers, self._verifier(verify)]
        judge = self._judge if self.runtime is not None and not self.keep_anyway else None
        graph, records = self.original, []
        for stage in self.stages:
            graph, record = guard.run_stage(stage, graph, context, watchers, judge)
            records.append(record)
        graph = graph.copy()
        verdict = self._verdict(graph)
        resolved = recipes.Recipe(
            recipes.resolved_pipeline(records),
            target=self.target.name,
            source=self.source,
            evaluation=str(self.asked[0]) if isinstance(self.asked[0], str | Path) else None,
            preprocess=str(self.data.preprocess) if self.data.preprocess is not None and not self.synthetic else None,
            samples=self.asked[2],
            calibration_table=str(self.table.path) if self.table is not None else None,
            max_drop=verdict.max_drop if verdict is not None and verdict.met else None,
            metric=self.asked_metric if verdict is not None else None,
            never_slower=False,
        )
        report = self._report(graph, resolved)
        report.stages = records
        if verdict is not None:
            report.budget = {**verdict.to_dict(), "judged_on": self.evaluation.description, **kept_float(records)}
        if self.table is not None and context.has(CalibrationTable):
            ranges = context.get(CalibrationTable).to_json()
            digest = hashlib.sha256(ranges.encode()).hexdigest()
            report.data["calibration_table"] = {"file": str(self.table.path), "digest": digest}
        self._measure(graph, report)
        self._sign(graph, resolved, report)
        return Result(graph, report, resolved)

    def _verdict(self, graph: Graph) -> Verdict | None:
        """Judge by the budget, if there is one.

        Raises:
            OptimizationError: It is missed.
        """
        if self.judge is None:
            return None
        verdict = self.judge.verdict(graph)
        if verdict.pictures < ENOUGH_PICTURES:
            self.warnings.append(f"only {verdict.pictures} pictures judge the budget; see how wide its interval is")
        if not verdict.met and self.enforced:
            raise OptimizationError(f"{verdict}; nothing is written (if that is as it should be: --keep-anyway)")
        if not verdict.met:
            self.warnings.append(str(verdict))
        return verdict

    def _samples(self) -> dict[str, Any]:
        """What passes may run the model on. Of models that are merely large they run what parts they can."""
        if self.small and self.cannot_run:
            return {"cannot_run": self.cannot_run}
        return {"fit": self.fit, "holdout": self.holdout}

    def _verifier(self, level: Level | None) -> Verify:
        if level is None:
            level = "outputs" if self.original.nbytes() < VERIFY_OUTPUTS_UP_TO else "structure"
        if self.cannot_run:
            level = "off" if level == "off" else "structure"
        feeds = [next(iter(part)).feeds for part in (self.fit, self.holdout)] if level in {"outputs", "full"} else []
        return Verify(level, feeds)

    def _judge(self, before: Graph, after: Graph) -> Comparison:
        assert self.runtime is not None
        feeds = next(iter(self.holdout)).feeds
        comparison: Comparison = measure.time_pair(
            self.runtime, before, after, feeds, rounds=ROUNDS, seconds=SECONDS / 3
        )
        return comparison

    def _report(self, graph: Graph, resolved: recipes.Recipe) -> RunReport:
        data = {
            "source": self.data.description,
            "synthetic": self.synthetic,
            "digest": self.data.digest(),
            "fitted_on": len(self.fit),
            "judged_on": min(len(self.holdout), JUDGED_SAMPLES),
            "notes": self.data.notes,
        }
        why = "" if self.runtime is not None else self.cannot_run or "the target cannot run here"
        return RunReport(
            model={"source": graph.source, "digest": self.digest},
            target={
                "name": self.target.name,
                "runtime": self.runtime.version if self.runtime is not None else "",
                "why_not_measured": why,
                "threads": 1,
            },
            inputs=[str(i) for i in self.inputs],
            data=data,
            before=self.before,
            recipe=str(resolved),
            metric=self.metric.name if self.metric is not None else None,
            # That made-up inputs say nothing of accuracy is among the warnings already.
            warnings=self.warnings
            + ([] if {SYNTHETIC_WARNING, JUDGED_ON_SYNTHETIC} & set(self.warnings) else self.data.notes),
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
        sessions = (self.runtime.open(self.original.to_proto()), self.runtime.open(graph.to_proto()))
        report.quality = measure.quality(
            *sessions, self.holdout.take(JUDGED_SAMPLES), self.original.metadata, strict=not self.keep_anyway
        )
        if self.metric is not None and report.budget is None:
            self.before.score, after.score = (score(self.metric, s.run, self.evaluation).value for s in sessions)
        feeds = next(iter(self.holdout)).feeds
        timing = measure.time_pair(self.runtime, self.original, graph, feeds, rounds=ROUNDS, seconds=SECONDS)
        for measured, latency in zip((self.before, after), timing.latencies, strict=True):
            measured.latency_ms = latency.milliseconds.median
            measured.latency_spread_ms = latency.milliseconds.spread
        report.speedup = {
            "median": timing.latencies[1].speedup.median,
            "spread": timing.latencies[1].speedup.spread,
            "rounds": timing.rounds,
        }
        self._fusion(graph, report, costs)

    def _fusion(self, graph: Graph, report: RunReport, costs: Any) -> None:
        assert self.runtime is not None
        assert report.after is not None
        kernels = measure.read_kernels(graph, self.runtime)
        macs = measure.macs_by_name(graph, costs)
        total = sum(macs.values())
        report.after.int8_share = sum(macs.get(n, 0) for n in kernels.int8) / total if total else 0.0
        self.before.int8_share = 0.0 if kernels.int8 else report.after.int8_share
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
