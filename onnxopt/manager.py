"""The loop: run passes over a graph and tell observers.

The loop knows nothing of verifying, timing, dumping or progress; each of these is an `Observer`.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from onnxopt.errors import OnnxoptError, OptimizationError, UsageError
from onnxopt.graph import Graph
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Stage, Step
from onnxopt.report.record import PassRecord


class Observer(Protocol):
    """Watches the loop. `before` is the graph before the pass; observers must not change either graph."""

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:
        """A pass is about to run."""

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
        """A pass ran without error. Raise to stop the run."""

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:
        """A pass, or an observer after it, raised."""


class Watcher:
    """An observer that watches nothing; a base for those that watch one thing."""

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:
        """Nothing."""

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
        """Nothing."""

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:
        """Nothing."""


def check_requirements(stages: Iterable[Stage], context: Context) -> None:
    """See before anything runs that each pass finds what it requires.

    Raises:
        UsageError: A pass needs an artefact that no pass before it makes.
    """
    made: set[type] = set()
    for stage in stages:
        for step in stage.passes:
            for kind in step.requires:
                if kind not in made and not context.has(kind):
                    raise UsageError(
                        f"{step.name} needs a {kind.__name__}, which no pass before it makes; "
                        f"put one that does before it, as the named pipelines do"
                    )
            made |= set(step.provides)


def run_step(step: Step, graph: Graph, context: Context, observers: Sequence[Observer]) -> list[PassRecord]:
    """Run a step's passes in order; a repeated step runs until none of its passes changes the graph.

    Returns:
        One record per run of a pass.
    """
    records = []
    for _ in range(step.repeat):
        once = [run_pass(p, graph, context, observers) for p in step.passes]
        records += once
        if not any(record.changed for record in once):
            break
    return records


def run_pass(step: Pass, graph: Graph, context: Context, observers: Sequence[Observer]) -> PassRecord:
    """Run one pass on the graph, in place.

    Raises:
        OnnxoptError: What the pass or an observer raised; any other exception of theirs is wrapped, naming the pass.
    """
    record = PassRecord(step.name, options=step.option_values(), effect=step.effect)
    context.bind(graph, record)
    graph.freeze()  # what a pass writes into in place would change `before`, and the user's model, with it
    before = graph.copy()
    try:
        for observer in observers:
            observer.before_pass(step, graph, context)
        start = time.perf_counter()
        changed = step.run(graph, context)
        record.seconds = time.perf_counter() - start
        if not isinstance(changed, bool):
            raise OptimizationError(f"pass {step.name} returned {changed!r}; run() says with a bool whether it changed")
        record.changed = changed
        if changed:
            context.invalidate(step.preserves)
            graph.settle()
            graph.forget_shapes()
        for observer in observers:
            observer.after_pass(step, before, graph, context)
    except Exception as error:
        for observer in observers:
            observer.after_failure(step, before, context, error)
        if isinstance(error, OnnxoptError):
            raise
        raise OptimizationError(f"pass {step.name} failed: {type(error).__name__}: {error}") from error
    return record
