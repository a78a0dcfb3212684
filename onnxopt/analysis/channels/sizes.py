"""Sizes: the small integers of shape arithmetic, and what is known of them before the model runs.

Exporters write `Shape -> Gather -> Add -> Div -> Slice` where they mean a number. Each element is a `Size`: its value
where it is known, a symbol that it equals, and the channels whose number it was computed from. A node all of whose
inputs are sizes is computed here; a node that reads sizes as data or as a target keeps the value they have now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add, eq, ge, gt, le, lt, mod, mul, sub
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.graph import Array, Node

MOST = 64  # elements; more are no shape arithmetic
INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})

Sizes = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Size:
    """One number of shape arithmetic.

    Attributes:
        value: The number, None where it is not known.
        symbol: Name of the dimension that it equals, None where it equals none.
        atoms: Channels whose number it was computed from, per axis.
    """

    value: int | None = None
    symbol: str | None = None
    atoms: tuple[IntArray, ...] = ()


def _combine(op: Callable[[int, int], Any], a: Size, b: Size, neutral: int | None = None) -> Size:
    atoms = a.atoms + tuple(x for x in b.atoms if all(x is not y for y in a.atoms))
    known = None if a.value is None or b.value is None else int(op(a.value, b.value))
    symbol = a.symbol if b.value == neutral is not None else None
    return Size(known, symbol, atoms)


def _quotient(a: int, b: int) -> int:
    """Integer division as ONNX has it: towards zero."""
    return int(a / b) if b else 0


def lift(values: Array) -> Sizes | None:
    """Sizes of a constant; None where it is no small array of integers."""
    if values.dtype.kind not in "ib" or values.size > MOST:
        return None
    return _array([Size(int(v)) for v in values.ravel()], values.shape)


def _array(items: Sequence[Size], shape: tuple[int, ...]) -> Sizes:
    made = np.empty(len(items), object)
    made[:] = items
    return made.reshape(shape)


def numbers(sizes: Sizes) -> list[int] | None:
    """All values, None where any is unknown."""
    found = [s.value for s in sizes.ravel()]
    return None if None in found else [v for v in found if v is not None]


def sources(sizes: Sizes) -> list[IntArray]:
    """Channels whose numbers the sizes were computed from."""
    return [atoms for size in sizes.ravel() for atoms in size.atoms]


class _Unknown(Exception):  # noqa: N818  (ends an evaluation, no error)
    pass


def _ints(sizes: Sizes) -> list[int]:
    found = numbers(sizes)
    if found is None:
        raise _Unknown
    return found


def evaluate(node: Node, inputs: list[Sizes]) -> list[Sizes] | None:
    """Outputs of a node from sizes; None where it is no shape arithmetic or a number that decides is unknown."""
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    try:
        outputs = rule(node, inputs)
    except (_Unknown, IndexError, ValueError):
        return None
    if any(o.size > MOST for o in outputs):
        return None
    deciding = _DECIDING.get(node.op, range(1, len(inputs))) if node.op in _PICKING else ()
    atoms = [a for i in deciding for a in sources(inputs[i])]
    return [_marked(o, atoms) for o in outputs] if atoms else outputs


def _marked(sizes: Sizes, atoms: list[IntArray]) -> Sizes:
    """The same numbers, computed from the numbers of these channels too: they said which are picked."""
    marked = [Size(s.value, None, (*s.atoms, *atoms)) for s in sizes.ravel()]
    return _array(marked, sizes.shape)


def _pairwise(op: Callable[[int, int], Any], neutral: int | None = None) -> "_Rule":
    def rule(node: Node, inputs: list[Sizes]) -> list[Sizes]:  # noqa: ARG001
        found = inputs[0]
        for other in inputs[1:]:
            left, right = np.broadcast_arrays(found, other)
            pairs = zip(left.ravel(), right.ravel(), strict=True)
            found = _array([_combine(op, a, b, neutral) for a, b in pairs], left.shape)
        return [found]

    return rule


def _equal(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    """Exporters compare sizes with -1: an unknown size is not that."""
    (found,) = _pairwise(eq)(node, inputs)
    left, right = np.broadcast_arrays(*inputs)
    for place, (a, b) in enumerate(zip(left.ravel(), right.ravel(), strict=True)):
        given = a.value if b.value is None else b.value
        if (a.symbol or b.symbol) and given is not None and given < 0:
            found.ravel()[place] = Size(0)
    return [found]


def _list(node: Node, inputs: list[Sizes], index: int, attribute: str) -> list[int] | None:
    if attribute in node.attrs:
        return [int(v) for v in node.attrs[attribute]]
    return _ints(inputs[index]) if index < len(inputs) else None


def _cast(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    if node.op == "Cast" and node.attrs["to"] not in INTEGERS:
        raise _Unknown
    return [inputs[0]]


def _gather(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    places = np.asarray(_ints(inputs[1]), np.int64).reshape(inputs[1].shape)
    return [np.asarray(np.take(inputs[0], places, axis=int(node.attrs.get("axis", 0))), object)]


def _slice(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    starts, ends = _list(node, inputs, 1, "starts") or [], _list(node, inputs, 2, "ends") or []
    axes = _list(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = _list(node, inputs, 4, "steps") or [1] * len(starts)
    found = inputs[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = found.shape[axis]
        places = range(length)[slice(start, None if step < 0 and end < -length else end, step)]
        found = np.take(found, np.asarray(places, np.int64), axis=axis)
    return [found]


def _concat(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    return [np.concatenate(inputs, axis=int(node.attrs["axis"]))]


def _unsqueeze(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    return [np.expand_dims(inputs[0], tuple(_list(node, inputs, 1, "axes") or ()))]


def _squeeze(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    axes = _list(node, inputs, 1, "axes")
    return [np.asarray(np.squeeze(inputs[0], None if axes is None else tuple(axes)), object)]


def _reshape(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    return [inputs[0].reshape(_list(node, inputs, 1, "shape") or ())]


def _transpose(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    return [np.transpose(inputs[0], node.attrs.get("perm"))]


def _constant_of_shape(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    value = node.attrs.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
    shape = tuple(_ints(inputs[0]))
    if fill.dtype.kind not in "ib" or np.prod(shape) > MOST:
        raise _Unknown
    return [_array([Size(int(fill.ravel()[0]))] * int(np.prod(shape)), shape)]


def _expand(node: Node, inputs: list[Sizes]) -> list[Sizes]:  # noqa: ARG001
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_ints(inputs[1])))
    if np.prod(shape) > MOST:
        raise _Unknown
    return [np.broadcast_to(inputs[0], shape)]


def _where(node: Node, inputs: list[Sizes]) -> list[Sizes]:  # noqa: ARG001
    choice = np.asarray(_ints(inputs[0]), np.bool_).reshape(inputs[0].shape)
    return [np.where(choice, inputs[1], inputs[2])]


def _range(node: Node, inputs: list[Sizes]) -> list[Sizes]:  # noqa: ARG001
    (start,), (limit,), (step,) = (_ints(i) for i in inputs)
    values = range(start, limit, step)
    if len(values) > MOST:
        raise _Unknown
    return [_array([Size(v) for v in values], (len(values),))]


def _product(node: Node, inputs: list[Sizes]) -> list[Sizes]:
    if inputs[0].ndim != 1:
        raise _Unknown
    total = Size(1)
    for size in inputs[0]:
        total = _combine(mul, total, size, 1)
    return [_array([total], (1,) if node.attrs.get("keepdims", 1) else ())]


_Rule = Callable[[Node, list[Sizes]], list[Sizes]]
_RULES: dict[str, _Rule] = {
    "Add": _pairwise(add, 0),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _pairwise(_quotient, 1),
    "Equal": _equal,
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _pairwise(gt),
    "GreaterOrEqual": _pairwise(ge),
    "Identity": _cast,
    "Less": _pairwise(lt),
    "LessOrEqual": _pairwise(le),
    "Max": _pairwise(max),
    "Min": _pairwise(min),
    "Mod": _pairwise(mod),
    "Mul": _pairwise(mul, 1),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _pairwise(sub, 0),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
_DECIDING: dict[str, Sequence[int]] = {"ConstantOfShape": (0,), "Range": (0, 1, 2), "Where": (0,)}
_PICKING = frozenset({*_DECIDING, "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
