"""A model, its data and a target, opened once; pipelines are tried on them one after the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxopt import __version__
from onnxopt.auto.giving_up import GivingUp
from onnxopt.auto.store import Store, code_digest, key_of
from onnxopt.auto.trial import Failed, Outcome, Trial
from onnxopt.data import is_symbol, load_symbol
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.manager import Observer
from onnxopt.optimization import Optimization, Wanted
from onnxopt.optimization.subject import Subject
from onnxopt.pipeline import resolve
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Feeds, Runtime, processor_of
from onnxopt.targets import Target

PACKAGES = ("onnx", "onnxruntime", "openvino", "numpy", "numba", "onnx-graphsurgeon")


@dataclass(frozen=True)
class Question:
    """What is asked, whatever the target.

    Attributes:
        model: File, protobuf or graph.
        data: What to calibrate and fit on.
        eval_data: What to score on; None: the validation split of `data`, else what of it is held out.
        metric: A metric; None: what suits the labels, and agreement with the float model where there are none.
        max_drop: What may be lost; see `evaluation.budget`.
        preprocess: How pictures become inputs.
        samples: Use at most so many of `data`.
        input_shapes: Input name to shape, for dynamic inputs.
    """

    model: Any
    data: Any
    eval_data: Any = None
    metric: Any = None
    max_drop: str | float = "1%"
    preprocess: Any = None
    samples: int | None = None
    input_shapes: Any = None


class Bench:
    """See the module.

    Args:
        question: What is asked.
        target: What for.
        store: Where outcomes are kept.

    Attributes:
        target: Its name.
        subject: The model as it came.
        runtime: The target's.
        optimization: The request without stages; has samples and metric.

    Raises:
        UsageError: The target cannot run here, there is no data, or something of the question cannot be used.
    """

    def __init__(self, question: Question, target: Target, store: Store) -> None:
        if question.data is None:
            raise UsageError("auto judges what it tries on pictures; give --data")
        self.target, self._store = target.name, store
        self.subject = Subject(question.model, target, question.input_shapes)
        self.runtime: Runtime = _runtime(self.subject)
        wanted = Wanted(
            None,
            target,
            question.data,
            question.eval_data,
            question.metric,
            question.max_drop,
            None,
            question.preprocess,
            question.samples,
        )
        self.optimization = Optimization(self.subject, [], wanted, may_miss=True)
        if self.subject.timed_on is None:
            raise UsageError(f"auto ranks by latency on {target.name}, and {self.subject.why_not_measured}")
        self._facts = self._decisive(question)

    def _decisive(self, question: Question) -> dict[str, Any]:
        """Everything but the pipeline that decides an outcome."""
        samples = self.optimization.samples
        return {
            "model": self.subject.digest or self.subject.graph.digest(),
            "inputs": [str(i) for i in self.subject.inputs],
            "target": self.target,
            "runtime": self.runtime.version,
            "data": samples.data.digest(),
            "evaluation": samples.evaluation.digest(),
            "metric": self.optimization.metric.name if self.optimization.metric is not None else None,
            "metric_code": code_digest(_code(question.metric)),
            "max_drop": str(question.max_drop),
            "onnxopt": __version__,
            "versions": host.versions(*PACKAGES),
            "processor": processor_of(self.runtime),
            "cores": host.cores(),
        }

    @property
    def feeds(self) -> Feeds:
        """One held-out sample, to time on."""
        return next(iter(self.optimization.samples.holdout)).feeds

    def key(self, passes: str) -> str:
        """The name under which a pipeline's outcome is kept."""
        return key_of({**self._facts, "passes": passes})

    def known(self, passes: str) -> Outcome | None:
        """What came of a pipeline in an earlier search, if it is kept."""
        return self._store.get(self.key(passes))

    def model_of(self, passes: str) -> Path:
        """The file of a pipeline's model."""
        return self._store.model(self.key(passes))

    def attempt(self, passes: str, observers: Sequence[Observer] = (), shared: Sequence[Any] = ()) -> Outcome:
        """Run a pipeline, measure and keep what came of it.

        Args:
            passes: The pipeline.
            observers: Watch its passes.
            shared: Artefacts that several pipelines use together.

        Raises:
            UsageError: The cache cannot be written.
        """
        began = time.monotonic()
        stages = resolve(passes)
        watchers = [*observers, GivingUp()] if len(stages) > 1 else observers
        try:
            result = self.optimization.with_stages(stages, shared).run(None, watchers, alone=False)
            outcome: Outcome = Trial.of(result, passes, time.monotonic() - began)
        except OptimizationError as error:
            result, outcome = None, Failed(passes, self.target, str(error), time.monotonic() - began)
        self._store.put(self.key(passes), outcome, result.graph if result is not None else None)
        return outcome


def _code(metric: Any) -> Any:
    """What a metric of the user's own is made of; its name alone does not tell whether it has changed."""
    return load_symbol(metric) if isinstance(metric, str) and is_symbol(metric) else metric


def _runtime(subject: Subject) -> Runtime:
    if subject.runtime is None:
        name, why = subject.target.name, subject.why_not_run
        raise UsageError(f"auto ranks by latency on {name}, and that is not possible: {why}")
    return subject.runtime
