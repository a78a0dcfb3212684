"""How much each group of channels matters: the damage when some of it alone goes and the rest makes up for it.

Channels go in the order of `elimination`, or in one that is given; at a few counts all layers that read the group are
refitted, and the model is run on held-out samples. What is fitted on is never judged on: that would promise a
fraction of the true damage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, Group, masked
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.compensation.abreast import rows_per_sample
from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.compensation.elimination import Problem, energy_order, removal_order
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Moments, Sums
from onnxopt.analysis.compensation.reading import Reader
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph
from onnxopt.runtime import host
from onnxopt.runtime.ort import OrtSession

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
        return {"order": self.order.tolist(), "damage": {str(k): round(v, 6) for k, v in self.damage.items()}}


@dataclass
class Lab:
    """What measurements share.

    Attributes:
        graph: The model; weights are changed for a trial and put back.
        found: Its groups.
        readers: What reads free channels, in order of execution; empty where nothing is to be ranked or refitted.
        fit: Samples to fit on.
        held_out: Samples to judge on, and views of them.
        pictures: These samples without the views.
        refits: Whether readers make up for what they lose; else they only rank.
    """

    graph: Graph
    found: ChannelGroups
    readers: Sequence[Reader]
    fit: Sequence[Feeds]
    held_out: Sequence[Feeds]
    pictures: Sequence[Feeds]
    refits: bool = True

    def of_group(self, group: Group) -> list[Reader]:
        """The readers of a group's channels."""
        return [r for r in self.readers if np.isin(r.roots, group.roots).any()]

    def is_blind(self, group: Group, readers: Sequence[Reader]) -> bool:
        """Whether something that is no reader sums over a group's channels, or takes statistics over them, too."""
        known = {r.position for r in readers}
        relations = self.found.relations
        places = [s.atoms for s in relations.sums if s.node not in known] + [s.atoms for s in relations.statistics]
        return not readers or any(np.isin(relations.atoms.roots(a), group.roots).any() for a in places)

    def outputs(self, graph: Graph) -> Iterable[Mapping[str, Array]]:
        """Outputs of a graph for the held-out samples."""
        session = OrtSession(graph.to_proto(), threads=host.cores())
        return (session.run(feeds) for feeds in self.held_out)


def measure(
    lab: Lab,
    groups: Sequence[Group],
    ranked: Mapping[str, IntArray],
    removed: Sequence[float] = REMOVED,
    *,
    jointly: bool = True,
) -> dict[str, Sensitivity]:
    """Group name to what removing some of it does.

    Memory: the covariances of the layers that read the groups still open.

    Args:
        lab: The model and its samples.
        groups: What to measure.
        ranked: Orders that are known; groups that no reader reads need one.
        removed: Shares to remove; none: only orders are found.
        jointly: Rank by elimination; else by each channel's own part in what its readers give.
    """
    readers = {g.name: lab.of_group(g) for g in groups}
    todo = sorted(groups, key=lambda g: readers[g.name][0].position if readers[g.name] else -1)
    fit = LookingWalk(lab.graph, lab.fit, (), optimized=True, threads=host.cores())
    judge = _Judge(lab)
    moments: dict[int, Moments] = {}
    waiting = list(lab.readers)
    result = {}
    for index, group in enumerate(todo):
        mine = readers[group.name]
        while mine and waiting and waiting[0].position <= mine[-1].position:
            reader = waiting.pop(0)
            moments[reader.position] = take_moments(lab, reader, fit)
        order = ranked.get(group.name)
        if order is None:
            order = order_of(group, mine, moments, lab.graph, jointly=jointly)
        counts = sorted({max(1, round(group.size * (1 - share))) for share in removed} - {group.size}, reverse=True)
        result[group.name] = Sensitivity(order, judge.damage(group, order, mine, moments, counts))
        needed = {r.position for g in todo[index + 1 :] for r in readers[g.name]}
        moments = {k: v for k, v in moments.items() if k in needed}
    return {g.name: result[g.name] for g in groups}


def take_moments(lab: Lab, reader: Reader, walk: LookingWalk) -> Moments:
    """Moments of what a reader reads, without wanted outputs."""
    sums = Sums(reader.patches.shape, with_outputs=False)
    most = rows_per_sample(reader, len(lab.fit))
    source, output = reader.input(lab.graph), reader.output(lab.graph)
    for values in walk.reach(source, output):
        sums.add(reader.rows(values[source], values[output], most)[0])
    return sums.result(centred=reader.bias(lab.graph) is not None)


def order_of(
    group: Group, readers: Sequence[Reader], moments: Mapping[int, Moments], graph: Graph, *, jointly: bool = True
) -> IntArray:
    """Places of a group in the order in which they should go."""
    problems = []
    for reader in readers:
        weight = reader.matrix(graph)
        for index, roots in enumerate(reader.roots):
            columns = _columns(group, roots)
            if columns is not None:
                problems.append(Problem.of(moments[reader.position].covariance[index], weight[index], columns))
    return removal_order(problems, group.size) if jointly else energy_order(problems, group.size)


def _columns(group: Group, roots: IntArray) -> IntArray | None:
    """Columns of each place of a group, [places, per place]; None where it has none."""
    mine = np.flatnonzero(np.isin(roots, group.roots))
    if not len(mine):
        return None
    places = np.searchsorted(group.roots, roots[mine])
    return mine[np.argsort(places, kind="stable")].reshape(group.size, -1)


class _Judge:
    """Runs the model with channels of one group gone."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._names = [t.name for t in lab.graph.outputs]
        self._walk = LookingWalk(lab.graph, lab.held_out, (), optimized=True, threads=host.cores())
        self._damage = Damage(list(self._walk.look(*self._names)), lab.held_out, lab.graph.metadata)

    def damage(
        self,
        group: Group,
        order: IntArray,
        readers: Sequence[Reader],
        moments: Mapping[int, Moments],
        counts: Sequence[int],
    ) -> dict[int, float]:
        """Damage at some counts."""
        graph = self._lab.graph
        readers = readers if self._lab.refits else ()
        blind = self._lab.is_blind(group, readers)
        if readers:
            self._walk.before(readers[0].node(graph))
        old = [(r, r.matrix(graph), r.bias(graph)) for r in readers]
        found: dict[int, float] = {}
        for count in counts:
            gone = group.roots[order[: group.size - count]]
            for reader, weight, bias in old:
                kept = ~np.isin(reader.roots, gone)
                reader.write(graph, *refit(moments[reader.position], weight, bias, kept))
            if blind:
                choice = {group.name: sorted(order[group.size - count :].tolist())}
                trial = masked(graph, self._lab.found.relations, self._lab.found.kept(choice))
                found[count] = self._damage.of(self._lab.outputs(trial))
            else:
                found[count] = self._damage.of(self._walk.look(*self._names))
        for reader, weight, bias in old:
            reader.write(graph, weight, bias)
        return found
