"""How much has to go until a model is fast enough on its target: measured, not estimated.

Time does not follow MACs: narrow layers, memory and layout changes take their part. So the share of MACs that may
remain is found by halving, each step timing a cut against the original in one process, in turns.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.runtime.adapter import Feeds, Runtime, prepared
from onnxopt.runtime.latency import Latency, compare

HALVINGS = 6
ROUNDS, SECONDS = 40, 6.0  # of each measurement
_TEXT = re.compile(r"(?P<value>\d+(\.\d+)?|\.\d+)\s*(?P<unit>ms)?")


@dataclass(frozen=True)
class LatencyBudget:
    """A latency that must not be exceeded.

    Attributes:
        value: Milliseconds, or a share of what the original takes.
        absolute: Whether it is milliseconds.
    """

    value: float
    absolute: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `4.2ms`, or `0.8` for a share.

        Raises:
            UsageError: It is neither.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None or float(found["value"]) <= 0 or (found["unit"] is None and float(found["value"]) > 1):
            raise UsageError(f"prune: latency must be milliseconds like 4.2ms or a share like 0.8, got '{text}'")
        return cls(float(found["value"]), found["unit"] is not None)

    def met_by(self, latency: Latency) -> bool:
        """Whether a candidate, timed with the original as the first, is fast enough."""
        if self.absolute:
            return latency.milliseconds.median <= self.value
        return latency.speedup.median * self.value >= 1

    def __str__(self) -> str:
        return f"{self.value:g} ms" if self.absolute else f"{self.value:g} of the original's time"


def most_that_may_stay(
    budget: LatencyBudget,
    original: Graph,
    cut_to: Callable[[float], tuple[Graph, float]],
    runtime: Runtime,
    feeds: Feeds,
) -> tuple[float | None, list[str]]:
    """Find the largest share of the MACs at which a model is fast enough.

    Args:
        budget: The latency to keep to.
        original: The model.
        cut_to: The model cut to a share of its MACs or to the least that can remain, and the share that did remain.
            Weights do not matter, so they need not be refitted.
        runtime: The target's.
        feeds: What to run both on.

    Returns:
        The share, None where even the least takes longer, and what was measured, in words.
    """
    first = prepared(runtime.open(original.to_proto()), feeds)
    measured: list[str] = []

    def fast_enough(share: float) -> bool:
        graph, left = cut_to(share)
        second = prepared(runtime.open(graph.to_proto()), feeds)
        timed = compare({"original": first, f"{left:.3f} of the MACs": second}, rounds=ROUNDS, seconds=SECONDS)
        measured.append(str(timed.latencies[1]))
        return budget.met_by(timed.latencies[1])

    # A share is of the original's own time, which is not fast enough, whatever a noisy clock says.
    if budget.absolute and fast_enough(1.0):
        return 1.0, measured
    return largest(fast_enough, cut_to(0.0)[1]), measured


def largest(fast_enough: Callable[[float], bool], least: float = 0.0) -> float | None:
    """The largest share from `least` to below 1 that is fast enough, by halving; None where there is none."""
    if not fast_enough(least):
        return None
    low, high = least, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fast_enough(middle) else (low, middle)
    return low
