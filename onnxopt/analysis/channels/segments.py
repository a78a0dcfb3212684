"""Rules of operators that put axes together and take them apart: Concat, Split, Slice, Gather."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.analysis.channels.weights import own_integers
from onnxopt.graph import Array, Graph, Node


def concat(node: Node, trace: Trace) -> None:
    """Concat: segments side by side on its axis; the inputs agree on all others."""
    if not any(trace.tracked(t) for t in node.inputs):
        return
    rank = trace.rank(node.inputs[0])
    along = int(node.attrs["axis"]) % rank
    for axis in range(rank):
        if not any(axis in trace.tracked(t) for t in node.inputs):
            continue
        if axis == along:
            parts = [trace.axis(t, axis) for t in node.inputs]
            trace.put(node.outputs[0], axis, np.concatenate(parts))
        else:
            trace.put(node.outputs[0], axis, _agree(node, trace, axis))


def _agree(node: Node, trace: Trace, axis: int) -> IntArray:
    """Tie an axis of all inputs; constants are cut along it."""
    lead = next(atoms for t in node.inputs if (atoms := trace.tracked(t).get(axis)) is not None)
    for index, tensor in enumerate(node.inputs):
        if trace.constant(tensor) is None:
            trace.atoms.tie(lead, trace.axis(tensor, axis, len(lead)))
        elif trace.size(tensor, axis) == len(lead):
            trace.site("constant", index, axis, lead)
        else:
            raise Refuse(f"joins {len(lead)} channels with a constant")
    return lead


def split(node: Node, trace: Trace) -> None:
    """Split: the axis is cut into consecutive parts of constant sizes."""
    source = node.inputs[0]
    if not trace.tracked(source):
        return
    along = int(node.attrs.get("axis", 0)) % trace.rank(source)
    for axis, atoms in trace.tracked(source).items():
        if axis != along:
            for output in node.outputs:
                trace.put(output, axis, atoms)
    if along not in trace.tracked(source):
        return
    atoms = trace.tracked(source)[along]
    sizes = trace.ints(node, 1, "split") or _equal_parts(len(atoms), len(node.outputs))
    if sum(sizes) != len(atoms) or len(sizes) != len(node.outputs):
        raise Refuse(f"splits {len(atoms)} channels into {sizes}")
    parts = np.split(atoms, np.cumsum(sizes)[:-1])
    for output, part in zip(node.outputs, parts, strict=True):
        trace.put(output, along, part)
    trace.edit(atoms, partial(_set_parts, parts=parts))


def _equal_parts(length: int, count: int) -> list[int]:
    """Sizes that Split takes where none are given: equal, the last one smaller where they do not divide."""
    size = -(-length // count)
    return [max(0, min(size, length - i * size)) for i in range(count)]


def _set_parts(graph: Graph, node: Node, kept: Kept, *, parts: Sequence[IntArray]) -> None:
    sizes = [kept.count(part) for part in parts]
    node.attrs.pop("num_outputs", None)
    if graph.opset < 13:
        node.attrs["split"] = sizes
        return
    values = graph.add_constant(f"{node.name or 'split'}_sizes", np.asarray(sizes, np.int64))
    if len(node.inputs) > 1:
        node.inputs[1] = values
    else:
        node.inputs.append(values)


def slice_(node: Node, trace: Trace) -> None:
    """Slice with constant bounds; on the channel axis only with step 1."""
    source = node.inputs[0]
    if not trace.tracked(source):
        return
    rank = trace.rank(source)
    axes = trace.ints(node, 3, "axes")
    if axes is None:
        axes = list(range(rank))
    axes = [a % rank for a in axes]
    for axis, atoms in trace.tracked(source).items():
        if axis not in axes:
            trace.put(node.outputs[0], axis, atoms)
            continue
        slot = axes.index(axis)
        starts, ends = trace.ints(node, 1, "starts"), trace.ints(node, 2, "ends")
        steps = trace.ints(node, 4) or [1] * len(axes)
        if starts is None or ends is None or steps[slot] != 1:
            raise Refuse("takes every other channel")
        low, high, _ = slice(starts[slot], ends[slot]).indices(len(atoms))
        if high <= low:
            raise Refuse("takes no channels")
        trace.put(node.outputs[0], axis, atoms[low:high])
        bounds = (starts, ends)
        trace.edit(atoms, partial(_set_bounds, bounds=bounds, slot=slot, before=atoms[:low], inside=atoms[low:high]))


def _set_bounds(
    graph: Graph,
    node: Node,
    kept: Kept,
    *,
    bounds: tuple[list[int], list[int]],
    slot: int,
    before: IntArray,
    inside: IntArray,
) -> None:
    start = kept.count(before)
    for index, name, value in ((1, "starts", start), (2, "ends", start + kept.count(inside))):
        if name in node.attrs:
            node.attrs[name] = [*node.attrs[name][:slot], value, *node.attrs[name][slot + 1 :]]
            continue
        own = own_integers(graph, node, index, bounds[index - 1])
        values = own.values.copy()
        values[slot] = value
        own.values = values


def gather(node: Node, trace: Trace) -> None:
    """Gather with constant indices from an axis of channels, or with any indices from another axis."""
    source = node.inputs[0]
    if trace.tracked(node.inputs[1]):
        raise Refuse("looks channels up in a table")
    if not trace.tracked(source):
        return
    along = int(node.attrs.get("axis", 0)) % trace.rank(source)
    grown = trace.rank(node.inputs[1]) - 1
    for axis, atoms in trace.tracked(source).items():
        if axis != along:
            trace.put(node.outputs[0], axis if axis < along else axis + grown, atoms)
            continue
        indices = _indices(node, trace)
        if indices.ndim > 1:
            raise Refuse("picks channels into several axes")
        if indices.ndim == 0:
            trace.hold(node, atoms[indices].reshape(1), "picks this channel")
        else:
            trace.put(node.outputs[0], along, atoms[indices])
        trace.edit(atoms, partial(_set_indices, atoms=atoms, before=indices))


def _indices(node: Node, trace: Trace) -> Array:
    known = trace.sizes(node.inputs[1])
    found = None if known is None else trace.ints(node, 1)
    return trace.weight(node, 1) if known is None else np.asarray(found, np.int64).reshape(known.shape)


def _set_indices(graph: Graph, node: Node, kept: Kept, *, atoms: IntArray, before: Array) -> None:
    stays = kept.where(atoms)
    places = np.cumsum(stays) - 1
    indices = before if before.ndim == 0 else before[stays[before]]
    node.inputs[1] = graph.add_constant(node.inputs[1].name, np.asarray(places[indices], np.int64))
