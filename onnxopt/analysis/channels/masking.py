"""Mask channels instead of removing them: what a cut graph is compared with.

The graph stays as it is, but for a product with 0 wherever a node sums over channels, behind the activations, because
f(0) need not be 0. Where statistics are taken over channels (`Policy.normalized_width`), they are taken over those that
stay: with the mask m, n channels of which k stay, a mean is `mean(x * m) * n / k`, and a normalisation is

    d = (x - mean) * m,    y = d / sqrt(mean(d * d) + eps) * scale + shift
"""

import numpy as np

from onnxopt.analysis.channels.atoms import BoolArray, Kept
from onnxopt.analysis.channels.facts import Statistic
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.graph import Array, Graph, Node, Tensor, Variable


def masked(graph: Graph, relations: Trace, kept: Kept) -> Graph:
    """Copy of the graph with channels that are not kept multiplied by 0 wherever a node sums over them."""
    shapes = Shapes(*infer(graph))
    copy = graph.copy()
    nodes = list(copy.nodes)
    for place in relations.sums:
        if not kept.all(place.atoms):
            node = nodes[place.node]
            mask = _Mask(copy, node, shapes, kept.where(place.atoms), place.axis, place.rank)
            node.inputs[place.input] = mask.apply(node.inputs[place.input])
    for statistic in relations.statistics:
        if not kept.all(statistic.atoms):
            node = nodes[statistic.node]
            mask = _Mask(copy, node, shapes, kept.where(statistic.atoms), statistic.axis, statistic.rank)
            _take_statistics(mask, statistic)
    return copy


class _Mask:
    """A mask for one node, and small nodes before it."""

    def __init__(self, graph: Graph, node: Node, shapes: Shapes, stays: BoolArray, axis: int, rank: int) -> None:
        self.graph = graph
        self.node = node
        self.dtype = shapes.dtype(node.inputs[0]) or np.dtype(np.float32)
        self.mask = stays.reshape([-1 if i == axis else 1 for i in range(rank)])
        self.share = stays.size / stays.sum()

    def add(self, op: str, *inputs: Tensor | Array, **attrs: object) -> Tensor:
        """Output of a new node before the masked one."""
        name = f"{self.node.name or self.node.op}_mask"
        values = [i if isinstance(i, Tensor) else i.astype(self.dtype) for i in inputs]
        return self.graph.add_node(op, values, attrs, name=name, before=self.node).outputs[0]

    def apply(self, tensor: Tensor) -> Tensor:
        """The tensor with 0 in place of the channels that go."""
        return self.add("Mul", tensor, self.mask)

    def mean(self, tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Mean over the channels that stay; the axes remain."""
        if self.graph.opset < 18:
            return self.add("Mul", self.add("ReduceMean", self.apply(tensor), axes=list(axes)), np.array(self.share))
        node = self.graph.add_node("ReduceMean", [self.apply(tensor), np.array(axes)], before=self.node)
        return self.add("Mul", node.outputs[0], np.array(self.share))


def _take_statistics(mask: _Mask, statistic: Statistic) -> None:
    node = mask.node
    if node.op == "ReduceMean":
        node.inputs[0] = mask.apply(node.inputs[0])
        output = node.outputs[0]
        node.outputs[0] = Variable(mask.graph.unique_name(f"{output.name}_part"))
        share = np.array(mask.share, mask.dtype)
        mask.graph.add_node("Mul", [node.outputs[0], share], outputs=[output], name=f"{node.name}_share")
        return
    if node.op in {"ReduceMax", "ReduceMin"}:
        limits = np.finfo(mask.dtype)
        least = np.array(limits.min if node.op == "ReduceMax" else limits.max, mask.dtype)
        inputs: list[Tensor | Array] = [mask.mask, node.inputs[0], least]
        node.inputs[0] = mask.graph.add_node("Where", inputs, before=node).outputs[0]
        return
    _normalize(mask, statistic)


def _normalize(mask: _Mask, statistic: Statistic) -> None:
    node, source = mask.node, mask.node.inputs[0]
    centered = source
    if node.op != "RMSNormalization":
        centered = mask.add("Sub", source, mask.mean(source, statistic.axes))
    variance = mask.mean(mask.add("Mul", centered, centered), statistic.axes)
    epsilon = np.array(node.attrs.get("epsilon", 1e-5))
    scaled = mask.add("Div", centered, mask.add("Sqrt", mask.add("Add", variance, epsilon)))
    for op, index in (("Mul", 1), ("Add", 2)):
        if len(node.inputs) > index and node.inputs[index].name:
            scaled = mask.add(op, scaled, _aligned(mask, index, statistic.rank))
    output = node.outputs[0]
    node.outputs.clear()
    mask.graph.add_node("Identity", [scaled], outputs=[output], name=f"{node.name}_masked", before=node)
    mask.graph.remove(node)


def _aligned(mask: _Mask, index: int, rank: int) -> Tensor | Array:
    """Scale or shift; those of InstanceNormalization lie along axis 1."""
    values = mask.graph.constant(mask.node.inputs[index])
    if mask.node.op != "InstanceNormalization" or values is None:
        return mask.node.inputs[index]
    return values.reshape([-1 if i == 1 else 1 for i in range(rank)])
