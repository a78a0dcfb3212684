"""Rules of operators that move, resize or summarise positions and leave channels apart."""

from functools import partial

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.analysis.channels.weights import own_integers
from onnxopt.graph import Graph, Node


def pool(node: Node, trace: Trace) -> None:
    """Pools work within a channel: axes 0 and 1 pass."""
    source = node.inputs[0]
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise Refuse("returns indices that count channels")
    trace.hold_others(node, source, 0, 1)
    trace.put_all(node.outputs[0], {a: x for a, x in trace.tracked(source).items() if a <= 1})


def grid_sample(node: Node, trace: Trace) -> None:
    """GridSample: the grid moves positions, the same ones for every channel."""
    source, grid = node.inputs
    trace.hold_others(node, source, 1)
    trace.hold_others(node, grid)
    if 1 in trace.tracked(source):
        trace.put(node.outputs[0], 1, trace.tracked(source)[1])


def transpose(node: Node, trace: Trace) -> None:
    """Transpose: axes move."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    order = node.attrs.get("perm") or list(range(trace.rank(node.inputs[0])))[::-1]
    trace.put_all(node.outputs[0], {place: tracked[a] for place, a in enumerate(order) if a in tracked})


def resize(node: Node, trace: Trace) -> None:
    """Resize and Upsample that leave the number of channels as it is."""
    source = node.inputs[0]
    tracked = trace.tracked(source)
    if not tracked:
        return
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Refuse("crops and resizes in one")
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refuse("derives sizes from one another")
    rank = trace.rank(source)
    axes = [a % rank for a in node.attrs.get("axes") or range(rank)]
    sizes = trace.ints(node, 3)
    scales = None if sizes else _scales(node, trace)
    for slot, axis in enumerate(axes):
        if axis not in tracked:
            continue
        if sizes is not None and sizes[slot] == len(tracked[axis]):
            trace.edit(tracked[axis], partial(_set_size, sizes=sizes, slot=slot, atoms=tracked[axis]))
        elif scales is None or scales[slot] != 1:
            raise Refuse("resizes the channel axis")
    trace.put_all(node.outputs[0], tracked)


def _scales(node: Node, trace: Trace) -> list[float]:
    if "scales" in node.attrs:
        return list(node.attrs["scales"])
    return [float(v) for v in trace.weight(node, 2 if len(node.inputs) > 2 else 1).ravel()]


def _set_size(graph: Graph, node: Node, kept: Kept, *, sizes: list[int], slot: int, atoms: IntArray) -> None:
    own = own_integers(graph, node, 3, sizes)
    values = own.values.copy()
    values[slot] = kept.count(atoms)
    own.values = values


def pad(node: Node, trace: Trace) -> None:
    """Pad that adds nothing along the channels."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    rank = trace.rank(node.inputs[0])
    pads = trace.ints(node, 1, "pads" if "pads" in node.attrs else "paddings")
    axes = [a % rank for a in trace.ints(node, 3) or range(rank)]
    if pads is None or any(a in tracked and (pads[i] or pads[i + len(axes)]) for i, a in enumerate(axes)):
        raise Refuse("pads the channel axis")
    trace.put_all(node.outputs[0], tracked)


def squeeze(node: Node, trace: Trace) -> None:
    """Squeeze of axes that are given."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    axes = trace.ints(node, 1, "axes")
    if axes is None:
        raise Refuse("drops whichever axes have length 1")
    rank = trace.rank(node.inputs[0])
    gone = {a % rank for a in axes}
    for axis, atoms in tracked.items():
        if axis in gone:
            trace.hold(node, atoms, "drops the axis of a single channel")
        else:
            trace.put(node.outputs[0], axis - sum(a < axis for a in gone), atoms)


def unsqueeze(node: Node, trace: Trace) -> None:
    """Unsqueeze: other axes move to the right."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    axes = trace.ints(node, 1, "axes") or []
    rank = trace.rank(node.inputs[0]) + len(axes)
    new = {a % rank for a in axes}
    old = [a for a in range(rank) if a not in new]
    trace.put_all(node.outputs[0], {old[a]: atoms for a, atoms in tracked.items()})
