"""Rules of Reshape and Flatten, and of constants that are reshaped before use.

Row-major order means that both sides fall into runs of axes with equal products: `[8, 6, 4] -> [8, 2, 12]` has the
runs 8 = 8 and 6*4 = 2*12. A channel axis that is a run of its own passes. Merged with others, `[C, H] -> [C*H]`, each
atom stands at many indices. Taken apart, `[g*k] -> [g, k]`, what stays must be the same places in each row, or whole
rows: one of the new axes is left free, and the atoms along the others are tied. The choice is the one that leaves
more freedom, and another where the first turns out to be fixed (`Trace.prefer`).

Lengths may be unknown: a dimension is a number or a token that stands for one axis.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.sizes import Size, Sizes, lift, sources
from onnxopt.analysis.channels.trace import Refuse, Rule, Trace
from onnxopt.analysis.channels.weights import write_integers
from onnxopt.graph import Graph, Node

Dim = int | str
Run = tuple[list[int], list[int]]


def flatten(node: Node, trace: Trace) -> None:
    """Flatten: a reshape to two axes, which carries no shape constant."""
    if not trace.tracked(node.inputs[0]):
        return
    dims = _dims(node, trace)
    axis = int(node.attrs.get("axis", 1))
    axis += len(dims) if axis < 0 else 0
    trace.put_all(node.outputs[0], _follow(node, trace, dims, [_merged(dims[:axis]), _merged(dims[axis:])]))


def _merged(dims: list[Dim]) -> Dim:
    """Length of several axes put into one; a token where it is unknown."""
    rest = [d for d in dims if d != 1]
    if len(rest) == 1:
        return rest[0]
    return prod(d for d in rest if isinstance(d, int)) if all(isinstance(d, int) for d in rest) else "?"


def reshape(node: Node, trace: Trace) -> None:
    """Reshape to a target that is known, but for lengths that pass."""
    tracked = trace.tracked(node.inputs[0])
    known = _target(node, trace)
    counted = [] if known is None else sources(known)
    if not tracked and not counted:
        return
    if known is None or any(s.value is None and s.atoms for s in known):
        raise Refuse("has a target that cannot be read")
    before = _dims(node, trace)
    after = _resolve(before, known)
    placed = _follow(node, trace, before, after)
    trace.put_all(node.outputs[0], placed)
    literal = {i: _literal(i, s, after, tracked, node) for i, s in enumerate(known) if s.value is not None}
    speaking = {i: atoms for i, atoms in placed.items() if literal.get(i, 0) > 0}
    rewritten = [atoms for i, atoms in tracked.items() if i < len(known) and literal.get(i) != known[i].value]
    watched = [*counted, *speaking.values(), *rewritten]
    if watched:
        trace.edit(np.concatenate(watched), partial(_set_target, length=len(known), literal=literal, placed=speaking))


def _target(node: Node, trace: Trace) -> Sizes | None:
    return lift(np.asarray(node.attrs["shape"])) if "shape" in node.attrs else trace.target(node, 1)


def _literal(place: int, size: Size, after: list[Dim], tracked: Mapping[int, IntArray], node: Node) -> int:
    """What to write into the target: a 0 that copies the length of a channel axis would copy the new one."""
    length = after[place]
    assert size.value is not None
    if size.value == 0 and node.attrs.get("allowzero"):
        raise Refuse("has a target of length 0")
    return length if size.value == 0 and place in tracked and isinstance(length, int) else size.value


def _set_target(
    graph: Graph, node: Node, kept: Kept, *, length: int, literal: Mapping[int, int], placed: Mapping[int, IntArray]
) -> None:
    """Write the target; more than one length that only the model knows is taken from what it computes."""
    values = [kept.count(placed[i]) if i in placed else literal.get(i, -1) for i in range(length)]
    if "shape" in node.attrs:
        node.attrs["shape"] = values
        return
    several = values.count(-1) > 1
    write_integers(graph, node, 1, [None if several and i not in literal else v for i, v in enumerate(values)])


def _dims(node: Node, trace: Trace) -> list[Dim]:
    shape = trace.shape(node.inputs[0])
    if shape is None:
        raise Refuse("has an input of unknown rank")
    return [f"axis {i}" if d is None or d == -1 else d for i, d in enumerate(shape)]


def _resolve(dims: list[Dim], wanted: Sizes) -> list[Dim]:
    """Output dimensions: 0 copies the input's, -1 takes what is left."""
    out: list[Dim] = [
        (s.symbol or f"length {i}") if s.value is None else dims[i] if s.value == 0 and i < len(dims) else s.value
        for i, s in enumerate(wanted)
    ]
    strange = [i for i, d in enumerate(out) if isinstance(d, str) and d not in dims]
    if len(strange) == 1 and -1 not in out:
        out[strange[0]] = -1
    if -1 not in out or len(strange) > 1:
        return ["?" if d == -1 else d for d in out]
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


