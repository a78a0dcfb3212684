"""Rules of operators that summarise or normalise along axes.

Channels pass where the axis is another one. Along the channels themselves the result depends on which are there, so
the operator is a barrier, unless `Policy.normalized_width` allows that means, maxima and variances become those of
the channels that stay: then the axis is related like any other, and a reference takes the same statistics.
"""

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.graph import Node

STATISTICS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin"})
SUMS = frozenset({"ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2"})


def reduce(node: Node, trace: Trace) -> None:
    """Reductions over positions; over channels only sums, means and extremes, where the policy allows it."""
    source = node.inputs[0]
    tracked = trace.tracked(source)
    if not tracked:
        return
    rank = trace.rank(source)
    axes = tuple(sorted(a % rank for a in trace.ints(node, 1, "axes") or _arg_axis(node)))
    across = [a for a in tracked if a in axes]
    if not axes or across:
        _statistic(node, trace, axes, rank, across, "reduces over the channels")
    keep = bool(node.attrs.get("keepdims", 1))
    for axis, atoms in tracked.items():
        if axis not in axes:
            trace.put(node.outputs[0], axis if keep else axis - sum(a < axis for a in axes), atoms)


def _arg_axis(node: Node) -> list[int]:
    return [int(node.attrs.get("axis", 0))] if node.op in {"ArgMax", "ArgMin"} else []


def _statistic(
    node: Node, trace: Trace, axes: tuple[int, ...], rank: int, across: list[int], otherwise: str
) -> IntArray:
    """Let statistics be taken over the channels that stay.

    Raises:
        Refuse: The policy forbids it, or two axes of channels are summarised at once.
    """
    known = node.op in STATISTICS or node.op.endswith("Normalization")
    if not trace.policy.normalized_width or not (known or node.op in SUMS) or len(across) != 1:
        raise Refuse(otherwise)
    atoms = trace.tracked(node.inputs[0])[across[0]]
    if node.op in SUMS:
        trace.sum(0, across[0], rank, atoms)
    else:
        trace.statistic(across[0], axes, rank, atoms)
    return atoms


def layer_normalization(node: Node, trace: Trace) -> None:
    """LayerNormalization and RMSNormalization: statistics over the axes from `axis` on, scale and shift along them."""
    source = node.inputs[0]
    tracked = trace.tracked(source)
    if not tracked:
        return
    if any(t.outputs for t in node.outputs[1:]):
        raise Refuse("returns its statistics")
    rank = trace.rank(source)
    first = int(node.attrs.get("axis", -1)) % rank
    across = [a for a in tracked if a >= first]
    if across:
        atoms = _statistic(node, trace, tuple(range(first, rank)), rank, across, "normalises over the channels")
        for index in range(1, len(node.inputs)):
            _along(node, trace, index, across[0] - rank, atoms)
    trace.put_all(node.outputs[0], tracked)


def _along(node: Node, trace: Trace, index: int, axis: int, atoms: IntArray) -> None:
    """A constant that is broadcast against the channels; `axis` counts from the end."""
    if not node.inputs[index].name:
        return
    value = trace.weight(node, index)
    if -axis <= value.ndim and value.shape[axis] == len(atoms) != 1:
        trace.site("through" if index == 1 else "constant", index, value.ndim + axis, atoms)


def instance_normalization(node: Node, trace: Trace) -> None:
    """InstanceNormalization: statistics per channel of axis 1, over all further axes."""
    source = node.inputs[0]
    tracked = trace.tracked(source)
    if not tracked:
        return
    rank = trace.rank(source)
    if 0 in tracked:
        trace.put(node.outputs[0], 0, tracked[0])
    across = [a for a in tracked if a > 1]
    if across:
        atoms = _statistic(node, trace, tuple(range(2, rank)), rank, across, "normalises over the channels")
        trace.put(node.outputs[0], across[0], atoms)
    if 1 in tracked:
        for index in (1, 2):
            if trace.weight(node, index).shape[0] != len(tracked[1]):
                raise Refuse("has constants of another size")
            trace.site("through" if index == 1 else "constant", index, 0, tracked[1])
        trace.put(node.outputs[0], 1, tracked[1])


def softmax(node: Node, trace: Trace) -> None:
    """Softmax over another axis than the channels. Before opset 13 all axes from `axis` on are normalised."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    rank = trace.rank(node.inputs[0])
    modern = trace.graph.opset >= 13
    axis = int(node.attrs.get("axis", -1 if modern else 1)) % rank
    if axis in tracked or (not modern and any(a > axis for a in tracked)):
        raise Refuse("normalises over the channels")
    trace.put_all(node.outputs[0], tracked)
