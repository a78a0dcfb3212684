"""How much each group of channels matters: the damage when some of it alone goes and the rest makes up for it.

Channels go in the order of `elimination`; at a few counts all layers that read the group are refitted, and the model
is run on held-out samples. What is fitted on is never judged on: the other way promises a tenth of the true damage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, Group
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.compensation.elimination import Problem, removal_order
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Moments, Sums
from onnxopt.analysis.compensation.reading import FloatArray, Reader
from onnxopt.analysis.compensation.refitting import rows_per_sample
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.data import Feeds
from onnxopt.graph import Graph

REMOVED = (0.15, 0.3, 0.45, 0.6, 0.8)


@dataclass(frozen=True)
class Sensitivity:
    """What is known about one group.

    Attributes:
        order: Places in the group, the first to go first.
        damage: Count that stays to damage.
    """

    order: IntArray
    damage: Mapping[int, float]

    def keep(self, count: int) -> list[int]:
        """Places of the `count` channels that go last, ascending."""
        return sorted(self.order[len(self.order) - count :].tolist())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"order": self.order.tolist(), "damage": {str(k): v for k, v in self.damage.items()}}


@dataclass
class Lab:
    """What measurements share.

    Attributes:
        graph: The model; weights are changed for a trial and put back.
        found: Its groups.
        readers: What reads free channels, in order of execution.
        fit: Samples to fit on.
        held_out: Samples to judge on.
        threads: Threads of the sessions.
    """

    graph: Graph
    found: ChannelGroups
    readers: Sequence[Reader]
    fit: Sequence[Feeds]
    held_out: Sequence[Feeds]
    threads: int = 1

    def of_group(self, group: Group) -> list[Reader]:
        """The readers of a group's channels."""
        return [r for r in self.readers if np.isin(r.roots, group.roots).any()]


def measure(lab: Lab, groups: Sequence[Group], removed: Sequence[float] = REMOVED) -> dict[str, Sensitivity]:
    """Group name to what removing some of it does; groups that nothing refittable reads are left out.

    Memory: the covariances of the layers that read the groups still open.
    """
    readers = {g.name: lab.of_group(g) for g in groups}
    todo = sorted((g for g in groups if readers[g.name]), key=lambda g: readers[g.name][0].position)
    fit = LookingWalk(lab.graph, lab.fit, (), optimized=True, threads=lab.threads)
    judged = LookingWalk(lab.graph, lab.held_out, (), optimized=True, threads=lab.threads)
    outputs = [t.name for t in lab.graph.outputs]
    damage = Damage(list(judged.look(*outputs)), lab.held_out, lab.graph.metadata)
    moments: dict[int, Moments] = {}
    waiting = list(lab.readers)
    result = {}
    for index, group in enumerate(todo):
        last = readers[group.name][-1].position
        while waiting and waiting[0].position <= last:
            reader = waiting.pop(0)
            moments[reader.position] = take_moments(lab, reader, fit)
            fit.past(reader.output(lab.graph))
        judged.before(readers[group.name][0].node(lab.graph))
        result[group.name] = _measure_group(lab, group, readers[group.name], moments, (judged, damage), removed)
        needed = {r.position for g in todo[index + 1 :] for r in readers[g.name]}
        moments = {k: v for k, v in moments.items() if k in needed}
    return result


def take_moments(lab: Lab, reader: Reader, walk: LookingWalk) -> Moments:
    """Moments of what a reader reads, without wanted outputs."""
    sums = Sums(reader.patches.shape, with_outputs=False)
    most = rows_per_sample(reader, len(lab.fit))
    source, output = reader.input(lab.graph), reader.output(lab.graph)
    for values in walk.look(source, output):
        sums.add(reader.rows(values[source], values[output], most)[0])
    return sums.result(centred=reader.bias(lab.graph) is not None)


def order_of(group: Group, readers: Sequence[Reader], moments: Mapping[int, Moments], graph: Graph) -> IntArray:
    """Places of a group in the order in which they should go."""
    problems = []
    for reader in readers:
        weight = reader.matrix(graph)
        for index, roots in enumerate(reader.roots):
            columns = _columns(group, roots)
            if columns is not None:
                problems.append(Problem.of(moments[reader.position].covariance[index], weight[index], columns))
    return removal_order(problems, group.size)


def _columns(group: Group, roots: IntArray) -> IntArray | None:
    """Columns of each place of a group, [places, per place]; None where it has none."""
    mine = np.flatnonzero(np.isin(roots, group.roots))
    if not len(mine):
        return None
    places = np.searchsorted(group.roots, roots[mine])
    return mine[np.argsort(places, kind="stable")].reshape(group.size, -1)


def _measure_group(
    lab: Lab,
    group: Group,
    readers: Sequence[Reader],
    moments: Mapping[int, Moments],
    judge: tuple[LookingWalk, Damage],
    removed: Sequence[float],
) -> Sensitivity:
    order = order_of(group, readers, moments, lab.graph)
    counts = sorted({max(1, round(group.size * (1 - share))) for share in removed} - {group.size}, reverse=True)
    old = [(r, r.matrix(lab.graph), r.bias(lab.graph)) for r in readers]
    walk, damage = judge
    outputs = [t.name for t in lab.graph.outputs]
    found: dict[int, float] = {}
    for count in counts:
        gone = group.roots[order[: group.size - count]]
        for reader, weight, bias in old:
            kept = ~np.isin(reader.roots, gone)
            reader.write(lab.graph, *refit(moments[reader.position], weight, bias, kept))
        found[count] = damage.of(walk.look(*outputs))
    for reader, weight, bias in old:
        reader.write(lab.graph, weight, bias)
    return Sensitivity(order, found)


def curves(found: Mapping[str, Sensitivity]) -> dict[str, Mapping[int, float]]:
    """Damage per count of each group."""
    return {name: s.damage for name, s in found.items()}


def lengths(groups: Sequence[Group]) -> FloatArray:
    """Number of places per group."""
    return np.asarray([g.size for g in groups], np.float64)
