"""Rules about weighted layers: all of a layer is quantized, or nothing.

Source: NVIDIA TensorRT documentation, "Explicit Quantization" and its placement recommendations; size limits and
attention as in NVIDIA's Model Optimizer.
"""

from collections.abc import Iterator

from onnxopt.analysis.pairs import PairView
from onnxopt.analysis.shapes import infer
from onnxopt.analysis.tensorrt_rules.finding import Finding, finding
from onnxopt.graph import is_standard
from onnxopt.placement.size import why_too_small
from onnxopt.targets.tensorrt import TENSORRT

OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    | {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearGlobalAveragePool", "QGemm"}
)


def operator(view: PairView) -> Iterator[Finding]:
    """Integer operators are not imported."""
    for node in view.graph.nodes:
        if node.op in OPERATORS:
            yield finding("operator", node, f"TensorRT cannot import {node.op}; write it as Q/DQ around the float one")


def contrib(view: PairView) -> Iterator[Finding]:
    """Operators of other domains need a plug-in."""
    for node in view.graph.nodes:
        if not is_standard(node) and node.op not in OPERATORS:
            text = f"{node.domain}.{node.op} is no ONNX operator, so TensorRT needs a plug-in for it"
            yield finding("contrib", node, text)


def bias(view: PairView) -> Iterator[Finding]:
    """Biases stay float."""
    for node in view.weighted:
        if len(node.inputs) > 2 and view.weight(node.inputs[2]) is not None:
            yield finding("bias", node, "its bias is quantized; TensorRT wants it in floating point")


def weight_float(view: PairView) -> Iterator[Finding]:
    """A layer with a quantized input has quantized weights."""
    for node in view.weighted:
        if view.pair(node.inputs[0]) is not None and view.graph.constant(node.inputs[1]) is not None:
            yield finding("weight-float", node, "its input is quantized and its weights are not, so it runs in float")


def input_float(view: PairView) -> Iterator[Finding]:
    """A layer with int8 weights has a quantized input."""
    for node in view.weighted:
        weight = view.weight(node.inputs[1])
        codes = view.codes(weight) if weight is not None else None
        other_type = codes is not None and codes.dtype.name not in {"int8", "uint8"}  # weight-only formats
        if weight is not None and not other_type and view.input_pair(node) is None:
            yield finding("input-float", node, "its weights are quantized and its input is not, so it runs in float")


def size(view: PairView) -> Iterator[Finding]:
    """Layers too small for int8 tensor cores stay float."""
    shapes = infer(view.structure)[0]
    for node in view.structure.nodes:
        if node.op not in {n.op for n in view.weighted} or not is_standard(node) or len(node.inputs) < 2:
            continue
        weight = view.structure.constant(node.inputs[1])
        if weight is None or not _quantized(view, node.name):
            continue
        limits, output = TENSORRT.sizes, shapes.get(node.outputs[0].name)
        reason = why_too_small(view.structure, node, weight.shape, limits, output)
        if reason:
            yield finding("size", node, reason)


def _quantized(view: PairView, name: str) -> bool:
    node = next(n for n in view.graph.nodes if n.name == name)
    return view.pair(node.inputs[0]) is not None and view.weight(node.inputs[1]) is not None


def attention(view: PairView) -> Iterator[Finding]:
    """Products of two activations stay float."""
    for node in view.weighted:
        if node.op == "MatMul" and all(view.pair(t) is not None for t in node.inputs[:2]):
            text = "a product of two activations is quantized; TensorRT has no fused int8 attention"
            yield finding("attention", node, text)
