"""Channels that a model can lose without losing anything.

* unread: every weight that reads the channel is 0;
* known: its value is the same for every input (`channels.known`), so that what its readers make of it belongs into
  their biases. Of a value other than 0 that holds for readers without padding alone: beside the picture stand zeros;
* twins: all weights that make it, and all constants applied to it, are those of another channel of its group, so the
  two are equal, and one reader's weight for both is the sum. Only where each place is one channel of every tensor:
  of several, the order may differ from tensor to tensor.

In half precision sums could overflow: there, only what is 0 goes. What is summed over by anything but a layer with
weights stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.channels import ChannelGroups, Group
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.known import known_channels
from onnxopt.analysis.compensation.reading import BIASED, Reader, find_readers, give_bias
from onnxopt.graph import Graph

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Redundant:
    """What a group can lose.

    Attributes:
        group: The group.
        readers: All that reads it.
        unread: Places that nothing reads.
        known: Places whose values belong into biases.
        twins: Place to the place of the equal channel that stays.
    """

    group: Group
    readers: tuple[Reader, ...]
    unread: tuple[int, ...]
    known: tuple[int, ...]
    twins: dict[int, int]

    @property
    def places(self) -> list[int]:
        """All of them; those that change no weight first."""
        return [*self.unread, *self.known, *self.twins]


Leaving: TypeAlias = tuple[Redundant, Sequence[int]]
"""What a group can lose, and the places of it that go."""


class Redundancy:
    """What all free groups of a graph can lose.

    Args:
        graph: The graph, its nodes in order of execution.
        found: Its groups.

    Attributes:
        groups: Those that can lose something.
    """

    def __init__(self, graph: Graph, found: ChannelGroups) -> None:
        self._graph, self._relations = graph, found.relations
        self._known = known_channels(graph, found.relations)
        random = any(n.op == "Dropout" and len(n.inputs) > 2 for n in graph.walk())  # it may be training
        self.groups: list[Redundant] = [] if random else self._find(found)

    def give_biases(self, leaving: Sequence[Leaving]) -> bool:
        """Give readers that need a bias one, in place; where that is so, the graph has to be analysed anew."""
        poor = [r for each, gone in leaving for r in each.readers if self._constant_part(r, each, gone).any()]
        given = [give_bias(self._graph, reader.node(self._graph)) for reader in poor]
        return any(given)

    def fold(self, leaving: Sequence[Leaving]) -> None:
        """Let the readers of channels do without them, in place: afterwards they can be cut.

        Args:
            leaving: What goes; its readers have the biases that they need.
        """
        for each, gone in leaving:
            for reader in each.readers:
                self._fold(reader, each, gone)

    def _fold(self, reader: Reader, each: Redundant, gone: Sequence[int]) -> None:
        added, matrix = self._constant_part(reader, each, gone), reader.matrix(self._graph)
        for block, columns in enumerate(_columns(reader, each.group)):
            for place in gone:
                if place in each.twins:
                    matrix[block][:, columns[each.twins[place]]] += matrix[block][:, columns[place]]
                matrix[block][:, columns[place]] = 0
        bias = reader.bias(self._graph)
        reader.write(self._graph, matrix, bias + added if bias is not None and added.any() else None)

    def _constant_part(self, reader: Reader, each: Redundant, gone: Sequence[int]) -> FloatArray:
        """What a reader makes of the known places that go, float64[groups, columns]."""
        part = np.zeros(reader.patches.shape[:2])
        places = {*gone} & {*each.known}
        if not places:
            return part
        matrix, values = reader.matrix(self._graph), self._per_column(reader)
        for block, columns in enumerate(_columns(reader, each.group)):
            for place in places:
                read = columns[place][matrix[block][:, columns[place]].any(axis=0)]
                part[block] += matrix[block][:, read] @ values[block, read]
        return part

    def _find(self, found: ChannelGroups) -> list[Redundant]:
        graph, relations = self._graph, self._relations
        readers = find_readers(graph, found, found.free)
        positions = {r.position for r in readers}
        elsewhere = [s.atoms for s in relations.sums if s.node not in positions]
        blind = self._roots([*elsewhere, *(s.atoms for s in relations.statistics)])
        slices = self._slices()
        result = []
        for group in found.free:
            mine = tuple(r for r in readers if np.isin(r.roots, group.roots).any())
            if not mine or np.isin(group.roots, blind).any():
                continue
            unread = np.all([_unread(graph, r, group) for r in mine], axis=0)
            sure = np.all([self._foldable(r, group) for r in mine], axis=0) & ~unread
            half = any(_is_half(graph, r) for r in mine)
            twins = {} if half else _twins([slices.get(root) for root in group.roots.tolist()], unread | sure)
            if unread.any() or sure.any() or twins:
                result.append(Redundant(group, mine, _places(unread), _places(sure), twins))
        return result

    def _roots(self, axes: Sequence[IntArray]) -> IntArray:
        return np.unique(np.concatenate([np.empty(0, np.int64), *map(self._relations.atoms.roots, axes)]))

    def _slices(self) -> dict[int, bytes]:
        """Root to all that makes it and is applied to it; those that stand twice on an axis are left out."""
        relations = self._relations
        out: set[int] = set()
        for layout in relations.layouts.values():
            for atoms in layout.values():
                out |= _repeated(relations.atoms.roots(atoms))
        parts: dict[int, list[bytes]] = {}
        for site in relations.sites:
            roots = relations.atoms.roots(site.atoms)
            out |= _repeated(roots)
            if site.role == "in":
                continue
            value = self._graph.constant(self._graph.nodes[site.node].inputs[site.input])
            if value is None:
                out.update(roots.tolist())
                continue
            for root, values in zip(roots.tolist(), np.moveaxis(value, site.axis, 0), strict=True):
                parts.setdefault(root, []).append(values.tobytes())
        return {root: b"|".join(of) for root, of in parts.items() if root not in out}

    def _foldable(self, reader: Reader, group: Group) -> BoolArray:
        """Whether what the reader makes of each place is the same wherever it looks, whatever the input."""
        graph, node = self._graph, reader.node(self._graph)
        values = self._per_column(reader)
        matrix = reader.matrix(graph)
        weighted, finite = matrix.any(axis=1), np.isfinite(matrix).all(axis=1)  # 0 times infinity is not 0
        anywhere = not (any(reader.patches.pads) or reader.same or reader.stuffing)
        free = node.op in BIASED and (len(node.inputs) < 3 or not node.inputs[2].name)
        fold = anywhere and (free or reader.bias(graph) is not None) and not _is_half(graph, reader)
        fine = ~weighted | (finite & ((values == 0) | (~np.isnan(values) & fold)))
        return np.array([bool(fine[reader.roots == root].all()) for root in group.roots])

    def _per_column(self, reader: Reader) -> FloatArray:
        """The known value of the channel that each column reads, float64[groups, length]; NaN where there is none."""
        groups, _, length = reader.patches.shape
        channels = self._known.get(reader.input(self._graph))
        if channels is None:
            return np.full((groups, length), np.nan)
        blocks = channels.reshape(groups, -1)
        return np.repeat(blocks, length // blocks.shape[1], axis=1)


def _is_half(graph: Graph, reader: Reader) -> bool:
    weight = graph.constant(reader.node(graph).inputs[1])
    return weight is None or weight.dtype == np.float16


def _places(flags: BoolArray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist())


def _columns(reader: Reader, group: Group) -> list[list[IntArray]]:
    """Per block of a grouped Conv and place of the group: the columns that read it."""
    return [[np.flatnonzero(roots == root) for root in group.roots] for roots in reader.roots]


def _unread(graph: Graph, reader: Reader, group: Group) -> BoolArray:
    """Whether the reader's weights for each place are all 0."""
    silent: BoolArray = np.asarray((reader.matrix(graph) == 0).all(axis=1))
    return np.array([bool(silent[reader.roots == root].all()) for root in group.roots])


def _twins(slices: Sequence[bytes | None], gone: BoolArray) -> dict[int, int]:
    """Place to an earlier one that is equal, of those that are not gone already."""
    first: dict[bytes, int] = {}
    twins = {}
    for place, mine in enumerate(slices):
        if mine is not None and not gone[place]:
            other = first.setdefault(mine, place)
            if other != place:
                twins[place] = other
    return twins


def _repeated(roots: IntArray) -> set[int]:
    values, counts = np.unique(roots, return_counts=True)
    return {*values[counts > 1].tolist()}
