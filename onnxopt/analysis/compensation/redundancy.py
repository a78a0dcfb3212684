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


def find_redundant(graph: Graph, found: ChannelGroups) -> list[Redundant]:
    """Redundant channels of all free groups that have any.

    Args:
        graph: The graph, its nodes in order of execution.
        found: Its groups.
    """
    if any(n.op == "Dropout" and len(n.inputs) > 2 for n in graph.walk()):  # it may be training, which is random
        return []
    relations = found.relations
    known = known_channels(graph, relations)
    readers = find_readers(graph, found, found.free)
    positions = {r.position for r in readers}
    elsewhere = [s.atoms for s in relations.sums if s.node not in positions] + [s.atoms for s in relations.statistics]
    blind = np.unique(np.concatenate([np.empty(0, np.int64), *(relations.atoms.roots(a) for a in elsewhere)]))
    result = []
    for group in found.free:
        mine = tuple(r for r in readers if np.isin(r.roots, group.roots).any())
        if not mine or np.isin(group.roots, blind).any():
            continue
        unread = np.all([_unread(graph, r, group) for r in mine], axis=0)
        sure = np.all([_foldable(graph, r, group, known) for r in mine], axis=0) & ~unread
        twins = {} if any(_is_half(graph, r) for r in mine) else _twins(graph, found, group, unread | sure)
        if unread.any() or sure.any() or twins:
            result.append(Redundant(group, mine, _places(unread), _places(sure), twins))
    return result


def give_biases(graph: Graph, found: ChannelGroups, redundant: Sequence[Leaving]) -> bool:
    """Give readers that need a bias one, in place; where that is so, the graph has to be analysed anew."""
    known = known_channels(graph, found.relations)
    poor = [r for each, gone in redundant for r in each.readers if _constant_part(graph, r, each, gone, known).any()]
    given = [give_bias(graph, reader.node(graph)) for reader in poor]
    return any(given)


def fold(graph: Graph, found: ChannelGroups, redundant: Sequence[Leaving]) -> None:
    """Let the readers of channels do without them, in place: afterwards they can be cut.

    Args:
        graph: The graph that they were found in, whose readers have the biases that they need.
        found: Its groups.
        redundant: What goes.
    """
    known = known_channels(graph, found.relations)
    for each, gone in redundant:
        for reader in each.readers:
            added, matrix = _constant_part(graph, reader, each, gone, known), reader.matrix(graph)
            for block, columns in enumerate(_columns(reader, each.group)):
                for place in gone:
                    if place in each.twins:
                        matrix[block][:, columns[each.twins[place]]] += matrix[block][:, columns[place]]
                    matrix[block][:, columns[place]] = 0
            bias = reader.bias(graph)
            reader.write(graph, matrix, bias + added if bias is not None and added.any() else None)


def _constant_part(
    graph: Graph, reader: Reader, each: Redundant, gone: Sequence[int], known: dict[str, FloatArray]
) -> FloatArray:
    """What a reader makes of the known places that go, float64[groups, columns]."""
    matrix, values = reader.matrix(graph), _per_column(reader, graph, known)
    part = np.zeros(matrix.shape[:2])
    for block, columns in enumerate(_columns(reader, each.group)):
        for place in {*gone} & {*each.known}:
            at = columns[place]
            read = at[(matrix[block][:, at] != 0).any(axis=0) & (values[block, at] != 0)]
            part[block] += matrix[block][:, read] @ values[block, read]
    return part


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
    silent = ~(reader.matrix(graph) != 0).any(axis=1)
    return np.array([bool(silent[reader.roots == root].all()) for root in group.roots])


def _foldable(graph: Graph, reader: Reader, group: Group, known: dict[str, FloatArray]) -> BoolArray:
    """Whether what the reader makes of each place is the same wherever it looks, whatever the input."""
    values = _per_column(reader, graph, known)
    weighted = (reader.matrix(graph) != 0).any(axis=1)
    node = reader.node(graph)
    anywhere = not (any(reader.patches.pads) or reader.same or reader.stuffing)
    biased = reader.bias(graph) is not None or (node.op in BIASED and (len(node.inputs) < 3 or not node.inputs[2].name))
    fold = anywhere and biased and not _is_half(graph, reader)
    fine = ~weighted | (values == 0) | (~np.isnan(values) & fold)
    return np.array([bool(fine[reader.roots == root].all()) for root in group.roots])


def _per_column(reader: Reader, graph: Graph, known: dict[str, FloatArray]) -> FloatArray:
    """The known value of the channel that each column reads, float64[groups, length]; NaN where there is none."""
    groups, _, length = reader.patches.shape
    channels = known.get(reader.input(graph))
    per_block = len(np.unique(reader.roots[0])) if channels is None else len(channels) // groups
    if channels is None or not per_block or length % per_block:
        return np.full((groups, length), np.nan)
    return np.repeat(channels.reshape(groups, per_block), length // per_block, axis=1)


def _twins(graph: Graph, found: ChannelGroups, group: Group, gone: BoolArray) -> dict[int, int]:
    """Place to an earlier one with the same weights and constants, of those that are not gone already."""
    relations, atoms = found.relations, found.relations.atoms
    axes = [*(s.atoms for s in relations.sites), *(a for layout in relations.layouts.values() for a in layout.values())]
    if any(_stands_twice(atoms.roots(a), group.roots) for a in axes):
        return {}
    parts: list[list[bytes]] = [[] for _ in group.roots]
    for site in relations.sites:
        roots = atoms.roots(site.atoms)
        if site.role == "in" or not np.isin(roots, group.roots).any():
            continue
        value = graph.constant(graph.nodes[site.node].inputs[site.input])
        if value is None:
            return {}
        for place, root in enumerate(group.roots):
            parts[place].append(np.take(value, np.flatnonzero(roots == root), axis=site.axis).tobytes())
    first: dict[bytes, int] = {}
    twins = {}
    for place, slices in enumerate(parts):
        if not gone[place]:
            other = first.setdefault(b"|".join(slices), place)
            if other != place:
                twins[place] = other
    return twins


def _stands_twice(roots: IntArray, of_group: IntArray) -> bool:
    mine = roots[np.isin(roots, of_group)]
    return len(np.unique(mine)) < len(mine)
