"""The float graph that a graph of Q/DQ pairs stands for: pairs taken out, integer weights as floats."""

import numpy as np

from onnxopt.graph import Array, Graph, Node

PAIR = ("QuantizeLinear", "DequantizeLinear")


def without_pairs(graph: Graph) -> Graph:
    """Copy of a graph without Q and DQ, as far as they can be taken out; names of nodes and tensors stay.

    What stays: pairs whose parameters are computed, integers that come from elsewhere than a Q, and pairs between a
    graph input and a graph output.
    """
    copy = graph.copy()
    fold_weights(copy)
    for node in [n for n in copy.nodes if n.op == "DequantizeLinear"]:
        quantize = copy.producer(node.inputs[0])
        if quantize is not None and quantize.op == "QuantizeLinear":
            copy.bypass(node, quantize.inputs[0])
    unread = [n for n in copy.nodes if n.op == "QuantizeLinear" and not n.outputs[0].outputs]
    copy.remove(*(n for n in unread if not copy.is_output(n.outputs[0])))
    return copy


def fold_weights(graph: Graph) -> None:
    """Put float values in the place of each integer constant and its DequantizeLinear."""
    for node in [n for n in graph.nodes if n.op == "DequantizeLinear"]:
        codes = graph.constant(node.inputs[0])
        values = dequantized(graph, node, codes) if codes is not None else None
        if values is not None and not graph.is_output(node.outputs[0]):
            graph.replace_uses(node.outputs[0], graph.add_constant(node.outputs[0].name, values))
            graph.remove(node)


def dequantized(graph: Graph, node: Node, codes: Array) -> Array | None:
    """Values of a constant behind a DequantizeLinear, of the type of its scale.

    Returns:
        None where the parameters are computed, or are neither one for all nor per axis nor per block.
    """
    axis, block = node.attrs.get("axis", 1), node.attrs.get("block_size", 0)
    scale = graph.constant(node.inputs[1])
    named = len(node.inputs) > 2 and bool(node.inputs[2].name)
    zero = graph.constant(node.inputs[2]) if named else None
    if scale is None or (named and zero is None) or not _fits(codes, scale, axis, block):
        return None
    steps = codes.astype(np.float32)
    if zero is not None:
        steps = steps - _along(zero, codes.shape, axis, block).astype(np.float32)
    return np.asarray(steps * _along(scale, codes.shape, axis, block).astype(np.float32), scale.dtype)


def _fits(codes: Array, scale: Array, axis: int, block: int) -> bool:
    if scale.size == 1:
        return True
    if not -codes.ndim <= axis < codes.ndim:
        return False
    if block:
        return scale.ndim == codes.ndim and scale.shape[axis] * block >= codes.shape[axis]
    return scale.ndim == 1 and codes.shape[axis] == scale.size


def _along(values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Parameters in a form that broadcasts to the codes."""
    if values.size == 1:
        return values.reshape(())
    if block:
        return np.take(np.repeat(values, block, axis=axis), range(shape[axis]), axis=axis)
    return values.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
