"""Which pass broke the model? The graph after each pass is kept, and a check is asked about log2(n) of them."""

from collections.abc import Callable
from dataclasses import dataclass

from onnxopt.graph import Graph
from onnxopt.manager import Watcher
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Entry


@dataclass(frozen=True)
class Snapshot:
    """The graph after one pass; weights that the pass left alone are shared with the other snapshots.

    Attributes:
        after: The pass in text form with its options; "" for the input.
        number: How many passes that changed the graph have run.
        graph: The graph then.
    """

    after: str
    number: int
    graph: Graph


class Snapshots(Watcher):
    """Keeps the graph before the first pass and after each pass that changed it."""

    def __init__(self) -> None:
        self.kept: list[Snapshot] = []

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:  # noqa: ARG002
        """Keep the input, once."""
        if not self.kept:
            self.kept.append(Snapshot("", 0, graph.copy()))

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:  # noqa: ARG002
        """Keep what the pass made."""
        if context.record.changed:
            text = str(Entry(step.name, {k: v for k, v in step.option_values().items() if v is not None}))
            self.kept.append(Snapshot(text, len(self.kept), after.copy()))


def first_bad(snapshots: list[Snapshot], good: Callable[[Graph], bool]) -> Snapshot | None:
    """The first snapshot that a check refuses, by binary search.

    Args:
        snapshots: In order; of those before the culprit all are taken to be good, of those after it all bad.
        good: The check.

    Returns:
        The culprit; the input itself, if that is refused already; None where the last one is good.
    """
    if good(snapshots[-1].graph):
        return None
    if not good(snapshots[0].graph):
        return snapshots[0]
    low, high = 0, len(snapshots) - 1  # low is good, high is bad
    while high - low > 1:
        middle = (low + high) // 2
        if good(snapshots[middle].graph):
            low = middle
        else:
            high = middle
    return snapshots[high]
