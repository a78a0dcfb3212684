"""Rules about the numbers in a pair: types, scales, zero points, axes, and the operator set that they need.

TensorRT reads symmetric quantization alone: integers of 8 bits with sign, zero point 0, positive constant scales, one
for an activation, one or one per output channel for a weight.
Source: NVIDIA TensorRT documentation, "Working with Quantized Types"; ONNX operator definitions for the opsets.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt.analysis.pairs import PairView
from onnxopt.analysis.shapes import infer
from onnxopt.analysis.tensorrt_rules.finding import Finding, finding
from onnxopt.graph import Node, Tensor

ACTIVATION_TYPES = frozenset({"int8", "float8_e4m3fn"})
WEIGHT_TYPES = frozenset({"int8", "int4", "float8_e4m3fn", "float4_e2m1fn"})
WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1}


def activation_type(view: PairView) -> Iterator[Finding]:
    """Activations are int8."""
    for node in view.quantizers:
        kind = view.type_of(node)
        if kind not in ACTIVATION_TYPES:
            yield finding(
                "activation-type", node, f"activations are {kind}; TensorRT takes int8 with zero point 0 only"
            )


def weight_type(view: PairView) -> Iterator[Finding]:
    """Weights are int8, or another signed type that TensorRT knows."""
    for node in view.weights:
        kind = view.type_of(node)
        if kind not in WEIGHT_TYPES and kind != "int32":
            yield finding("weight-type", node, f"weights are {kind}; TensorRT takes int8 with zero point 0 only")


def zero_point(view: PairView) -> Iterator[Finding]:
    """Every zero point is 0."""
    for node in [*view.quantizers, *view.weights]:
        zero = view.zero(node)
        known = ACTIVATION_TYPES if node.op == "QuantizeLinear" else WEIGHT_TYPES
        if zero is not None and view.type_of(node) in known and np.any(zero.astype(np.float32)):
            yield finding("zero-point", node, "the zero point is not 0; TensorRT quantizes symmetrically only")


def scale_constant(view: PairView) -> Iterator[Finding]:
    """Scales do not depend on the input."""
    for node in [*view.quantizers, *view.weights]:
        if view.scale(node) is None:
            yield finding("scale-constant", node, "the scale is computed at run time; TensorRT wants a constant")


def scale_positive(view: PairView) -> Iterator[Finding]:
    """Scales are positive and finite."""
    for node in [*view.quantizers, *view.weights]:
        scale = view.scale(node)
        if scale is not None and not bool(np.all((scale > 0) & np.isfinite(scale))):
            yield finding("scale-positive", node, "a scale is not positive and finite")


def activation_per_tensor(view: PairView) -> Iterator[Finding]:
    """An activation has one scale."""
    for node in view.quantizers:
        scale = view.scale(node)
        if scale is not None and scale.size > 1:
            yield finding("activation-per-tensor", node, "an activation has a scale per channel; TensorRT wants one")


def pair_parameters(view: PairView) -> Iterator[Finding]:
    """A DQ undoes its Q."""
    for node in view.dequantizers:
        quantize = view.quantizer(node)
        assert quantize is not None
        first, second = view.scale(quantize), view.scale(node)
        if first is not None and second is not None and not np.array_equal(first, second):
            yield finding("pair-parameters", node, "Q and DQ of one tensor have different scales")


def unpaired(view: PairView) -> Iterator[Finding]:
    """Integers go from a Q into DQs and nowhere else."""
    for node in view.quantizers:
        others = [n for n in view.graph.consumers(node.outputs[0]) if n.op != "DequantizeLinear"]
        if others or view.graph.is_output(node.outputs[0]):
            where = others[0].op if others else "a graph output"
            yield finding("unpaired", node, f"its integers are read by {where}, not by a DequantizeLinear")
    paired = {id(n) for n in [*view.dequantizers, *view.weights]}
    for node in view.every():
        if node.op == "DequantizeLinear" and id(node) not in paired:
            yield finding("unpaired", node, "its integers come from no QuantizeLinear and are no constant")


def weight_scale_length(view: PairView) -> Iterator[Finding]:
    """A weight has one scale, or one for each index of its axis."""
    for node in view.weights:
        if not _length_fits(view, node):
            yield finding("weight-scale-length", node, "the number of scales differs from the number of channels")


def weight_axis(view: PairView) -> Iterator[Finding]:
    """Scales of a weight run along its output channels."""
    for node, user in _weights_of_layers(view):
        axis = _axis(view, node)
        scale = view.scale(node)
        if (
            axis is None
            or user.op == "ConvTranspose"
            or not _length_fits(view, node)
            or scale is None
            or scale.ndim != 1
        ):
            continue
        wanted = _channel_axis(user, _rank(view, node))
        if axis % _rank(view, node) != wanted:
            text = f"weights of {user.op} have scales along axis {axis}; output channels are axis {wanted}"
            yield finding("weight-axis", node, text)


def deconv_per_tensor(view: PairView) -> Iterator[Finding]:
    """ConvTranspose has one scale for all its weights."""
    for node, user in _weights_of_layers(view):
        scale = view.scale(node)
        if user.op == "ConvTranspose" and scale is not None and scale.size > 1 and _length_fits(view, node):
            text = "ConvTranspose has a scale per channel; int8 kernels for that are fragile, use one scale"
            yield finding("deconv-per-tensor", node, text)


def weight_range(view: PairView) -> Iterator[Finding]:
    """int8 weights leave out -128."""
    for node in view.weights:
        codes = view.codes(node)
        if codes is not None and codes.dtype == np.int8 and codes.size and codes.min() == -128:
            yield finding("weight-range", node, "a weight is -128; symmetric int8 weights run from -127 to 127")


def opset_pairs(view: PairView) -> Iterator[Finding]:
    """Q and DQ exist from opset 10 on."""
    if view.graph.opset < 10:
        for node in view.every():
            yield finding("opset-pairs", node, f"Q/DQ need opset 10, the model has {view.graph.opset}")


def opset_axis(view: PairView) -> Iterator[Finding]:
    """Scales per channel exist from opset 13 on."""
    for node in view.weights if 10 <= view.graph.opset < 13 else ():
        scale = view.scale(node)
        if scale is not None and scale.size > 1:
            yield finding("opset-axis", node, f"scales per channel need opset 13, the model has {view.graph.opset}")


def opset_scale(view: PairView) -> Iterator[Finding]:
    """Scales in half precision exist from opset 19 on."""
    for node in view.every() if view.graph.opset < 19 else ():
        scale = view.scale(node)
        if scale is not None and scale.dtype != np.float32:
            yield finding("opset-scale", node, f"{scale.dtype} scales need opset 19, the model has {view.graph.opset}")


def opset_int4(view: PairView) -> Iterator[Finding]:
    """Four-bit integers exist from opset 21 on."""
    for node in view.every() if view.graph.opset < 21 else ():
        if view.type_of(node) in {"int4", "uint4"}:
            yield finding("opset-int4", node, f"4-bit integers need opset 21, the model has {view.graph.opset}")


def scale_type(view: PairView) -> Iterator[Finding]:
    """A Q reads the type of its scale: networks are strongly typed."""
    types = infer(view.graph)[1]
    for node in view.quantizers if view.graph.opset >= 19 else ():
        scale, kind = view.scale(node), types.get(node.inputs[0].name)
        if scale is not None and kind is not None and np.dtype(kind) != scale.dtype:
            text = f"its input is {np.dtype(kind).name} and its scale {scale.dtype.name}; give both one type"
            yield finding("scale-type", node, text)


def _weights_of_layers(view: PairView) -> Iterator[tuple[Node, Node]]:
    """Each DQ of a weight with the layer that reads it."""
    for layer in view.weighted:
        for tensor in layer.inputs[:2]:
            node = view.weight(tensor)
            if node is not None:
                yield node, layer


def _axis(view: PairView, node: Node) -> int | None:
    scale = view.scale(node)
    return int(node.attrs.get("axis", 1)) if scale is not None and scale.size > 1 else None


def _rank(view: PairView, node: Node) -> int:
    return len(_codes_shape(view, node))


def _codes_shape(view: PairView, node: Node) -> tuple[int, ...]:
    quantize = view.quantizer(node)
    source: Tensor = node.inputs[0] if quantize is None else quantize.inputs[0]
    values = view.graph.constant(source)
    assert values is not None
    return values.shape


def _length_fits(view: PairView, node: Node) -> bool:
    axis, shape = _axis(view, node), _codes_shape(view, node)
    scale = view.scale(node)
    if axis is None or scale is None or scale.ndim == len(shape) > 1:  # one scale, or one per block
        return True
    return -len(shape) <= axis < len(shape) and shape[axis] == scale.size


def _channel_axis(layer: Node, rank: int) -> int:
    if layer.op == "Gemm":
        return 0 if layer.attrs.get("transB") else 1
    return WEIGHT_AXES.get(layer.op, rank - 1)
