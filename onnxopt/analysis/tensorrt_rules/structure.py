"""Rules about where pairs stand: what they keep from fusing, and what they share.

Source: NVIDIA TensorRT documentation, "Explicit Quantization" (Q/DQ placement recommendations, propagation through
commuting layers, residual connections), and the threads of NVIDIA/TensorRT numbered in the rules.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt.analysis.pairs import MOVERS, PairView
from onnxopt.analysis.tensorrt_rules.finding import Finding, finding
from onnxopt.graph import Node, Tensor
from onnxopt.placement.tail import FEATURE_OPS

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Elu", "HardSigmoid", "HardSwish", "Mish", "Softplus"}
    | {"Gelu"}
)
SELECTIONS = frozenset({"TopK", "NonMaxSuppression", "ArgMax", "ArgMin"})


def conv_batchnorm(view: PairView) -> Iterator[Finding]:
    """Nothing stands between a Conv and its BatchNormalization."""
    for node, reader in _behind_layers(view):
        if reader.op == "BatchNormalization":
            text = "a pair stands between it and its BatchNormalization, so they do not fuse"
            yield finding("conv-batchnorm", node, text)


def conv_activation(view: PairView) -> Iterator[Finding]:
    """Nothing stands between a Conv and its activation."""
    seen: set[int] = set()
    for node, reader in _behind_layers(view):
        if reader.op in ACTIVATIONS and id(node) not in seen:
            seen.add(id(node))
            text = f"a pair stands between it and its {reader.op}, so they do not fuse"
            yield finding("conv-activation", node, text)


def _behind_layers(view: PairView) -> Iterator[tuple[Node, Node]]:
    """Weighted nodes with the readers of the pair right behind them."""
    for dequantize in view.dequantizers:
        node = view.graph.producer(view.source(dequantize))
        if node is not None and node.op in FEATURE_OPS:
            yield from ((node, reader) for reader in view.readers(dequantize))


def pad_conv(view: PairView) -> Iterator[Finding]:
    """Nothing stands between a Pad and a Conv (NVIDIA/TensorRT #2592)."""
    for node in view.weighted:
        pair = view.pair(node.inputs[0])
        pad = view.graph.producer(view.source(pair)) if pair is not None else None
        if pad is not None and pad.op == "Pad":
            yield finding("pad-conv", node, "a pair stands between Pad and it, so they do not fuse; move it before Pad")


def pair_cast(view: PairView) -> Iterator[Finding]:
    """Nothing stands between a DQ and its layer: scales have the layer's type."""
    for node in view.weighted:
        casts = [view.graph.producer(t) for t in node.inputs[:2]]
        if any(c is not None and c.op == "Cast" and _dequantizes(view, c.inputs[0]) for c in casts):
            yield finding(
                "pair-cast", node, "a Cast parts it from its pair, so it runs in float; cast the scale instead"
            )


def _dequantizes(view: PairView, tensor: Tensor) -> bool:
    return view.pair(tensor) is not None or view.weight(tensor) is not None


def concat_scales(view: PairView) -> Iterator[Finding]:
    """A quantized Concat has one scale on all its inputs and its output."""
    for node in view.graph.nodes_of("Concat"):
        inputs = [view.pair(t) for t in node.inputs]
        scales = [view.scale(n) for n in [*inputs, *view.quantized_behind(node)] if n is not None]
        if all(inputs) and view.quantized_behind(node) and not _equal(scales):
            text = "its inputs and output have different scales, so each branch is quantized anew"
            yield finding("concat-scales", node, text)


def concat_partial(view: PairView) -> Iterator[Finding]:
    """Of a quantized Concat all inputs are quantized, or none."""
    for node in view.graph.nodes_of("Concat"):
        inputs = [view.pair(t) for t in node.inputs]
        if view.quantized_behind(node) and any(inputs) and not all(inputs):
            yield finding(
                "concat-partial", node, "some of its inputs are quantized and some are not, so it runs in float"
            )


def residual_both(view: PairView) -> Iterator[Finding]:
    """Of a residual Add the branch that comes from a Conv is not quantized."""
    for node in view.graph.nodes_of("Add"):
        pairs = [view.pair(t) for t in node.inputs]
        sources = [view.graph.producer(view.source(p)) if p is not None else None for p in pairs]
        if len(pairs) == 2 and all(pairs) and any(_only_for(view, s, p) for s, p in zip(sources, pairs, strict=True)):
            text = "both branches are quantized, so the Conv before it does not fuse; quantize the identity branch only"
            yield finding("residual-both", node, text)


def _only_for(view: PairView, producer: Node | None, pair: Node | None) -> bool:
    """Whether a weighted node's output is read by one pair, and that by one node."""
    if producer is None or pair is None or producer.op not in FEATURE_OPS:
        return False
    return view.sole_reader(producer.outputs[0]) is not None and view.sole_reader(pair.outputs[0]) is not None


def residual_float(view: PairView) -> Iterator[Finding]:
    """A Q behind a residual Add fuses only if the identity branch is quantized."""
    for node in view.graph.nodes_of("Add"):
        producers = [view.graph.producer(t) for t in node.inputs]
        fuses = [p is not None and view.is_int8(p) and view.sole_reader(p.outputs[0]) is node for p in producers]
        constant = any(view.graph.constant(t) is not None for t in node.inputs)
        if any(fuses) and not constant and not any(view.pair(t) for t in node.inputs) and view.quantized_behind(node):
            text = "neither branch is quantized, so the Conv before it writes floats; quantize the identity branch"
            yield finding("residual-float", node, text)


def two_quantizers(view: PairView) -> Iterator[Finding]:
    """A tensor is quantized once."""
    tensors: dict[int, Tensor] = {id(n.inputs[0]): n.inputs[0] for n in view.quantizers}
    for tensor in tensors.values():
        quantizers = [n for n in view.graph.consumers(tensor) if n.op == "QuantizeLinear"]
        if len(quantizers) > 1:
            text = f"'{tensor.name}' is quantized {len(quantizers)} times; let all readers share one QuantizeLinear"
            yield finding("two-quantizers", quantizers[1], text)


def requantize(view: PairView) -> Iterator[Finding]:
    """A value is not quantized anew right behind a pair."""
    for node in view.quantizers:
        pair = view.pair(node.inputs[0])
        if pair is not None and not _equal([view.scale(pair), view.scale(node)]):
            yield finding("requantize", node, "a quantized value is quantized again with another scale; use one")


def commute_scale(view: PairView) -> Iterator[Finding]:
    """What only moves values has one scale on both sides."""
    for node in view.graph.nodes:
        pair = view.pair(node.inputs[0]) if node.op in MOVERS and node.inputs else None
        behind = [c for t in node.outputs for c in view.graph.consumers(t) if c.op == "QuantizeLinear"]
        if pair is not None and behind and not _equal([view.scale(n) for n in [pair, *behind]]):
            yield finding("commute-scale", node, "scales before and behind it differ, so it quantizes anew; use one")


def lonely(view: PairView) -> Iterator[Finding]:
    """A pair serves an operator that runs in int8."""
    for node in view.dequantizers:
        readers = view.readers(node)
        elsewhere = view.graph.is_output(node.outputs[0]) or any(_answers(view, r) for r in readers)
        if not elsewhere and not any(_useful(view, r, node.outputs[0]) for r in readers):
            kinds = ", ".join(sorted({r.op for r in readers})) or "nothing"
            yield finding("lonely", node, f"read by {kinds} only, which does not run in int8; take the pair out")


def _useful(view: PairView, reader: Node, tensor: Tensor, depth: int = 0) -> bool:
    """Whether a dequantized value ends in an int8 kernel, maybe behind operators that only move it."""
    if reader.op in FEATURE_OPS:
        return True
    if reader.op == "QuantizeLinear":
        return True
    if view.quantized_behind(reader) and reader.op not in {"Softmax", "LayerNormalization", "Gelu", "Erf", "Exp"}:
        return True
    if reader.op not in MOVERS or tensor is not (reader.inputs[0] if depth == 0 else tensor):
        return False
    following = [(c, t) for t in reader.outputs for c in view.graph.consumers(t)]
    return any(_useful(view, c, t, depth + 1) for c, t in following)


def _answers(view: PairView, node: Node) -> bool:
    return node.name in view.tail or node.op in SELECTIONS


def output(view: PairView) -> Iterator[Finding]:
    """Graph outputs are not quantized."""
    for node in view.dequantizers:
        if view.graph.is_output(node.outputs[0]):
            yield finding("output", node, "a graph output is quantized; leave the answer in floating point")


def tail(view: PairView) -> Iterator[Finding]:
    """What turns features into boxes and scores stays float."""
    for node in view.graph.nodes:
        if node.name in view.tail and node.op not in SELECTIONS and any(view.pair(t) for t in node.inputs):
            text = (
                "it stands behind the last features and reads quantized values: boxes and scores lose their precision"
            )
            yield finding("tail", node, text)


def selection(view: PairView) -> Iterator[Finding]:
    """What picks the best reads floats."""
    for node in view.graph.nodes:
        if node.op in SELECTIONS and any(view.pair(t) for t in node.inputs):
            text = (
                f"{node.op} reads quantized values, which tie where floats differ; leave its inputs in floating point"
            )
            yield finding("selection", node, text)


def _equal(scales: list[np.ndarray | None]) -> bool:
    first = scales[0]
    return all(s is not None and first is not None and np.array_equal(s, first) for s in scales)
