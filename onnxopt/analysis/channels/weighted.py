"""Rules of operators with weights: they end one set of channels and begin another.

A grouped convolution binds its channels into blocks. With at least as many groups as channels per group, a whole
group goes or stays (a depthwise convolution is the case of one channel per group); otherwise every group loses the
same positions, and the number of groups stays. The choice is the one that leaves more freedom.
"""

from functools import partial

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.contraction import contract
from onnxopt.analysis.channels.trace import Refuse, Role, Trace
from onnxopt.graph import Graph, Node


def conv(node: Node, trace: Trace) -> None:
    """Conv: weight [out, in / group, ...]."""
    weight = trace.weight(node, 1)
    groups = int(node.attrs.get("group", 1))
    source = trace.axis(node.inputs[0], 1, weight.shape[1] * groups)
    result = trace.atoms.fresh(weight.shape[0])
    _convolve(node, trace, (source, result), groups, weight.ndim, transposed=False)


def conv_transpose(node: Node, trace: Trace) -> None:
    """ConvTranspose: weight [in, out / group, ...]."""
    weight = trace.weight(node, 1)
    groups = int(node.attrs.get("group", 1))
    source = trace.axis(node.inputs[0], 1, weight.shape[0])
    result = trace.atoms.fresh(weight.shape[1] * groups)
    _convolve(node, trace, (source, result), groups, weight.ndim, transposed=True)


def _convolve(
    node: Node, trace: Trace, ends: tuple[IntArray, IntArray], groups: int, rank: int, *, transposed: bool
) -> None:
    source, result = ends
    trace.hold_others(node, node.inputs[0], 1)
    blocks_in, blocks_out = source.reshape(groups, -1), result.reshape(groups, -1)
    if groups > 1 and groups >= blocks_in.shape[1]:
        trace.atoms.tie(blocks_in, blocks_in[:, :1])
        trace.atoms.tie(blocks_out, blocks_in[:, :1])
        trace.site("through", 1, 0, source if transposed else result)
        trace.edit(source, partial(_set_groups, blocks=blocks_in[:, 0]))
    else:
        trace.atoms.tie(blocks_in, blocks_in[:1])
        trace.atoms.tie(blocks_out, blocks_out[:1])
        rows, columns = (source, blocks_out[0]) if transposed else (result, blocks_in[0])
        roles: tuple[Role, Role] = ("in", "out") if transposed else ("out", "in")
        trace.site(roles[0], 1, 0, rows)
        trace.site(roles[1], 1, 1, columns)
        trace.sum(0, 1, rank, source)
    _bias(node, trace, 2, result)
    trace.put(node.outputs[0], 1, result)


def _set_groups(graph: Graph, node: Node, kept: Kept, *, blocks: IntArray) -> None:  # noqa: ARG001
    node.attrs["group"] = kept.count(blocks)


def _bias(node: Node, trace: Trace, index: int, result: IntArray) -> None:
    """A constant that is added along the last of its axes."""
    if index >= len(node.inputs) or not node.inputs[index].name:
        return
    bias = trace.weight(node, index)
    if bias.ndim and bias.shape[-1] == len(result):
        trace.site("constant", index, bias.ndim - 1, result)


def gemm(node: Node, trace: Trace) -> None:
    """Gemm: x [rows, in] times a constant matrix."""
    if node.attrs.get("transA"):
        raise Refuse("multiplies a transposed activation")
    weight = trace.weight(node, 1)
    across = 1 if node.attrs.get("transB") else 0
    result = contract(node, trace, (2, 1), (1, across), (weight.shape[across], weight.shape[1 - across]))
    trace.hold_others(node, node.inputs[0], 1)
    _bias(node, trace, 2, result)


def batch_normalization(node: Node, trace: Trace) -> None:
    """BatchNormalization: four constants per channel; all axes pass."""
    if node.attrs.get("training_mode") or any(t.outputs for t in node.outputs[1:]):
        raise Refuse("computes statistics of the batch")
    _per_channel(node, trace, (1, 2, 3, 4))


def _per_channel(node: Node, trace: Trace, indices: tuple[int, ...]) -> None:
    channels = trace.axis(node.inputs[0], 1, trace.weight(node, indices[0]).shape[0])
    for index in indices:
        trace.weight(node, index)
        trace.site("through" if index == 1 else "constant", index, 0, channels)
    trace.put_all(node.outputs[0], trace.tracked(node.inputs[0]))
