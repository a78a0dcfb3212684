"""Groups of channels: what can be removed, what goes with it, and what cannot be removed and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd, lcm
from typing import ClassVar, Self

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.facts import DEFAULT, Policy, Role, Site
from onnxopt.analysis.channels.table import all_rules
from onnxopt.analysis.channels.trace import Rule, Trace
from onnxopt.analysis.channels.walk import trace
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.graph import Graph
from onnxopt.pass_api import Analysis, Context


@dataclass(frozen=True)
class Member:
    """A constant that is cut when channels of the group go.

    Attributes:
        node: Name of the node that reads it.
        role: See `Site`.
        input: Which of the node's inputs it is.
        axis: Its axis that is cut.
    """

    node: str
    role: Role
    input: int
    axis: int


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that stand at the same places of the same tensors, so that any of them may go as well as another.

    Attributes:
        name: The node that first makes the channels, with their range where it makes others too.
        roots: One atom for each thing that can be removed, in the order in which the first producer has them.
        channels: How many channels of the first producer these are: more than `size` behind a grouped convolution.
        unit: Greatest common divisor of the numbers of channels that go with each of them on any axis of an activation.
        members: What is cut.
        fixed: Why none can go; None where they are free.
        macs: Multiply-accumulates that would go with the whole group.
    """

    name: str
    roots: IntArray
    channels: int
    unit: int
    members: tuple[Member, ...]
    fixed: str | None
    macs: int

    @property
    def size(self) -> int:
        """How many things can be removed one by one."""
        return len(self.roots)

    def step(self, align: int) -> int:
        """Smallest number of roots whose channels are a multiple of `align`.

        Blocks of grouped convolutions are never broken: with `unit` channels each, multiples of
        `lcm(align, unit)` channels remain.
        """
        return lcm(align, self.unit) // self.unit


class ChannelGroups(Analysis):
    """All groups of a graph, and the relations that they were found from.

    Attributes:
        policy: Which relations are taken; a subclass takes others, and is asked for like any analysis.
        relations: What `cut` and `masked` work from.
        groups: In order of the first producer.
    """

    policy: ClassVar[Policy] = DEFAULT

    def __init__(self, relations: Trace, groups: tuple[Group, ...]) -> None:
        self.relations = relations
        self.groups = groups

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> Self:
        """Relate the axes of the graph and sort the channels into groups."""
        macs = context.get(Cost).macs
        relations = trace(graph, context.get(Shapes), all_rules(), cls.policy)
        return cls(relations, find_groups(relations, macs))

    @classmethod
    def of(cls, graph: Graph, rules: Mapping[str, Rule] | None = None, policy: Policy | None = None) -> Self:
        """Groups of a graph outside a pass, without MACs."""
        relations = trace(graph, Shapes(*infer(graph)), rules or all_rules(), policy or cls.policy)
        return cls(relations, find_groups(relations, {}))

    @property
    def free(self) -> list[Group]:
        """Groups that channels may be removed from."""
        return [g for g in self.groups if g.fixed is None]

    def kept(self, choice: Mapping[str, Sequence[int]]) -> Kept:
        """Which atoms stay.

        Args:
            choice: Group name to the places in the group that are kept; groups not named keep all.

        Raises:
            ValueError: A group is unknown, fixed, or would lose all.
        """
        stays = np.ones(len(self.relations.atoms), np.bool_)
        groups = {g.name: g for g in self.free}
        for name, places in choice.items():
            if name not in groups or len(places) == 0:
                raise ValueError(f"'{name}' is no free group, or nothing of it is kept")
            stays[groups[name].roots] = False
            stays[groups[name].roots[np.asarray(places, np.int64)]] = True
        return Kept(stays[self.relations.atoms.roots(np.arange(len(stays)))])


@cache
def groups_under(policy: Policy) -> type[ChannelGroups]:
    """The analysis that takes the relations of a policy: `context.get(groups_under(policy))`."""
    return ChannelGroups if policy == DEFAULT else type("ChannelGroupsUnder", (ChannelGroups,), {"policy": policy})


