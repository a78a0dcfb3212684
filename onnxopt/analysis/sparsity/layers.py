"""The layers that may get zeros, and why others get none."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.analysis.compensation.reading import Reader, give_bias, read
from onnxopt.analysis.sparsity.rule import FloatArray, IntArray, Rule, column_order
from onnxopt.graph import Array, Graph, Node, is_standard

OPS = ("Conv", "Gemm", "MatMul")
ALREADY = "already"


@dataclass(frozen=True)
class Layer:
    """A layer whose weights may become 0.

    Attributes:
        reader: How it reads and writes.
        order: Columns of a patch, consecutive input channels side by side.
        axis: The weights' axis of input channels.
        dense: It gets no zeros, but may make up for what goes wrong before it.
    """

    reader: Reader
    order: IntArray
    axis: int
    dense: bool = False

    def weights(self, graph: Graph) -> Array:
        """Its weights as they stand in the file."""
        value = graph.constant(self.reader.node(graph).inputs[1])
        assert value is not None
        return value


def find_layers(graph: Graph, rule: Rule, explain: Callable[[Node, str], None], *, least: int = 1) -> list[Layer]:
    """The layers of a sorted graph that can be given other weights, in order of execution.

    Those that cannot follow the rule are dense; those that follow it already are not among them.

    Args:
        graph: The model.
        rule: What is wanted.
        explain: Called for each Conv, Gemm and MatMul by weights that gets no zeros, and why.
        least: Layers with fewer weights are not looked at: they are arithmetic, such as a detector's weighted mean.
    """
    found = []
    for position, node in enumerate(graph.nodes):
        if node.op not in OPS or not is_standard(node):
            continue
        weight = graph.constant(node.inputs[1])
        reason = _unusable(graph, node, weight, least)
        if weight is None or reason is not None:
            if reason:
                explain(node, reason)
            continue
        layer = _read(graph, position, weight)
        reason = "its attributes (alpha, beta, transA, padding) are not understood" if layer is None else None
        reason = reason or _unfit(node, weight, rule)
        if reason:
            explain(node, reason)
        if layer is not None and not (reason or "").endswith(ALREADY):
            found.append(replace(layer, dense=reason is not None))
    return found


def write(graph: Graph, layer: Layer, weight: FloatArray, bias: FloatArray | None) -> None:
    """Give a layer weights [groups, columns, length] and a bias [groups, columns]; None leaves that as it is."""
    if bias is not None:
        give_bias(graph, layer.reader.node(graph))
    layer.reader.write(graph, weight, bias)


def _read(graph: Graph, position: int, weight: Array) -> Layer | None:
    node = graph.nodes[position]
    axis = _channel_axis(node)
    groups = int(node.attrs.get("group", 1)) if node.op == "Conv" else 1
    channels = weight.shape[axis]
    reader = read(graph, position, np.arange(channels * groups))
    return None if reader is None else Layer(reader, column_order(channels, reader.patches.shape[2]), axis)


def _unusable(graph: Graph, node: Node, weight: Array | None, least: int) -> str | None:
    """Why the weights can be no others; "" for a product of two activations, None where they can."""
    if weight is None:
        source = graph.producer(node.inputs[1])
        if source is not None and source.op == "DequantizeLinear":
            return "its weights are quantized; put sparsify before quantize, or run strip-qdq first"
        given = node.op == "MatMul" and graph.constant(node.inputs[0]) is not None
        return "its weights are the first input, not the second" if given else ""
    if weight.dtype.kind != "f":
        return f"its weights are {weight.dtype}"
    if node.op != "Conv" and weight.ndim != 2:
        return "its weights are no matrix"
    if weight.size < least:
        return f"its {weight.size} weights are fewer than min_elements={least}"
    return None if np.isfinite(weight).all() else "its weights are not finite"


def _unfit(node: Node, weight: Array, rule: Rule) -> str | None:
    """Why weights get no zeros; None where they do."""
    axis = _channel_axis(node)
    channels = weight.shape[axis]
    if node.op == "Conv" and channels == 1 and int(node.attrs.get("group", 1)) > 1:
        return "each of its outputs reads one channel (depthwise): few weights, none of which another makes up for"
    if rule.block and channels % rule.block:
        return f"its outputs read {channels} channels, no multiple of {rule.block}"
    return f"has the zeros of {rule} {ALREADY}" if rule.follows(weight, axis) else None


def _channel_axis(node: Node) -> int:
    return 1 if node.op == "Conv" or node.attrs.get("transB", 0) else 0
