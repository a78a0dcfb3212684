"""The loop: what it tells observers, when it invalidates, and how it fails."""

from typing import Any, ClassVar

import pytest

from onnxopt import Analysis, Context, Graph, OptimizationError, Pass, UsageError, option
from onnxopt.manager import Watcher, check_requirements, run_pass, run_step
from onnxopt.pipeline import Stage, Step
from onnxopt.testing import parse_graph, plain_context

TEXT = "(float[2] x) => (float[2] y) { y = Relu (x) }"


class Log(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ops: list[tuple[list[str], list[str]]] = []

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:
        self.lines.append(f"before {step.name}")

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
        self.lines.append(f"after {step.name}")
        self.ops.append(([n.op for n in before.nodes], [n.op for n in after.nodes]))

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:
        self.lines.append(f"failure of {step.name}: {type(error).__name__}")
        self.ops.append(([n.op for n in before.nodes], []))


class Rename(Pass):
    """Turn one op into another, or misbehave."""

    name = "rename"
    to: str = option(default="Sigmoid", help="New op, or how to misbehave.")

    def run(self, graph: Graph, context: Context) -> bool:
        if self.to == "fail":
            graph.nodes[0].op = "HalfDone"
            raise ZeroDivisionError("oh")
        if self.to == "refuse":
            raise UsageError("no")
        if self.to == "lie":
            return 1  # type: ignore[return-value]
        changed = graph.nodes[0].op != self.to
        graph.nodes[0].op = self.to
        context.count("renamed")
        return changed


def run(step: Pass, observers: list[Any] | None = None) -> Any:
    return run_pass(step, parse_graph(TEXT), plain_context(), observers or [])


def test_observers_see_before_and_after():
    log = Log()
    record = run(Rename(), [log])
    assert log.lines == ["before rename", "after rename"]
    assert log.ops == [(["Relu"], ["Sigmoid"])]
    assert record.changed is True
    assert record.counts == {"renamed": 1}
    assert record.options == {"to": "Sigmoid"}
    assert record.seconds > 0


def test_a_failure_is_wrapped_and_told_with_the_graph_before():
    log = Log()
    with pytest.raises(OptimizationError, match=r"pass rename failed: ZeroDivisionError: oh") as failure:
        run(Rename(to="fail"), [log])
    assert isinstance(failure.value.__cause__, ZeroDivisionError)
    assert log.lines == ["before rename", "failure of rename: ZeroDivisionError"]
    assert log.ops == [(["Relu"], [])]


def test_a_refusal_keeps_its_words():
    with pytest.raises(UsageError, match=r"^no$"):
        run(Rename(to="refuse"))


def test_run_must_return_a_bool():
    with pytest.raises(OptimizationError, match=r"pass rename returned 1; run\(\) says with a bool"):
        run(Rename(to="lie"))


def test_an_observer_s_error_stops_the_run_and_is_told_to_all():
    class Strict(Watcher):
        def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
            raise OptimizationError("not so")

    log = Log()
    with pytest.raises(OptimizationError, match="not so"):
        run(Rename(), [Strict(), log])
    assert log.lines == ["before rename", "failure of rename: OptimizationError"]


class Ops(Analysis):
    """Op types."""

    def __init__(self, ops: list[str]) -> None:
        self.ops = ops

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> "Ops":  # noqa: ARG003
        return cls([n.op for n in graph.nodes])


def test_analyses_follow_the_graph():
    graph, context = parse_graph(TEXT), plain_context()
    run_pass(Rename(to="Relu"), graph, context, [])
    first = context.get(Ops)
    run_pass(Rename(to="Relu"), graph, context, [])
    assert context.get(Ops) is first  # nothing changed
    run_pass(Rename(to="Tanh"), graph, context, [])
    assert context.get(Ops).ops == ["Tanh"]


def test_recorded_shapes_go_when_something_changed():
    graph = parse_graph(TEXT.replace("y = Relu (x)", "a = Relu (x)  y = Relu (a)"))
    inner = graph.nodes[0].outputs[0]
    inner.dtype, inner.shape = graph.inputs[0].dtype, (2,)
    run_pass(Rename(to="Relu"), graph, plain_context(), [])
    assert inner.shape == (2,)
    run_pass(Rename(to="Tanh"), graph, plain_context(), [])
    assert inner.shape is None


class Countdown(Pass):
    """Change the graph so many times."""

    name = "countdown"
    turns: int = option(default=3, help="How often.")

    def run(self, graph: Graph, context: Context) -> bool:
        done = int(graph.metadata.get("done", "0"))
        graph.set_metadata("done", str(min(done + 1, self.turns)))
        return done < self.turns


@pytest.mark.parametrize(("turns", "repeat", "runs"), [(3, 10, 4), (0, 10, 1), (10, 4, 4), (3, 1, 1)])
def test_a_repeated_step_runs_until_nothing_changes(turns, repeat, runs):
    step = Step((Countdown(turns=turns), Rename(to="Relu")), repeat)
    records = run_step(step, parse_graph(TEXT), plain_context(), [])
    assert [r.name for r in records] == ["countdown", "rename"] * runs


class Table:
    """An artefact."""


class Maker(Pass):
    """Make a table."""

    name = "maker"
    provides: ClassVar[tuple[type, ...]] = (Table,)

    def run(self, graph: Graph, context: Context) -> bool:
        context.put(Table())
        return False


class Taker(Pass):
    """Need a table."""

    name = "taker"
    requires: ClassVar[tuple[type, ...]] = (Table,)

    def run(self, graph: Graph, context: Context) -> bool:
        context.get(Table)
        return False


def stages(*passes: Pass) -> list[Stage]:
    return [Stage(p.name, (Step((p,)),)) for p in passes]


def test_requirements_are_checked_before_anything_runs():
    context = plain_context()
    check_requirements(stages(Maker(), Taker()), context)
    for wrong in ([Taker()], [Taker(), Maker()]):
        with pytest.raises(UsageError, match="taker needs a Table, which no pass before it makes"):
            check_requirements(stages(*wrong), context)
    context.put(Table())
    check_requirements(stages(Taker()), context)


class Scribble(Pass):
    """Write into shared weights."""

    name = "scribble"

    def run(self, graph: Graph, context: Context) -> bool:
        graph.initializers()[0].values[...] = 0
        return False


@pytest.mark.parametrize("loaded", [True, False])
def test_weights_are_not_written_into_in_place(loaded):
    graph = parse_graph("(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }")
    if loaded:
        weights = graph.initializers()[0].values
    copy = graph.copy()
    if loaded:
        with pytest.raises(OptimizationError, match=r"scribble failed: .*read-only"):
            run_pass(Scribble(), copy, plain_context(), [])
        assert weights.flags.writeable
    else:
        run_pass(Scribble(), copy, plain_context(), [])  # its copy had an array of its own
    assert graph.initializers()[0].values.tolist() == [1, 2]
