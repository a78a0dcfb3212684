"""Which nodes to take back to float32 where half is too coarse.

The errors of independent roundings add up in power, so the noise of a set of nodes is about the sum of the noises of
its parts, each measured with that part alone in half. The nodes are cut into segments in order of execution; the
noisiest is cut in two and measured again, until single nodes stand out, and the noisiest are taken back until what is
left fits. Neighbours taken back together cost no Casts between them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from onnxopt.evaluation.agreement import decibels

FIRST_CUT = 8
MOST_RUNS = 40  # of the model, each on all samples
MOST_TAKEN = 0.5  # of the nodes; beyond that the model is not worth converting
WORTHWHILE = 4.0  # 6 dB; where less is gained and the goal missed all the same, everything stays half
OVERFLOW = 1e30  # stands for infinite noise, so that sums stay numbers


@dataclass(frozen=True)
class Segment:
    """Some nodes in order of execution, and the noise that they alone make."""

    nodes: tuple[int, ...]
    noise: float


@dataclass(frozen=True)
class Repair:
    """What came of it.

    Attributes:
        half: Positions of the nodes that stay half.
        taken: What was taken back, noisiest first.
        noise: What is left.
    """

    half: frozenset[int]
    taken: tuple[Segment, ...]
    noise: float


def repair(half: frozenset[int], measure: Callable[[frozenset[int]], float], wanted: float) -> Repair:
    """Take nodes back until the noise is no more than `wanted`, or half of them are taken.

    Args:
        half: Positions of the nodes that would turn half.
        measure: Noise of a set of nodes in half, relative to the signal.
        wanted: The largest noise allowed.
    """
    everything, most = half, measure(half)
    noise = most
    search = _Search(measure, tuple(sorted(half)))
    while noise > wanted and search.take(wanted / min(noise, OVERFLOW)):
        half = half - {n for s in search.taken for n in s.nodes}
        noise = measure(half)
    if noise > wanted and min(most, OVERFLOW) < noise * WORTHWHILE:
        return Repair(everything, (), most)
    return Repair(half, tuple(search.taken), noise)


class _Search:
    def __init__(self, measure: Callable[[frozenset[int]], float], nodes: tuple[int, ...]) -> None:
        self._measure = measure
        self._runs = 0
        self._most = max(1, int(len(nodes) * MOST_TAKEN))
        self._nodes = nodes
        self._open: list[Segment] = []
        self.taken: list[Segment] = []

    def take(self, share: float) -> bool:
        """Take back until no more than this share of the noise is left; False where nothing more may be taken."""
        if not self._open and not self.taken:
            self._open = self._cut(self._nodes, FIRST_CUT)
        before = len(self.taken)
        budget = share * self._sum()
        while self._open and self._sum() > budget:
            worst = max(self._open, key=lambda s: s.noise)
            whole = len(worst.nodes) == 1 or self._runs >= MOST_RUNS
            if whole and len(worst.nodes) > self._most - sum(len(s.nodes) for s in self.taken):
                break
            self._open.remove(worst)
            if whole:
                self.taken.append(worst)
            else:
                self._open += self._cut(worst.nodes, 2)
        return len(self.taken) > before

    def _sum(self) -> float:
        return sum(s.noise for s in self._open)

    def _cut(self, nodes: tuple[int, ...], parts: int) -> list[Segment]:
        parts = min(parts, len(nodes))
        bounds = [len(nodes) * i // parts for i in range(parts + 1)]
        pieces = [nodes[a:b] for a, b in pairwise(bounds)]
        self._runs += len(pieces)
        return [Segment(piece, min(self._measure(frozenset(piece)), OVERFLOW)) for piece in pieces]


def explain(segment: Segment) -> str:
    """Why a segment was taken back."""
    if segment.noise >= OVERFLOW:
        return "outputs overflow where it is half"
    return f"in half it alone leaves {decibels(segment.noise):.1f} dB"
