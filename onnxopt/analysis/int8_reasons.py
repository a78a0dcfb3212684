"""Why a weighted layer of a quantized graph runs in float, found from the graph.

What a runtime really did is read back from the runtime; it does not say why. For most layers the graph does. The
reasons, the first that holds being given:

1. the target has no int8 kernel for the operator, or not for its attributes;
2. the layer is not quantized, or in parts: input, weights;
3. where the target fuses a Q behind the layer: no Q, several, a float reader beside it, a graph output, an operator in
   between that does not fuse, a Relu or Clip whose range the zero point does not make redundant;
4. where it wants none: a Concat of several scales before the layer;
5. types that its kernels do not take.

Source: ONNX Runtime's `qdq_selector_action_transformer.cc`, `qdq_s8_to_u8.cc` and `relu_quantizelinear.cc`, OpenVINO's
documentation of low-precision transformations, and the graphs that both really run.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt.analysis.pairs import PairView
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.graph import Array, Graph, Node, Tensor, label
from onnxopt.placement.plan import plan
from onnxopt.targets import Target

UNKNOWN = "the graph asks for int8 here; the runtime does not say why it chose float"


class Reasons:
    """Answers for one graph and one target; nodes are known by the names that `Graph.name_nodes` gives."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.view = PairView(graph)
        self.target = target
        structure = self.view.structure
        placement = plan(structure, target, Shapes(*infer(structure)))
        self.planned = dict(placement.notes)

    def of(self, node: Node) -> str:
        """Why a weighted node (of `view.graph`) runs in float."""
        rule = self.target.rules.get(node.op)
        if rule is None or rule.role != "anchor":
            return (rule.reason if rule is not None else "") or self.target.default_reason
        return next((reason for reason in self._candidates(node, ends=rule.output) if reason), UNKNOWN)

    def _candidates(self, node: Node, *, ends: bool) -> Iterator[str]:
        yield self._why_partial(node)
        yield _why_attributes(node)
        if ends:
            yield self._why_output(node)
        yield self._why_types(node, ends=ends)

    def _why_partial(self, node: Node) -> str:
        weight = self.view.weight(node.inputs[1]) is not None
        pair = self.view.pair(node.inputs[0])
        if pair is not None and weight:
            return ""
        if weight:
            return self._why_input(node)
        if self.view.graph.constant(node.inputs[1]) is None:
            return "a product of two activations, which is not quantized"
        policy = self.planned.get(label(node), "")
        if pair is not None:
            return f"its input is quantized and its weights are not{': ' if policy else ''}{policy}"
        return f"not quantized: {policy}" if policy else "not quantized, though the target could run it in int8"

    def _why_input(self, node: Node) -> str:
        producer = self.view.graph.producer(node.inputs[0])
        if producer is None:
            return "its weights are quantized and its input is not"
        scales = [self.view.scale(p) for t in producer.inputs if (p := self.view.pair(t)) is not None]
        if producer.op == "Concat" and len(scales) == len(producer.inputs):
            if any(not _same(scales[0], s) for s in scales):
                return "the Concat before it joins different scales, and no Q follows the Concat"
            return "the Concat before it joins quantized values, and no Q follows the Concat"
        if scales:
            return f"{label(producer)} stands between the DequantizeLinear and it"
        return "its weights are quantized and its input is not"

    def _why_output(self, node: Node) -> str:
        """Why the Q behind a node does not fuse into it."""
        readers = self.view.graph.consumers(node.outputs[0])
        activation = readers[0] if len(readers) == 1 else node
        if activation.op in self.target.fused_activations and not self.view.graph.is_output(node.outputs[0]):
            return self._why_readers(activation.outputs[0]) or self._why_not_redundant(activation)
        return self._why_readers(node.outputs[0])

    def _why_readers(self, tensor: Tensor) -> str:
        if self.view.graph.is_output(tensor):
            return "its output is a graph output, so no Q follows it alone"
        readers = self.view.graph.consumers(tensor)
        quantizers = [r for r in readers if r.op == "QuantizeLinear"]
        others = [r for r in readers if r.op != "QuantizeLinear"]
        if not quantizers:
            names = ", ".join(sorted({r.op for r in others})) or "nothing"
            return f"no Q follows it directly: its output goes into {names}"
        if others:
            return f"besides the Q a float operator reads its output: {label(others[0])}"
        if len(quantizers) > 1:
            return f"{len(quantizers)} Qs read its output; one is fused"
        return ""

    def _why_not_redundant(self, activation: Node) -> str:
        """Whether a Relu or Clip is still needed behind the rounding of the Q that follows it."""
        quantize = self.view.graph.consumers(activation.outputs[0])[0]
        scale, zero = self.view.scale(quantize), self.view.zero(quantize)
        if scale is None or zero is None or scale.size > 1:
            return ""
        limits = np.iinfo(zero.dtype)
        low, high = ((limit - int(zero)) * float(scale) for limit in (limits.min, limits.max))
        bottom, top = _bounds(self.view.graph, activation)
        if low < bottom:
            return (
                f"the {activation.op} between it and its Q is needed: zero point {int(zero)} lets values below "
                f"{bottom:g} through, {limits.min} would not"
            )
        if high > top * (1 + 1e-6):
            return f"the {activation.op} between it and its Q is needed: the Q reaches to {high:g}, beyond {top:g}"
        return ""

    def _why_types(self, node: Node, *, ends: bool) -> str:
        pair, weight = self.view.pair(node.inputs[0]), self.view.weight(node.inputs[1])
        kinds = [self.view.type_of(n) for n in (pair, *self.view.quantized_behind(node)) if n is not None]
        weights = self.view.type_of(weight) if weight is not None else ""
        wanted = self.target.activation.dtype
        if kinds and self.target.positive is not None and kinds[0] == self.target.positive.dtype:
            wanted = self.target.positive.dtype
        if len(set(kinds)) > 1:
            return f"its input and output have different types: {' and '.join(kinds)}"
        if kinds and kinds[0] != wanted:
            more = self._why_not_converted(node) if ends and wanted == "uint8" else ""
            return f"its activations are {kinds[0]} and kernels take {wanted}{more}"
        if weights != self.target.weight.dtype:
            return f"its weights are {weights}; kernels take {self.target.weight.dtype}"
        return ""

    def _why_not_converted(self, node: Node) -> str:
        """int8 becomes uint8 when the model is loaded, but only between one Q and one reader."""
        pair = self.view.pair(node.inputs[0])
        before = [q for q in (self.view.quantizer(pair) if pair is not None else None,) if q is not None]
        behind = self.view.quantized_behind(node)
        for where, quantizers in (("input", before), ("output", behind)):
            for quantize in quantizers:
                count = sum(len(self.view.readers(d)) for d in self.view.graph.consumers(quantize.outputs[0]))
                if count > 1:
                    return f"; they are converted where a value has one reader, its {where} has several"
        return ""


def _why_attributes(node: Node) -> str:
    attrs = node.attrs
    if node.op == "Gemm" and (attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA")):
        return "Gemm with alpha, beta or transA has no int8 kernel"
    return ""


def _same(first: Array | None, second: Array | None) -> bool:
    return first is not None and second is not None and np.array_equal(first, second)


def _bounds(graph: Graph, activation: Node) -> tuple[float, float]:
    """Smallest and largest value that a Relu or Clip lets through."""
    if activation.op == "Relu":
        return 0.0, np.inf
    values = [graph.constant(t) if t.name else None for t in activation.inputs[1:3]]
    low = activation.attrs.get("min", -np.inf) if not values or values[0] is None else values[0]
    high = activation.attrs.get("max", np.inf) if len(values) < 2 or values[1] is None else values[1]
    return float(low), float(high)
