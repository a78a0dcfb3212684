"""Rules of element-wise operators: every channel on its own, broadcasting minded.

Axes are aligned from the right. Two activations are tied on an axis where both really have it; an axis of length 1
that is stretched is fixed; a constant is cut where its aligned axis has the channels' length.
"""

from collections.abc import Sequence

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.graph import Node, Tensor


def unary(node: Node, trace: Trace) -> None:
    """All axes of the first input pass to every output."""
    for output in node.outputs:
        trace.put_all(output, trace.tracked(node.inputs[0]))


def quantize(node: Node, trace: Trace) -> None:
    """QuantizeLinear and DequantizeLinear of an activation with one scale."""
    if trace.tracked(node.inputs[0]) and trace.weight(node, 1).size != 1:
        raise Refuse("has a scale per channel")
    unary(node, trace)


def broadcast(node: Node, trace: Trace) -> None:
    """Any number of inputs, numpy broadcasting."""
    inputs = [(i, t) for i, t in enumerate(node.inputs) if t.name]
    if not any(trace.tracked(t) for _, t in inputs):
        return
    ranks = {i: trace.rank(t) for i, t in inputs}
    rank = max(ranks.values())
    for axis in range(rank):
        here = [(i, t, axis - (rank - ranks[i])) for i, t in inputs if axis >= rank - ranks[i]]
        found = join(node, trace, here)
        if found is not None:
            trace.put(node.outputs[0], axis, found)


def join(node: Node, trace: Trace, here: Sequence[tuple[int, Tensor, int]]) -> IntArray | None:
    """Atoms of one output axis from the inputs that have it: (index, tensor, its axis) each."""
    known = [atoms for _, t, a in here if (atoms := trace.tracked(t).get(a)) is not None]
    if not known:
        return None
    lead = next((atoms for atoms in known if len(atoms) != 1), known[0])
    untracked = [(i, t, a) for i, t, a in here if trace.tracked(t).get(a) is None]
    sizes = [trace.size(t, a) for _, t, a in untracked]
    if len(lead) == 1 and any(size != 1 for size in sizes):
        for atoms in known:
            trace.hold(node, atoms, "stretches a single channel")
        return None
    for atoms in known:
        if len(atoms) == len(lead):
            trace.atoms.tie(lead, atoms)
        elif len(atoms) == 1:
            trace.hold(node, atoms, "stretches a single channel")
        else:
            raise Refuse(f"joins {len(lead)} channels with {len(atoms)}")
    for (index, tensor, axis), size in zip(untracked, sizes, strict=True):
        _meet(node, trace, lead, (index, tensor, axis), size)
    return lead


def _meet(node: Node, trace: Trace, lead: IntArray, other: tuple[int, Tensor, int], size: int | None) -> None:
    """A tracked axis meets one that is not tracked: a constant, or an activation that never changes."""
    index, tensor, axis = other
    if size == 1 and len(lead) != 1:
        return
    if size is None:
        trace.hold(node, lead, f"joins them with '{tensor.name}' of unknown size")
    elif size != len(lead):
        raise Refuse(f"joins {len(lead)} channels with {size}")
    elif trace.constant(tensor) is not None:
        trace.site("constant", index, axis, lead)
    else:
        trace.atoms.tie(lead, trace.axis(tensor, axis))
