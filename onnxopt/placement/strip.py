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
    """Values of a constant behind a DequantizeLinear, float32; None where its parameters are not per tensor or axis."""
    axis = node.attrs.get("axis", 1)
    scale = graph.constant(node.inputs[1])
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if scale is None or not _fits(codes, scale, axis):
        return None
    steps = codes.astype(np.float32)
    if zero is not None:
        steps = steps - _along(zero, codes.ndim, axis).astype(np.float32)
    values: Array = (steps * _along(scale, codes.ndim, axis)).astype(np.float32)
    return values


def _fits(codes: Array, scale: Array, axis: int) -> bool:
    if scale.size == 1:
        return True
    return scale.ndim == 1 and -codes.ndim <= axis < codes.ndim and codes.shape[axis] == scale.size


def _along(values: Array, rank: int, axis: int) -> Array:
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)
