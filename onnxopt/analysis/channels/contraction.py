"""Rule of MatMul.

With a constant matrix it ends one set of channels and begins another. With two activations it relates their axes: what
is summed over is one set of channels in both, leading axes are joined, the others pass.
"""

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.elementwise import join
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.graph import Node


def matmul(node: Node, trace: Trace) -> None:
    """MatMul of any two tensors with at least two axes each."""
    sides = [i for i in (1, 0) if trace.constant(node.inputs[i]) is not None]
    if sides and trace.weight(node, sides[0]).ndim == 2:
        _constant(node, trace, sides[0])
    else:
        _activations(node, trace)


def _constant(node: Node, trace: Trace, side: int) -> None:
    weight = trace.weight(node, side)
    rank = trace.rank(node.inputs[1 - side])
    if rank < 2:
        raise Refuse("multiplies a vector")
    across, along = (0, rank - 1) if side == 1 else (1, rank - 2)
    contract(node, trace, (rank, along), (side, across), (weight.shape[across], weight.shape[1 - across]))
    passing = {axis: atoms for axis, atoms in trace.tracked(node.inputs[1 - side]).items() if axis != along}
    trace.put_all(node.outputs[0], passing)


def contract(
    node: Node, trace: Trace, data: tuple[int, int], weight: tuple[int, int], sizes: tuple[int, int]
) -> IntArray:
    """Contract an axis of an activation with one of a constant matrix; returns the new channels.

    Args:
        node: Gemm or MatMul.
        trace: What is known.
        data: The activation's rank, and its axis.
        weight: Which input is the constant, and its axis.
        sizes: Length of the constant's axis, and of its other one.
    """
    (rank, along), (index, across) = data, weight
    source = trace.axis(node.inputs[1 - index], along, sizes[0])
    result = trace.atoms.fresh(sizes[1])
    trace.site("out", index, 1 - across, result)
    trace.site("in", index, across, source)
    trace.sum(1 - index, along, rank, source)
    trace.put(node.outputs[0], along, result)
    return result


def _activations(node: Node, trace: Trace) -> None:
    left, right = node.inputs
    if not trace.tracked(left) and not trace.tracked(right):
        return
    ranks = trace.rank(left), trace.rank(right)
    if min(ranks) < 2:
        raise Refuse("multiplies a vector")
    rank = max(ranks)
    last, first = ranks[0] - 1, ranks[1] - 2
    if last in trace.tracked(left) or first in trace.tracked(right):
        _sum(node, trace, (last, first), ranks[0])
    for axis in range(rank - 2):
        here = [(i, node.inputs[i], axis - (rank - ranks[i])) for i in (0, 1) if axis >= rank - ranks[i]]
        found = join(node, trace, here)
        if found is not None:
            trace.put(node.outputs[0], axis, found)
    for tensor, old, new in ((left, ranks[0] - 2, rank - 2), (right, ranks[1] - 1, rank - 1)):
        if old in trace.tracked(tensor):
            trace.put(node.outputs[0], new, trace.tracked(tensor)[old])


def _sum(node: Node, trace: Trace, axes: tuple[int, int], rank: int) -> None:
    """Tie what is summed over; a constant stack of matrices is cut with it."""
    size = next(n for t, a in zip(node.inputs, axes, strict=True) if (n := trace.size(t, a)) is not None)
    atoms = []
    for index, (tensor, axis) in enumerate(zip(node.inputs, axes, strict=True)):
        if trace.constant(tensor) is None:
            atoms.append(trace.axis(tensor, axis, size))
        elif trace.size(tensor, axis) == size:
            atoms.append(made := trace.atoms.fresh(size))
            trace.site("in", index, axis, made)
        else:
            raise Refuse("multiplies by a constant of another size")
    trace.atoms.tie(*atoms)
    activation = 0 if trace.constant(node.inputs[0]) is None else 1
    trace.sum(activation, axes[activation], rank if activation == 0 else trace.rank(node.inputs[1]), atoms[0])