def find_groups(relations: Trace, macs: Mapping[str, int]) -> tuple[Group, ...]:
    """Sort the classes of atoms by the places where they stand.

    Two classes are in one group if they stand on the same axes of the same tensors and constants, equally often on
    each. So each axis is made of whole groups, and stays non-empty as long as every group does.

    Args:
        relations: What is known of the graph.
        macs: First output's name to MACs, per weighted node.
    """
    places = _places(relations)
    producers = [s for s in relations.sites if s.role == "out"]
    made = {int(r) for s in producers for r in np.unique(relations.atoms.roots(s.atoms))}
    buckets: dict[tuple[object, ...], list[int]] = {}
    for root in sorted(made):
        buckets.setdefault((relations.atoms.reason(root), *places[root]), []).append(root)
    sites = _sites_by_root(relations, np.array([roots[0] for roots in buckets.values()], np.int64))
    products = _products(relations) if macs else []
    groups: list[Group] = []
    taken: set[str] = set()
    for key, roots in buckets.items():
        unit = gcd(*(count for axis, count in places[roots[0]] if axis < 0))
        found = sites[roots[0]]
        name, channels = _name(relations, found, np.asarray(roots), taken)
        members = tuple(Member(_node_name(relations, s.node), s.role, s.input, s.axis) for s in found)
        reason = key[0] if isinstance(key[0], str) else None
        axes = [(s.node, s.atoms) for s in found if s.role != "constant"] + products
        carried = _carried(relations, axes, np.asarray(roots), macs)
        groups.append(Group(name, np.asarray(roots, np.int64), channels, unit, members, reason, carried))
    return tuple(groups)


def _places(relations: Trace) -> dict[int, list[tuple[int, int]]]:
    """Root to (axis, how often it stands there), for axes of activations (numbered below 0) and of constants."""
    activations = {id(a): a for layout in relations.layouts.values() for a in layout.values()}
    constants = {id(s.atoms): s.atoms for s in relations.sites if id(s.atoms) not in activations}
    places: dict[int, list[tuple[int, int]]] = {}
    for key, atoms in enumerate([*activations.values(), *constants.values()], -len(activations)):
        roots, counts = np.unique(relations.atoms.roots(atoms), return_counts=True)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            places.setdefault(root, []).append((key, count))
    return places


def _sites_by_root(relations: Trace, leads: IntArray) -> dict[int, list[Site]]:
    """Where each of these roots stands in constants."""
    sites: dict[int, list[Site]] = {}
    for site in relations.sites:
        for root in np.intersect1d(relations.atoms.roots(site.atoms), leads).tolist():
            sites.setdefault(root, []).append(site)
    return sites


def _node_name(relations: Trace, position: int) -> str:
    node = relations.graph.nodes[position]
    return node.name or node.outputs[0].name


def _name(relations: Trace, sites: list[Site], roots: IntArray, taken: set[str]) -> tuple[str, int]:
    """Name of the first producer, with the range of channels where it has others, and how many of it they are."""
    first = next(s for s in sites if s.role == "out")
    name = base = _node_name(relations, first.node)
    here = np.flatnonzero(np.isin(relations.atoms.roots(first.atoms), roots))
    if len(here) < len(first.atoms):
        name = base = f"{base}[{here[0]}:{here[-1] + 1}]"
    count = 1
    while name in taken:
        count += 1
        name = f"{base}#{count}"
    taken.add(name)
    return name, len(here)


def _carried(relations: Trace, axes: Sequence[tuple[int, IntArray]], roots: IntArray, macs: Mapping[str, int]) -> int:
    """MACs of the nodes times the share of their axes that the group takes."""
    rest: dict[int, float] = {}
    for position, atoms in axes:
        share = float(np.isin(relations.atoms.roots(atoms), roots).mean())
        rest[position] = rest.get(position, 1.0) * (1 - share)
    outputs = {i: relations.graph.nodes[i].outputs[0].name for i in rest}
    return round(sum(macs.get(outputs[i], 0) * (1 - left) for i, left in rest.items()))


def _products(relations: Trace) -> list[tuple[int, IntArray]]:
    """Each axis of channels of a product of two activations, with the node's position."""
    weighted = {site.node for site in relations.sites}
    summed = [(s.node, s.atoms) for s in relations.sums if s.node not in weighted]
    nodes = {position: relations.graph.nodes[position] for position, _ in summed}
    nodes |= {i: n for i, n in enumerate(relations.graph.nodes) if n.op == "MatMul" and i not in weighted}
    return [*summed, *((i, a) for i, n in nodes.items() for a in relations.tracked(n.outputs[0]).values())]
