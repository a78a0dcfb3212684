"""The rounding of Q/DQ pairs spelled out in float operators: an independent statement of what they compute.

dequantize(quantize(x)) = (clip(round(x / s) + z, qmin, qmax) - z) * s
"""

import numpy as np

from onnxopt.graph import Graph, Node
from onnxopt.placement.strip import fold_weights


def fake_quantized(graph: Graph) -> Graph:
    """Copy of a quantized graph without Q and DQ, computing the same values in float."""
    copy = graph.copy()
    fold_weights(copy)
    for node in list(copy.nodes_of("QuantizeLinear")):
        _spell_out(copy, node)
    return copy


def _spell_out(graph: Graph, quantize: Node) -> None:
    tensor = quantize.inputs[0]
    values = [graph.constant(t) for t in quantize.inputs[1:3]]
    # One number for all, or that number once per channel.
    scale, zero = (np.unique(v).reshape(()) for v in values if v is not None)
    limits = np.iinfo(zero.dtype)
    shift = np.float32(zero)
    value = graph.add_node("Div", [tensor, scale.astype(np.float32)], before=quantize).outputs[0]
    value = graph.add_node("Round", [value], before=quantize).outputs[0]
    value = graph.add_node("Add", [value, np.asarray(shift)], before=quantize).outputs[0]
    bounds = [np.asarray(b, np.float32) for b in (limits.min, limits.max)]
    value = graph.add_node("Clip", [value, *bounds], before=quantize).outputs[0]
    value = graph.add_node("Sub", [value, np.asarray(shift)], before=quantize).outputs[0]
    value = graph.add_node("Mul", [value, scale.astype(np.float32)], before=quantize).outputs[0]
    for dequantize in graph.consumers(quantize.outputs[0]):
        graph.replace_uses(dequantize.outputs[0], value)
        graph.remove(dequantize)
    graph.remove(quantize)
