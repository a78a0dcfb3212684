"""What a model would cost with fewer channels, without cutting it.

MACs of a node are proportional to the lengths of the axes of channels that it runs over, and elements of a constant
to those that it has. An axis may hold channels of several groups (Concat) and fixed ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, Group
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.compensation.reading import FloatArray

AXES = 3  # of channels in one product, at most; a Conv has two, a MatMul of activations three


@dataclass(frozen=True)
class Costs:
    """A sum of products: each a number times the shares left of some axes.

    Attributes:
        base: Cost of each product with all channels, float64[products].
        axes: Which axes each has, int64[products, AXES]; unused places hold the last axis, which is always 1.
        shares: Share of each axis that belongs to each group, float64[axes, groups].
        fixed: Share of each axis that is in no group, float64[axes].
        constant: What does not depend on channels.
    """

    base: FloatArray
    axes: IntArray
    shares: FloatArray
    fixed: FloatArray
    constant: float

    @property
    def total(self) -> float:
        """Cost with all channels."""
        return float(self.base.sum()) + self.constant

    def of(self, left: FloatArray) -> FloatArray:
        """Costs of several choices.

        Args:
            left: Share of each group that is left, float64[choices, groups].
        """
        lengths = left @ self.shares.T + self.fixed
        found: FloatArray = lengths[:, self.axes].prod(axis=2) @ self.base + self.constant
        return found


class _Products:
    def __init__(self, found: ChannelGroups, groups: Sequence[Group]) -> None:
        relations = found.relations
        self._relations = relations
        owner = np.full(len(relations.atoms), -1)
        for index, group in enumerate(groups):
            owner[group.roots] = index
        self._owner = owner[relations.atoms.roots(np.arange(len(owner)))]
        self._groups = len(groups)
        self._axes: dict[int, int] = {}
        self._rows: list[FloatArray] = []
        self._products: list[tuple[float, list[int]]] = []
        self._constant = 0.0

    def add(self, base: float, axes: Sequence[IntArray]) -> None:
        """A product of `base` and the shares left of axes, given by their atoms."""
        places = [place for atoms in axes if (place := self._axis(atoms)) is not None]
        if places:
            self._products.append((base, places[:AXES]))
        else:
            self._constant += base

    def _axis(self, atoms: IntArray) -> int | None:
        key = id(atoms)
        if key not in self._axes:
            owners = self._owner[atoms]
            counts = np.bincount(owners[owners >= 0], minlength=self._groups) / max(1, len(atoms))
            self._axes[key] = len(self._rows) if counts.any() else -1
            if counts.any():
                self._rows.append(counts)
        place = self._axes[key]
        return place if place >= 0 else None

    def result(self) -> Costs:
        shares = np.asarray([*self._rows, np.zeros(self._groups)]).reshape(-1, self._groups)
        one = len(self._rows)
        axes = [[*places, *[one] * (AXES - len(places))] for _, places in self._products]
        return Costs(
            np.asarray([base for base, _ in self._products], np.float64),
            np.asarray(axes, np.int64).reshape(-1, AXES),
            shares,
            1 - shares.sum(axis=1),
            self._constant,
        )


def mac_costs(found: ChannelGroups, groups: Sequence[Group], macs: Mapping[str, int]) -> Costs:
    """MACs of the whole graph; `macs` as `Cost` has them: first output's name to number."""
    relations = found.relations
    sites: dict[int, list[IntArray]] = {}
    for site in relations.sites:
        if site.role != "constant":
            sites.setdefault(site.node, []).append(site.atoms)
    products = _Products(found, groups)
    for position, node in enumerate(relations.graph.nodes):
        count = macs.get(node.outputs[0].name) if node.outputs else None
        if count:
            products.add(count, sites.get(position) or _activations(relations, position))
    return products.result()


def _activations(relations: Trace, position: int) -> list[IntArray]:
    """Axes that the product of two activations runs over: all of the first, and the last of the second."""
    node = relations.graph.nodes[position]
    if node.op != "MatMul":
        return []
    first, second = (relations.tracked(t) for t in node.inputs[:2])
    last = relations.rank(node.inputs[1]) - 1
    return [*first.values(), *(atoms for axis, atoms in second.items() if axis == last)]


def size_costs(found: ChannelGroups, groups: Sequence[Group], *, as_bytes: bool) -> Costs:
    """Elements, or bytes, of all constants."""
    relations = found.relations
    axes: dict[int, list[IntArray]] = {}
    for site in relations.sites:
        tensor = relations.graph.nodes[site.node].inputs[site.input]
        axes.setdefault(id(tensor), []).append(site.atoms)
    products = _Products(found, groups)
    for constant in relations.graph.initializers():
        item = np.dtype(constant.values.dtype).itemsize if as_bytes else 1
        products.add(constant.values.size * item, axes.get(id(constant), [])[: constant.values.ndim])
    return products.result()
