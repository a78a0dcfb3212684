"""Remove channels from a graph, or mask them: two ways to the same outputs.

`cut` takes them out of weights, constants, attributes and shapes. `masked` leaves the graph as it is and multiplies
the channels by 0 wherever a node sums over them, behind the activations, because f(0) need not be 0. By
construction both give the same outputs for any choice of channels and any weights: each is the other's test.
"""

import numpy as np

from onnxopt.analysis.channels.atoms import BoolArray, Kept
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.graph import Graph, Node, Tensor, Variable


def cut(graph: Graph, relations: Trace, kept: Kept) -> None:
    """Remove, in place, every channel that is not kept.

    Args:
        graph: The graph that was analysed, or a copy of it: nodes are found by their position.
        relations: Its analysis.
        kept: The choice.
    """
    nodes = list(graph.nodes)
    sources: list[Tensor] = []
    for site in relations.sites:
        if kept.all(site.atoms):
            continue
        node = nodes[site.node]
        sources.append(node.inputs[site.input])
        own = graph.own_constant(node, site.input)
        own.values = np.compress(kept.where(site.atoms), own.values, axis=site.axis)
    for edit in relations.edits:
        if not kept.all(edit.atoms):
            sources += nodes[edit.node].inputs[1:]
            edit.apply(graph, nodes[edit.node], kept)
    _drop_unread(graph, sources)
    _forget_lengths(graph, relations, kept)
    graph.forget_shapes()


def _drop_unread(graph: Graph, tensors: list[Tensor]) -> None:
    """Remove Constant and Identity nodes whose value was copied and is read by nobody any more."""
    for tensor in tensors:
        node = graph.producer(tensor)
        if node is None or node.op not in {"Constant", "Identity"} or tensor.outputs or graph.is_output(tensor):
            continue
        above = list(node.inputs)
        graph.remove(node)
        _drop_unread(graph, above)


def _forget_lengths(graph: Graph, relations: Trace, kept: Kept) -> None:
    """Correct recorded shapes: those behind custom operators are not inferred anew."""
    for node in graph.nodes:
        for tensor in node.outputs:
            for axis, atoms in relations.layouts.get(tensor.name, {}).items():
                if isinstance(tensor, Variable) and tensor.shape is not None and not kept.all(atoms):
                    tensor.shape = [kept.count(atoms) if i == axis else d for i, d in enumerate(tensor.shape)]


def masked(graph: Graph, relations: Trace, kept: Kept) -> Graph:
    """Copy of the graph with channels that are not kept multiplied by 0 wherever a node sums over them."""
    shapes = Shapes(*infer(graph))
    copy = graph.copy()
    nodes = list(copy.nodes)
    for place in relations.sums:
        if not kept.all(place.atoms):
            node = nodes[place.node]
            _mask(copy, node, place.input, _mask_values(place.rank, place.axis, kept.where(place.atoms)), shapes)
    return copy


def _mask_values(rank: int, axis: int, stays: BoolArray) -> BoolArray:
    return stays.reshape([-1 if i == axis else 1 for i in range(rank)])


def _mask(graph: Graph, node: Node, index: int, mask: BoolArray, shapes: Shapes) -> None:
    tensor = node.inputs[index]
    values = mask.astype(shapes.dtype(tensor) or np.dtype(np.float32))
    product = graph.add_node("Mul", [tensor, values], name=f"{node.name or node.op}_mask", before=node)
    node.inputs[index] = product.outputs[0]
