"""Rules of Reshape and Flatten, and of constants that are reshaped before use.

Row-major order means that leading dimensions which agree are the same axes, and so are trailing ones; what is left
in the middle is rearranged. A channel axis outside the middle passes. In the middle it may be merged with others,
`[C, H, W] -> [C*H*W]`: each atom then stands at many indices. Taking one apart, `[C] -> [g, C/g]`, is refused.

Lengths may be unknown: a dimension is a number or a token that stands for one input axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.trace import Refuse, Rule, Trace
from onnxopt.graph import Graph, Node

Dim = int | str


def flatten(node: Node, trace: Trace) -> None:
    """Flatten: a reshape to two axes, which carries no shape constant."""
    source = node.inputs[0]
    tracked = trace.tracked(source)
    if not tracked:
        return
    dims = _dims(node, trace)
    axis = int(node.attrs.get("axis", 1))
    axis += len(dims) if axis < 0 else 0
    ends = [_merged(dims[:axis]), _merged(dims[axis:])]
    for at, atoms in _follow(tracked, dims, ends):
        trace.put(node.outputs[0], at, atoms)


def _merged(dims: list[Dim]) -> Dim:
    """Length of several axes put into one; a token where it is unknown."""
    rest = [d for d in dims if d != 1]
    if len(rest) == 1:
        return rest[0]
    return prod(d for d in rest if isinstance(d, int)) if all(isinstance(d, int) for d in rest) else "?"


def reshape(node: Node, trace: Trace) -> None:
    """Reshape to a constant shape."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    wanted = trace.ints(node, 1, "shape")
    if wanted is None or (node.attrs.get("allowzero") and 0 in wanted):
        raise Refuse("has a shape that cannot be read")
    dims = _dims(node, trace)
    for at, atoms in _follow(tracked, dims, _resolve(dims, wanted)):
        trace.put(node.outputs[0], at, atoms)
        if wanted[at] > 0:
            trace.edit(atoms, partial(_set_length, slot=at, atoms=atoms))


def _set_length(graph: Graph, node: Node, kept: Kept, *, slot: int, atoms: IntArray) -> None:
    if "shape" in node.attrs:
        node.attrs["shape"] = [*node.attrs["shape"][:slot], kept.count(atoms), *node.attrs["shape"][slot + 1 :]]
        return
    own = graph.own_constant(node, 1)
    values = own.values.copy()
    values[slot] = kept.count(atoms)
    own.values = values


def _dims(node: Node, trace: Trace) -> list[Dim]:
    shape = trace.shape(node.inputs[0])
    if shape is None:
        raise Refuse("has an input of unknown rank")
    return [d if isinstance(d, int) else f"axis {i}" for i, d in enumerate(shape)]


def _resolve(dims: list[Dim], wanted: list[int]) -> list[Dim]:
    """Output dimensions: 0 copies the input's, -1 takes what is left."""
    out: list[Dim] = [dims[i] if w == 0 and i < len(dims) else w for i, w in enumerate(wanted)]
    if -1 not in out:
        return out
    left = list(dims)
    for dim in out:
        if isinstance(dim, str) and dim in left:
            left.remove(dim)
    numbers = prod(d for d in left if isinstance(d, int))
    tokens = [d for d in left if isinstance(d, str)]
    taken = prod(d for d in out if isinstance(d, int) and d != -1)
    rest: Dim = "?"
    if not tokens and taken:
        rest = numbers // taken
    elif len(tokens) == 1 and numbers == taken:
        rest = tokens[0]
    return [rest if d == -1 else d for d in out]


def _follow(tracked: Mapping[int, IntArray], before: list[Dim], after: list[Dim]) -> list[tuple[int, IntArray]]:
    """Where the tracked axes go: new axis and its atoms for each. Two that meet in one axis are refused."""
    match = _Match.of(before, after)
    places = [match.place(axis, atoms) for axis, atoms in tracked.items()]
    if len({at for at, _ in places}) < len(places):
        raise Refuse("merges two axes of channels")
    return places


def view(rule: Rule) -> Rule:
    """A rule that also tracks a constant with one real axis, such as a bias `[C]` reshaped to `[1, C, 1, 1]`.

    Its atoms begin free: whatever the result is joined with says what they are.
    """

    def apply(node: Node, trace: Trace) -> None:
        value = trace.graph.constant(node.inputs[0])
        real = [] if value is None else [axis for axis, length in enumerate(value.shape) if length > 1]
        if value is None or len(real) != 1:
            rule(node, trace)
            return
        atoms = trace.atoms.fresh(value.shape[real[0]])
        trace.site("constant", 0, real[0], atoms)
        before = dict(trace.tracked(node.inputs[0]))
        trace.put(node.inputs[0], real[0], atoms)
        try:
            rule(node, trace)
        finally:
            trace.layouts[node.inputs[0].name] = before

    return apply


@dataclass(frozen=True)
class _Match:
    """Dimensions before and after, of which the first `head` and the last `tail` are the same axes."""

    before: list[Dim]
    after: list[Dim]
    head: int
    tail: int

    @classmethod
    def of(cls, before: list[Dim], after: list[Dim]) -> "_Match":
        limit = min(len(before), len(after))
        head = next((i for i in range(limit) if not _same(before[i], after[i])), limit)
        limit -= head
        tail = next((i for i in range(limit) if not _same(before[-1 - i], after[-1 - i])), limit)
        return cls(before, after, head, tail)

    def place(self, axis: int, atoms: IntArray) -> tuple[int, IntArray]:
        """New axis and its atoms.

        Raises:
            Refuse: The axis is taken apart, or merged with one of unknown length.
        """
        if axis < self.head:
            return axis, atoms
        if axis >= len(self.before) - self.tail:
            return axis + len(self.after) - len(self.before), atoms
        inner = self.before[axis + 1 : len(self.before) - self.tail]
        outer = self.before[self.head : axis]
        targets = [i for i in range(self.head, len(self.after) - self.tail) if self.after[i] != 1]
        if len(targets) != 1:
            raise Refuse(f"takes {len(atoms)} channels apart into {[self.after[i] for i in targets]}")
        if not all(isinstance(d, int) for d in [*inner, *outer]):
            raise Refuse("merges channels with an axis of unknown length")
        repeat, tile = (prod(d for d in ds if isinstance(d, int)) for ds in (inner, outer))
        return targets[0], np.tile(np.repeat(atoms, repeat), tile)


def _same(a: Dim, b: Dim) -> bool:
    return a == b and a not in {"?", -1, 0}
