"""Cross-layer equalization: move scale between two convolutions, channel by channel, so that ranges become alike.

For f with f(s x) = s f(x), s > 0:  W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1) with S diagonal. With r1 and r2 the
largest weights of an intermediate channel on either side, s = sqrt(r1 / r2) makes both sqrt(r1 r2). Here s is rounded
to a power of two: what is left of the imbalance is below sqrt(2), and every product stays what it was, bit for bit.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, 4.1.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from onnxopt.graph import Array, Graph, Node, is_standard

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
ROUNDS = 20  # chains settle in a few
STEPS = 16  # a channel is scaled by 2^-16 .. 2^16 in a round; dead channels would go on for ever

FloatArray = npt.NDArray[np.float64]


def find_pairs(graph: Graph) -> list[tuple[Node, Node]]:
    """Convolutions joined by nothing, a Relu or a LeakyRelu, with nobody else reading in between."""
    pairs = []
    for first in graph.nodes_of("Conv"):
        second = _follower(graph, first)
        if second is not None and all(_is_fit(graph, n) for n in (first, second)):
            pairs.append((first, second))
    return pairs


def equalize(graph: Graph, pairs: list[tuple[Node, Node]]) -> int:
    """Equalize pairs again and again until none changes, in place.

    Returns:
        How many channels were scaled, each counted once per pair.
    """
    scaled = [np.zeros(_weight(graph, first).shape[0]) for first, _ in pairs]
    for _ in range(ROUNDS):
        changed = False
        for index, (first, second) in enumerate(pairs):
            steps = _steps(graph, first, second)
            if steps.any():
                changed = True
                scaled[index] += steps
                _scale(graph, first, second, steps)
        if not changed:
            break
    return sum(int(np.count_nonzero(total)) for total in scaled)


def _follower(graph: Graph, node: Node) -> Node | None:
    for _ in range(2):
        output = node.outputs[0]
        readers = graph.consumers(output)
        if len(readers) != 1 or graph.is_output(output) or readers[0].inputs[0] is not output:
            return None
        node = readers[0]
        if node.op == "Conv":
            return node
        if node.op not in HOMOGENEOUS or not is_standard(node):
            return None
    return None


def _is_fit(graph: Graph, node: Node) -> bool:
    """Whether a Conv is ONNX's own, with constant float32 weights and no other bias than a constant one."""
    tensors = [t for t in node.inputs[1:] if t.name]
    values = [graph.constant(t) for t in tensors]
    return is_standard(node) and bool(values) and all(v is not None and v.dtype == np.float32 for v in values)


def _weight(graph: Graph, node: Node) -> Array:
    weight = graph.constant(node.inputs[1])
    assert weight is not None
    return weight


def _columns(weight: Array, group: int) -> Array:
    """Weights as [input channels, everything that reads one]."""
    groups = weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
    return groups.transpose(0, 2, 1, 3).reshape(group * weight.shape[1], -1)


def _steps(graph: Graph, first: Node, second: Node) -> FloatArray:
    """Exponents of two by which to divide the channels between two convolutions; 0 for dead ones."""
    writing = _weight(graph, first)
    writes = np.abs(writing).reshape(len(writing), -1).max(axis=1).astype(np.float64)
    reads = np.abs(_columns(_weight(graph, second), int(second.attrs.get("group", 1)))).max(axis=1).astype(np.float64)
    alive = (writes > 0) & (reads > 0)
    ratio = np.divide(writes, reads, out=np.ones_like(writes), where=alive)
    steps: FloatArray = np.clip(np.rint(0.5 * np.log2(ratio)), -STEPS, STEPS)
    return steps


def _scale(graph: Graph, first: Node, second: Node, steps: FloatArray) -> None:
    factor = np.exp2(steps).astype(np.float32)
    for index in _constants(first):
        constant = graph.own_constant(first, index)
        constant.values = constant.values / factor.reshape(-1, *[1] * (constant.values.ndim - 1))
    constant = graph.own_constant(second, 1)
    weight, group = constant.values, int(second.attrs.get("group", 1))
    per_row = np.repeat(factor.reshape(group, -1), weight.shape[0] // group, axis=0)
    constant.values = weight * per_row.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _constants(node: Node) -> Iterator[int]:
    return (i for i in (1, 2) if len(node.inputs) > i and node.inputs[i].name)
