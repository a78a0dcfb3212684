"""Rules of operators that count channels in blocks: GroupNormalization, DepthToSpace, SpaceToDepth, Tile, Expand."""

from functools import partial

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.sizes import sources
from onnxopt.analysis.channels.trace import Refuse, Trace
from onnxopt.analysis.channels.weights import write_integers
from onnxopt.graph import Graph, Node


def group_normalization(node: Node, trace: Trace) -> None:
    """GroupNormalization (from opset 21 on): the channels of a group share statistics, so whole groups go."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    groups = int(node.attrs["num_groups"])
    channels = trace.axis(node.inputs[0], 1)
    trace.hold_others(node, node.inputs[0], 0, 1)
    blocks = channels.reshape(groups, -1)
    trace.atoms.tie(blocks, blocks[:, :1])
    for index in (1, 2):
        if trace.weight(node, index).shape[0] != len(channels):
            raise Refuse("has constants per group, as before opset 21")
        trace.site("through" if index == 1 else "constant", index, 0, channels)
    trace.edit(channels, partial(_set_groups, blocks=blocks[:, 0]))
    trace.put_all(node.outputs[0], tracked)


def _set_groups(graph: Graph, node: Node, kept: Kept, *, blocks: IntArray) -> None:  # noqa: ARG001
    node.attrs["num_groups"] = kept.count(blocks)


def depth_to_space(node: Node, trace: Trace) -> None:
    """DepthToSpace: channels [b*b*c] (DCR) or [c*b*b] (CRD) become c; all that make one pixel block go together."""
    tracked = trace.tracked(node.inputs[0])
    if 1 not in tracked:
        trace.hold_others(node, node.inputs[0], 0)
        return
    trace.hold_others(node, node.inputs[0], 0, 1)
    side = int(node.attrs["blocksize"]) ** 2
    crd = node.attrs.get("mode", "DCR") == "CRD"
    blocks = tracked[1].reshape(-1, side) if crd else tracked[1].reshape(side, -1).T
    trace.atoms.tie(blocks, blocks[:, :1])
    trace.put_all(node.outputs[0], {**tracked, 1: np.ascontiguousarray(blocks[:, 0])})


def space_to_depth(node: Node, trace: Trace) -> None:
    """SpaceToDepth: each channel becomes b*b of them, [b*b*c]."""
    tracked = trace.tracked(node.inputs[0])
    trace.hold_others(node, node.inputs[0], 0, 1)
    for axis, atoms in tracked.items():
        if axis <= 1:
            trace.put(node.outputs[0], axis, np.tile(atoms, int(node.attrs["blocksize"]) ** 2) if axis else atoms)


def tile(node: Node, trace: Trace) -> None:
    """Tile: the axis again and again."""
    repeats = trace.ints(node, 1) if trace.tracked(node.inputs[0]) else None
    for axis, atoms in trace.tracked(node.inputs[0]).items():
        if repeats is None or repeats[axis] < 1:
            raise Refuse("repeats channels an unknown number of times")
        trace.put(node.outputs[0], axis, np.tile(atoms, repeats[axis]))


def expand(node: Node, trace: Trace) -> None:
    """Expand: axes of channels pass; the target's 1 leaves a length as it is."""
    tracked = trace.tracked(node.inputs[0])
    if not tracked:
        return
    target = trace.target(node, 1)
    if target is None or any(s.value is None and s.atoms for s in target):
        raise Refuse("has a target that cannot be read")
    rank = trace.rank(node.inputs[0])
    values = [s.value for s in target]
    for axis, atoms in tracked.items():
        slot = axis - rank + len(values)
        if slot >= 0 and values[slot] not in {1, len(atoms)}:
            trace.hold(node, atoms, "stretches a single channel")
            continue
        trace.put(node.outputs[0], axis + max(0, len(values) - rank), atoms)
        if slot >= 0:
            values[slot] = 1
    watched = [*tracked.values(), *sources(target)]
    trace.edit(np.concatenate(watched), partial(_set_target, values=values))


def _set_target(graph: Graph, node: Node, kept: Kept, *, values: list[int | None]) -> None:  # noqa: ARG001
    write_integers(graph, node, 1, values)
