"""BatchNormalization taken into the weights before it, with the graph's nodes left where they are.

With scale s, shift t, mean m and variance v:  s (W x + b - m) / √(v + ε) + t = (s' W) x + (s' (b - m) + t), where
s' = s / √(v + ε). What is left of the node changes nothing and is removed in the end.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.graph import Array, Graph, Node, is_standard

MAKERS = ("Conv", "ConvTranspose")


def absorb_normalizations(graph: Graph) -> list[int]:
    """Take each BatchNormalization that alone reads a Conv or ConvTranspose into it, in place.

    Returns:
        Positions in `graph.nodes` of nodes that now pass their input on unchanged.
    """
    done = []
    for position, node in enumerate(graph.nodes):
        if node.op != "BatchNormalization" or not is_standard(node) or node.attrs.get("training_mode"):
            continue
        maker = graph.producer(node.inputs[0])
        values = [graph.constant(t) for t in node.inputs[1:5]]
        if maker is None or maker.op not in MAKERS or not is_standard(maker) or any(v is None for v in values):
            continue
        spread = np.asarray(values[3], np.float64) + node.attrs.get("epsilon", 1e-5)
        lonely = len(node.inputs[0].outputs) == 1 and not graph.is_output(node.inputs[0])
        if lonely and (spread > 0).all() and all(t is None or graph.constant(t) is not None for t in maker.inputs[1:]):
            _absorb(graph, maker, node, [np.asarray(v, np.float64) for v in values])
            done.append(position)
    return done


def drop_absorbed(graph: Graph, nodes: Sequence[Node]) -> None:
    """Remove what absorption has left of nodes."""
    for node in nodes:
        graph.bypass(node, node.inputs[0])


def _absorb(graph: Graph, maker: Node, node: Node, values: Sequence[Array]) -> None:
    scale, shift, mean, variance = values
    epsilon = float(np.float32(node.attrs.get("epsilon", 1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    weight = graph.own_constant(maker, 1)
    dtype = weight.values.dtype
    bias = np.zeros(factor.shape)
    if len(maker.inputs) > 2 and maker.inputs[2].name:
        bias = np.asarray(graph.own_constant(maker, 2).values, np.float64)
    along = _per_output(maker, weight.values, factor)
    weight.values = (weight.values.astype(np.float64) * along).astype(dtype)
    own = graph.add_constant(f"{maker.outputs[0].name}_bias", ((bias - mean) * factor + shift).astype(dtype))
    if len(maker.inputs) > 2:
        maker.inputs[2] = own
    else:
        maker.inputs.append(own)
    ones = np.ones(factor.shape, dtype)
    for index, value in enumerate((ones, 0 * ones, 0 * ones, ones - dtype.type(epsilon)), 1):
        graph.own_constant(node, index).values = value


def _per_output(maker: Node, weight: Array, factor: Array) -> Array:
    """One factor per output channel, shaped to multiply the weights."""
    rest = (1,) * (weight.ndim - 2)
    if maker.op == "Conv":
        return factor.reshape(-1, 1, *rest)
    groups = int(maker.attrs.get("group", 1))
    return np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0).reshape(weight.shape[0], -1, *rest)