def _follow(node: Node, trace: Trace, before: list[Dim], after: list[Dim]) -> dict[int, IntArray]:
    """Atoms of the new axes."""
    placed: dict[int, IntArray] = {}
    tracked = trace.tracked(node.inputs[0])
    for old, new in _runs(before, after):
        here = [axis for axis in old if axis in tracked]
        if len(here) > 1:
            raise Refuse("merges two axes of channels")
        if here:
            place, atoms = _place(trace, (before, old), (after, new), here[0], tracked[here[0]])
            placed[place] = atoms
    return placed


def _runs(before: list[Dim], after: list[Dim]) -> list[Run]:
    """Pairs of consecutive axes with equal products; those between unknown lengths that do not match are one run."""
    limit = min(len(before), len(after))
    head = next((i for i in range(limit) if not _same(before[i], after[i])), limit)
    limit -= head
    tail = next((i for i in range(limit) if not _same(before[-1 - i], after[-1 - i])), limit)
    ends = len(before) - tail, len(after) - tail
    runs: list[Run] = [([i], [i]) for i in range(head)]
    runs += _middle(before, after, range(head, ends[0]), range(head, ends[1]))
    return runs + [([ends[0] + i], [ends[1] + i]) for i in range(tail)]


def _middle(before: list[Dim], after: list[Dim], old: range, new: range) -> list[Run]:
    whole: list[Run] = [([*old], [*new])]
    runs: list[Run] = [([], [])]
    left, right = list(old), list(new)
    a = b = 1
    while left or right:
        if a == b != 1:
            runs.append(([], []))
            a = b = 1
        if a == b and not all(
            isinstance(d, int) for d in [*(before[i] for i in left[:1]), *(after[i] for i in right[:1])]
        ):
            return [*runs, (left, right)]
        if left and (a <= b or not right):
            a *= _number(before[left[0]])
            runs[-1][0].append(left.pop(0))
        else:
            b *= _number(after[right[0]])
            runs[-1][1].append(right.pop(0))
        if not a or not b:
            return whole
    return runs if a == b else whole


def _number(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 0


def _place(
    trace: Trace, old: tuple[list[Dim], list[int]], new: tuple[list[Dim], list[int]], axis: int, atoms: IntArray
) -> tuple[int, IntArray]:
    """New axis and its atoms.

    Raises:
        Refuse: The axis is merged with, or taken apart into, axes of unknown length.
    """
    (before, run), (after, targets) = old, new
    inner, outer = ([before[i] for i in run if i > axis], [before[i] for i in run if i < axis])
    real = [i for i in targets if after[i] != 1]
    if not real:
        raise Refuse("drops the axis of a single channel")
    if len(real) == 1 and not inner and not outer:
        return real[0], atoms
    if not all(isinstance(d, int) for d in [*inner, *outer]):
        raise Refuse("merges channels with an axis of unknown length")
    full = np.tile(np.repeat(atoms, prod(map(_number, inner))), prod(map(_number, outer)))
    if len(real) == 1:
        return real[0], full
    lengths = [_number(after[i]) for i in real]
    if prod(lengths) != len(full):
        raise Refuse(f"takes {len(atoms)} channels apart into {[after[i] for i in real]}")
    return _take_apart(trace, full.reshape(lengths), real)


def _take_apart(trace: Trace, grid: IntArray, places: Sequence[int]) -> tuple[int, IntArray]:
    """Leave one axis of a grid of atoms free, and tie them along the others."""
    lines = [np.moveaxis(grid, i, 0).reshape(grid.shape[i], -1) for i in range(grid.ndim)]
    freest = max(range(grid.ndim), key=lambda i: (len(np.unique(lines[i][:, 0])), i))
    ways = sorted(range(grid.ndim), key=lambda i: (i != freest, i > freest, -i))  # heads stand right before their dim
    way = ways[trace.prefer(len(ways))]
    trace.atoms.tie(lines[way], lines[way][:, :1])
    free = np.ascontiguousarray(lines[way][:, 0])
    trace.choose(free)
    return places[way], free


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


def _same(a: Dim, b: Dim) -> bool:
    return a == b and a not in {"?", -1, 0}
