"""Remove channels from a graph: from weights, constants, attributes and shapes.

By construction the outputs are those of the original with the same channels masked (`masking`), for any choice of
channels and any weights: each is the other's test.
"""

from onnxopt.analysis.channels.atoms import BoolArray, Kept
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.channels.weights import cut_weight
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
    slots: dict[tuple[int, int], dict[int, BoolArray]] = {}
    for site in relations.sites:
        if not kept.all(site.atoms):
            slots.setdefault((site.node, site.input), {})[site.axis] = kept.where(site.atoms)
    done: dict[tuple[object, ...], Tensor] = {}
    for (position, index), keep in slots.items():
        node = nodes[position]
        tensor = node.inputs[index]
        key = (id(tensor), *((axis, stays.tobytes()) for axis, stays in sorted(keep.items())))
        sources.append(tensor)
        if key in done:
            node.inputs[index] = done[key]
            continue
        cut_weight(graph, node, index, keep)
        done[key] = node.inputs[index]
    for edit in relations.edits:
        if not kept.all(edit.atoms):
            sources += nodes[edit.node].inputs
            edit.apply(graph, nodes[edit.node], kept)
    _drop_unread(graph, sources)
    _forget_lengths(graph, relations, kept)
    graph.forget_shapes()


def _drop_unread(graph: Graph, tensors: list[Tensor]) -> None:
    """Remove nodes whose value was copied and is read by nobody any more: Constant, Identity, shape arithmetic."""
    dead: dict[int, Node] = {}
    waiting = list(tensors)
    while waiting:
        node = graph.producer(waiting.pop())
        if node is None or id(node) in dead or any(graph.is_output(t) for t in node.outputs):
            continue
        if all(id(reader) in dead for t in node.outputs for reader in t.outputs):
            dead[id(node)] = node
            waiting += node.inputs
    graph.remove(*dead.values())


def _forget_lengths(graph: Graph, relations: Trace, kept: Kept) -> None:
    """Correct recorded shapes: those behind custom operators are not inferred anew."""
    for node in graph.nodes:
        for tensor in node.outputs:
            for axis, atoms in relations.layouts.get(tensor.name, {}).items():
                if isinstance(tensor, Variable) and tensor.shape is not None and not kept.all(atoms):
                    tensor.shape = [kept.count(atoms) if i == axis else d for i, d in enumerate(tensor.shape)]
