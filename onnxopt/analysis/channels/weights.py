"""Constants as operators read them: plain, or behind Identity, Cast, Transpose and DequantizeLinear.

A cut follows the way back to the stored values, so a quantized weight loses codes, scales and zero points together.
What other nodes read as well is copied first.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from onnxopt.analysis.channels.atoms import BoolArray
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, is_standard
from onnxopt.placement.strip import dequantized

Keep = Mapping[int, BoolArray]  # axis to one bool per index: which stay


def weight_value(graph: Graph, tensor: Tensor) -> Array | None:
    """Value of a constant as it is read; None where it depends on the model's input or its axes are not kept apart."""
    value = graph.constant(tensor)
    node = graph.producer(tensor)
    if value is not None or node is None or not is_standard(node) or node.op not in _THROUGH:
        return value
    source = weight_value(graph, node.inputs[0])
    if source is None:
        return None
    if node.op == "Transpose":
        return np.transpose(source, node.attrs.get("perm"))
    if node.op == "DequantizeLinear":
        return None if node.attrs.get("block_size") else dequantized(graph, node, source)
    return source


_THROUGH = frozenset({"Cast", "DequantizeLinear", "Identity", "Transpose"})


def stored(graph: Graph, tensor: Tensor) -> Tensor:
    """The tensor that holds the values that `tensor` shows: two tensors with the same are one weight, shared."""
    node = graph.producer(tensor)
    return stored(graph, node.inputs[0]) if node is not None and node.op in _THROUGH else tensor


def cut_weight(graph: Graph, node: Node, index: int, keep: Keep) -> None:
    """Take indices out of the constant that a node reads at `index`, for this node alone."""
    if graph.constant(node.inputs[index]) is not None:
        own = graph.own_constant(node, index)
        for axis, stays in keep.items():
            own.values = np.compress(stays, own.values, axis=axis)
        return
    step = _own_producer(graph, node, index)
    if step.op == "Transpose":
        order = step.attrs.get("perm") or list(range(_rank(graph, step.inputs[0])))[::-1]
        keep = {order[axis]: stays for axis, stays in keep.items()}
    if step.op == "DequantizeLinear":
        rank = _rank(graph, step.inputs[0])
        along = {axis: stays for axis, stays in keep.items() if axis == int(step.attrs.get("axis", 1)) % max(rank, 1)}
        for place in range(1, len(step.inputs)):
            scale = graph.constant(step.inputs[place])
            if scale is not None and scale.ndim == 1 and scale.size > 1:
                for stays in along.values():
                    cut_weight(graph, step, place, {0: stays})
    cut_weight(graph, step, 0, keep)


def _rank(graph: Graph, tensor: Tensor) -> int:
    value = weight_value(graph, tensor)
    return 0 if value is None else value.ndim


def _own_producer(graph: Graph, node: Node, index: int) -> Node:
    """The node that makes an input, for this input alone."""
    tensor = node.inputs[index]
    producer = graph.producer(tensor)
    assert producer is not None
    if len(tensor.outputs) == 1 and not graph.is_output(tensor):
        return producer
    copy = graph.add_node(producer.op, list(producer.inputs), dict(producer.attrs), name=producer.name, before=node)
    node.inputs[index] = copy.outputs[0]
    return copy


def is_weight(graph: Graph, tensor: Tensor) -> bool:
    """Whether a constant has at least two axes: those that are equal were one in training, not zeros by chance."""
    value = graph.constant(stored(graph, tensor))
    return value is not None and value.ndim > 1


def write_integers(graph: Graph, node: Node, index: int, values: Sequence[int | None]) -> None:
    """Let a node read these integers at `index`; in place of None, what the graph computes there."""
    given = [v is not None for v in values]
    known: Tensor = graph.add_constant(node.inputs[index].name, np.array([v or 0 for v in values], np.int64))
    if not all(given):
        inputs: list[Tensor | Array] = [np.array(given), known, node.inputs[index]]
        known = graph.add_node("Where", inputs, name=f"{node.name or node.op}_target", before=node).outputs[0]
    node.inputs[index] = known


def own_integers(graph: Graph, node: Node, index: int, values: Collection[int]) -> Constant:
    """An input of integers as a constant that only this node reads; `values` where the graph computes it."""
    if graph.constant(node.inputs[index]) is None:
        node.inputs[index] = graph.add_constant(node.inputs[index].name, np.asarray([*values], np.int64))
    return graph.own_constant(node, index)
