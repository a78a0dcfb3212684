"""Options, context, analyses and artefacts."""

import dataclasses
import math

import pytest

from onnxopt import Analysis, Context, Graph, OptimizationError, Pass, UsageError, option
from onnxopt.report.record import PassRecord
from onnxopt.testing import parse_graph, plain_context


class Shrink(Pass):
    """Shrink things. A second sentence.

    More.
    """

    name = "shrink"
    ratio: float = option(default=0.5, help="Share.", low=0, high=1)
    count: int | None = option(default=None, help="Number.", low=1)
    scope: tuple[str, ...] = option(default=(), help="Names.")
    method: str = option(default="l1", help="Norm.", choices=("l1", "l2"))
    fast: bool = option(default=False, help="Hurry.")

    def run(self, graph: Graph, context: Context) -> bool:
        return False


def test_defaults_and_values():
    assert Shrink().option_values() == {"ratio": 0.5, "count": None, "scope": (), "method": "l1", "fast": False}
    assert Shrink(ratio=0.25).ratio == 0.25
    assert Shrink() == Shrink()
    assert Shrink.summary() == "Shrink things. A second sentence."


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Shrink().ratio = 1
    with pytest.raises(TypeError):
        Shrink(0.5)


def test_options_are_described_once():
    specs = {s.name: s for s in Shrink.options()}
    assert list(specs) == ["ratio", "count", "scope", "method", "fast"]
    assert (specs["ratio"].low, specs["ratio"].high, specs["ratio"].help) == (0, 1, "Share.")
    assert specs["method"].choices == ("l1", "l2")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ratio": 1}, 1.0),
        ({"count": 3}, 3),
        ({"count": "none"}, None),
        ({"scope": ["a", "b"]}, ("a", "b")),
        ({"scope": "a"}, ("a",)),
        ({"method": "l2"}, "l2"),
        ({"fast": True}, True),
    ],
)
def test_conversion(given, expected):
    value = getattr(Shrink.from_options(given), next(iter(given)))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"ratio": "x"}, "shrink: option ratio takes a number, not 'x'"),
        ({"ratio": True}, "shrink: option ratio takes a number, not True"),
        ({"ratio": 1.5}, "shrink: ratio=1.5 is above 1"),
        ({"ratio": -0.5}, "shrink: ratio=-0.5 is below 0"),
        ({"ratio": math.nan}, "shrink: ratio is not a number"),
        ({"count": 0}, "shrink: count=0 is below 1"),
        ({"count": 1.5}, "shrink: option count takes a whole number or none, not 1.5"),
        ({"scope": [1]}, r"shrink: option scope takes a list of a word, not \[1\]"),
        ({"method": "l3"}, "shrink: method=l3 is unknown"),
        ({"fast": 1}, "shrink: option fast takes true or false, not 1"),
        ({"fest": True}, "shrink: unknown option 'fest'; did you mean 'fast'"),
    ],
)
def test_refusals(given, problem):
    with pytest.raises(UsageError, match=problem):
        Shrink.from_options(given)


def test_the_constructor_checks_too():
    with pytest.raises(UsageError, match="above 1"):
        Shrink(ratio=2)


def test_passes_without_options():
    class Plain(Pass):
        """Nothing to choose."""

        name = "plain"

        def run(self, graph: Graph, context: Context) -> bool:
            return False

    with pytest.raises(UsageError, match="plain: unknown option 'x'; it takes none"):
        Plain.from_options({"x": 1})


def test_option_types_must_be_there_at_run_time():
    class Lazy(Pass):
        """Typed with a name that is not imported."""

        name = "lazy"
        value: "NotImported" = option(default=1, help="?")  # noqa: F821

        def run(self, graph: Graph, context: Context) -> bool:
            return False

    with pytest.raises(OptimizationError, match="move its import out of `if TYPE_CHECKING`"):
        Lazy()


class Ops(Analysis):
    """Op types."""

    computed = 0

    def __init__(self, ops: list[str]) -> None:
        self.ops = ops

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> "Ops":  # noqa: ARG003
        Ops.computed += 1
        return cls([n.op for n in graph.nodes])


class Count(Analysis):
    """Number of nodes, from another analysis."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> "Count":  # noqa: ARG003
        return cls(len(context.get(Ops).ops))


@pytest.fixture
def bound() -> tuple[Context, Graph]:
    context, graph = plain_context(), parse_graph("(float[2] x) => (float[2] y) { y = Relu (x) }")
    context.bind(graph, PassRecord("test"))
    Ops.computed = 0
    return context, graph


def test_analyses_are_computed_once(bound):
    context, _ = bound
    assert context.get(Ops) is context.get(Ops)
    assert context.get(Count).number == 1
    assert Ops.computed == 1


def test_a_change_drops_them(bound):
    context, graph = bound
    context.get(Ops)
    graph.nodes[0].op = "Sigmoid"
    context.invalidate()
    assert context.get(Ops).ops == ["Sigmoid"]


def test_what_is_preserved_stays(bound):
    context, _ = bound
    kept = context.get(Ops)
    context.invalidate((Ops,))
    assert context.get(Ops) is kept


def test_an_analysis_goes_with_what_it_was_computed_from(bound):
    context, graph = bound
    context.get(Count)
    graph.remove(graph.nodes[0])
    context.invalidate((Count,))
    assert context.get(Count).number == 0


def test_dependencies_are_seen_through_the_cache(bound):
    """Also where the other analysis had been computed before."""
    context, graph = bound
    context.get(Ops)
    context.get(Count)
    graph.remove(graph.nodes[0])
    context.invalidate((Count,))
    assert context.get(Count).number == 0


def test_another_graph_drops_them(bound):
    context, graph = bound
    first = context.get(Ops)
    context.bind(graph, PassRecord("again"))
    assert context.get(Ops) is first
    context.bind(graph.copy(), PassRecord("other"))
    assert context.get(Ops) is not first


def test_an_analysis_needs_a_graph():
    with pytest.raises(OptimizationError, match="outside a pass"):
        plain_context().get(Ops)


class Table:
    """An artefact."""


def test_artefacts_survive_changes(bound):
    context, _ = bound
    assert not context.has(Table)
    table = Table()
    context.put(table)
    context.invalidate()
    assert context.has(Table)
    assert context.get(Table) is table


def test_a_missing_artefact(bound):
    with pytest.raises(UsageError, match="no pass has made a Table yet"):
        bound[0].get(Table)


def test_notes_counts_and_resolutions(bound):
    context, graph = bound
    context.note(graph.nodes[0], "busy")
    context.note(graph.inputs[0], "an input")
    context.note("everything", "a word")
    context.count("seen")
    context.count("seen", 2)
    context.resolve(align=8)
    assert context.record.notes == [("Relu 'y'", "busy"), ("x", "an input"), ("everything", "a word")]
    assert context.record.counts == {"seen": 3}
    assert context.record.options == {"align": 8}
