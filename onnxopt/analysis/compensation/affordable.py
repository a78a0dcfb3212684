"""How many samples a study may use: as many as the memory holds and the time allows, whatever the machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxopt.analysis.compensation.reading import Reader
from onnxopt.graph import Graph

MEMORY = 2**31  # bytes of activations held at a time to fit on, in both walks together, and as many to judge on
PICTURES = 128  # to fit on, at most
VIEWS = 4
JUDGED = 36  # held-out samples, at most
FIT_WORK = 1e11  # multiply-accumulates of one run over all samples that are fitted on
TRIAL_WORK = 2e12  # of all runs that judge
LEAST_JUDGED = 8
JUDGED_VIEWS = 3  # damage needs no labels, so views of held-out samples judge as well as samples do


@dataclass(frozen=True)
class Plan:
    """Numbers of samples.

    Attributes:
        pictures: Samples to fit on.
        views: Views of each.
        judged: Samples to judge on.
        judged_views: Views of each.
    """

    pictures: int
    views: int
    judged: int
    judged_views: int


def plan(
    graph: Graph,
    readers: Sequence[Reader],
    nbytes: Callable[[str], int],
    macs: int,
    sizes: tuple[int, int],
    trials: int,
) -> Plan:
    """Find the numbers.

    Args:
        graph: The model.
        readers: Where walks over it stop.
        nbytes: Bytes of a tensor by name.
        macs: Of one run.
        sizes: Samples that there are to fit on and to judge on.
        trials: How many runs over the judged samples there will be.
    """
    held = max(1, peak(graph, readers, nbytes))
    pictures = max(1, min(sizes[0], PICTURES, MEMORY // held))
    views = int(min(VIEWS, MEMORY // held // pictures, FIT_WORK // max(1, macs * pictures)))
    half_a_run = max(1.0, macs * trials / 2)
    runs = min(max(LEAST_JUDGED, int(TRIAL_WORK / half_a_run)), max(1, MEMORY // held))
    judged = max(1, min(sizes[1], JUDGED, runs))
    return Plan(pictures, max(1, views), judged, max(1, min(JUDGED_VIEWS, runs // judged)))


def peak(graph: Graph, readers: Sequence[Reader], nbytes: Callable[[str], int]) -> int:
    """Most bytes that two walks hold of one sample, where one has stopped before a layer and the other behind it."""
    stops = {r.position for r in readers}
    last = {t.name: i for i, n in enumerate(graph.nodes) for t in n.inputs if t.name}
    held = {t.name: nbytes(t.name) for t in graph.inputs}
    most = 2 * sum(held.values())
    for position, node in enumerate(graph.nodes):
        before = sum(held.values())
        held |= {t.name: nbytes(t.name) for t in node.outputs if last.get(t.name, -1) > position}
        held = {name: size for name, size in held.items() if last.get(name, -1) > position}
        if position in stops:
            most = max(most, before + sum(held.values()))
    return most
