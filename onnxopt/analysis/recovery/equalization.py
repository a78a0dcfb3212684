"""Cross-layer equalization: move scale between two convolutions, channel by channel, so that ranges become alike.

1. By the weights (`equalize`). For f with f(s x) = s f(x), s > 0:

       W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1) with S diagonal.

With r1 and r2 the largest weights of an intermediate channel on either side, s = sqrt(r1 / r2) makes both sqrt(r1 r2).
Here s is rounded to a power of two: what is left of the imbalance is below sqrt(2), and every product stays what it
was, bit for bit. Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv 1906.04721, 4.1.

2. By the activations (`strengthen`). A depthwise convolution reads each channel with weights of its own, and these have
a scale of their own; so has what writes the channel. Its values may then fill the range of the tensor whatever that
does to the weights: s = R / p, for the largest value p of a channel and R of all. A Clip(x, 0, c) between the two cuts
off a channel at c / s from then on; s leaves room for values larger than those seen.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from onnxopt.graph import Array, Graph, Node, is_standard

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
ROOM = 1.25  # of what a channel was seen to reach stays below a Clip
STRONGEST = 64.0  # factor of a channel that is next to nothing; more of it would be rounding alone
ROUNDS = 20  # chains settle in a few
STEPS = 16  # a channel is scaled by 2^-16 .. 2^16 in a round; dead channels would go on for ever

FloatArray = npt.NDArray[np.float64]


def find_pairs(graph: Graph, between: Collection[str] = HOMOGENEOUS) -> list[tuple[Node, Node]]:
    """Convolutions joined by nothing or one of these activations, with nobody else reading in between."""
    pairs = []
    for first in graph.nodes_of("Conv"):
        second = _follower(graph, first, between)
        if second is not None and all(is_fit(graph, n) for n in (first, second)):
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
                _scale(graph, first, second, np.exp2(steps).astype(np.float32))
        if not changed:
            break
    return sum(int(np.count_nonzero(total)) for total in scaled)


def find_depthwise(graph: Graph) -> list[tuple[Node, Node]]:
    """Those pairs whose second convolution is depthwise; a Clip that starts at 0 may stand between them, too."""
    pairs = find_pairs(graph, HOMOGENEOUS | {"Clip"})
    return [(first, second) for first, second in pairs if _weight(graph, second).shape[1] == 1]


def strengthen(graph: Graph, pairs: list[tuple[Node, Node]], peaks: Mapping[str, FloatArray]) -> int:
    """Scale up the weak channels between pairs, in place.

    Args:
        graph: The model.
        pairs: As `find_depthwise` gives them.
        peaks: Largest magnitude of each channel of what the second of a pair reads, by the tensor's name; pairs for
            which one is no finite number are left alone.

    Returns:
        How many channels were scaled.
    """
    count = 0
    for first, second in pairs:
        peak = peaks[second.inputs[0].name]
        if not np.isfinite(peak).all():
            continue
        factor = np.clip(peak.max() / np.maximum(ROOM * peak, np.finfo(np.float32).tiny), 1.0, STRONGEST)
        factor[peak == 0] = 1.0
        if (factor == 1).all():
            continue
        _scale(graph, first, second, (1 / factor).astype(np.float32))
        count += int(np.count_nonzero(factor > 1))
    return count


def _follower(graph: Graph, node: Node, between: Collection[str]) -> Node | None:
    for _ in range(2):
        output = node.outputs[0]
        readers = graph.consumers(output)
        if len(readers) != 1 or graph.is_output(output) or readers[0].inputs[0] is not output:
            return None
        node = readers[0]
        if node.op == "Conv":
            return node
        if node.op not in between or not is_standard(node) or (node.op == "Clip" and not clips_from_zero(graph, node)):
            return None
    return None


def clips_from_zero(graph: Graph, clip: Node) -> bool:
    """Whether a Clip has constant bounds, the lower one 0, so that a channel may be scaled below the upper one."""
    bounds = [graph.constant(t) for t in clip.inputs[1:3] if t.name]
    low, high = bounds if len(bounds) == 2 else (None, None)
    return low is not None and high is not None and low.size == high.size == 1 and low.item() == 0 < high.item()


def is_fit(graph: Graph, node: Node) -> bool:
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


def _scale(graph: Graph, first: Node, second: Node, factor: Array) -> None:
    """Divide the channels between two convolutions."""
    for index in _constants(first):
        constant = graph.own_constant(first, index)
        constant.values = constant.values / factor.reshape(-1, *[1] * (constant.values.ndim - 1))
    constant = graph.own_constant(second, 1)
    weight, group = constant.values, int(second.attrs.get("group", 1))
    per_row = np.repeat(factor.reshape(group, -1), weight.shape[0] // group, axis=0)
    constant.values = weight * per_row.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _constants(node: Node) -> Iterator[int]:
    return (i for i in (1, 2) if len(node.inputs) > i and node.inputs[i].name)
