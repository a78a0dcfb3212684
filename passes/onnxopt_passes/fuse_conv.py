"""Fold constant scales, shifts and padding into the weighted operator beside them.

With W the weight, b the bias, s and t one number per channel:

1. Behind Conv, ConvTranspose and Gemm: BatchNormalization, and Mul, Div, Add, Sub by a constant per output channel:
   (W x + b) s + t = (s W) x + (s b + t). BatchNormalization is s = scale / sqrt(var + epsilon), t = shift - mean s.
2. Behind MatMul by a constant: scales likewise; a shift only where the other operand is a matrix, when the MatMul
   becomes a Gemm.
3. Before Conv, Gemm and MatMul: the same per input channel: W (s x + t) + b = (W s) x + (W t + b). A shift only
   where the Conv does not pad, for padding adds zeros behind the shift; ConvTranspose takes only scales.
4. Before Conv: Pad with zeros along height and width becomes the Conv's own padding.

Weights are computed in double precision and rounded once. A weight that others read too is copied first. Left
alone, with the reason: an operator whose output others read or that is a graph output; weights and statistics that
are not constant; constants that differ from place to place; results that are not finite.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxopt import Context, Graph, Pass
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Array, Node, Tensor, is_standard, label

ANCHORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ARITHMETIC = ("Mul", "Div", "Add", "Sub")


class FuseConv(Pass):
    """Fold BatchNormalization, constant Mul, Div, Add, Sub and Pad into Conv, ConvTranspose, Gemm and MatMul.

    When to use it: before quantizing or pruning, which want one weight per layer. `simplify` runs it for you.

    Example:
        before: `a = Conv (x, w)`, `y = BatchNormalization (a, scale, shift, mean, var)`
        after:  `y = Conv (x, w', b')`

    Effect: rounding. The same sums with weights rounded once more.
    """

    name = "fuse-conv"
    effect = "rounding"

    def run(self, graph: Graph, context: Context) -> bool:
        """Followers in order of execution, so that chains fold one by one; then what stands before."""
        graph.sort()
        shapes = context.get(Shapes)
        fused = 0
        for node in graph.nodes_of("BatchNormalization", *ARITHMETIC):
            if is_standard(node) and "axis" not in node.attrs:  # an attribute of opset 6, which broadcast otherwise
                fused += _fuse_behind(graph, node, shapes, context)
        for anchor in graph.nodes_of(*ANCHORS):
            while is_standard(anchor) and _fuse_before(graph, anchor, shapes, context):
                fused += 1
        if fused:
            context.count("nodes fused", fused)
        return bool(fused)


class _LeftAloneError(Exception):
    """Why something is left alone."""


@dataclass(frozen=True)
class _Channels:
    """How many channels, on which axis of tensors of which rank."""

    count: int
    rank: int | None
    axis: int


@dataclass(frozen=True)
class _Affine:
    """x * scale + shift, one number per channel, in double precision."""

    scale: Array
    shift: Array


def _fuse_behind(graph: Graph, node: Node, shapes: Shapes, context: Context) -> bool:
    """Fold a scale or shift into the operator whose output it reads."""
    anchor, place = _anchor_of(graph, node)
    if anchor is None:
        return False
    try:
        layer = _Layer(graph, anchor, shapes)
        affine = _affine(graph, node, place, layer.outputs)
        _sole_reader(graph, anchor.outputs[0], label(anchor))
        layer.apply_behind(affine)
    except _LeftAloneError as reason:
        context.note(node, str(reason))
        return False
    output = node.outputs[0]
    graph.remove(node)
    anchor.outputs[0] = output
    return True


def _anchor_of(graph: Graph, node: Node) -> tuple[Node | None, int]:
    """The weighted operator whose output a node combines with constants, and which input that is."""
    places = (0,) if node.op == "BatchNormalization" else (0, 1)
    for place in places:
        producer = graph.producer(node.inputs[place])
        if producer is not None and producer.op in ANCHORS and is_standard(producer):
            others = node.inputs[1:] if node.op == "BatchNormalization" else [node.inputs[1 - place]]
            if node.op == "BatchNormalization" or all(graph.constant(t) is not None for t in others):
                return producer, place
    return None, 0


def _sole_reader(graph: Graph, tensor: Tensor, what: str) -> None:
    if graph.is_output(tensor):
        raise _LeftAloneError(f"what {what} computes is a graph output")
    if len(tensor.outputs) > 1:
        raise _LeftAloneError(f"what {what} computes is read by {len(tensor.outputs)} nodes")


def _fuse_before(graph: Graph, anchor: Node, shapes: Shapes, context: Context) -> bool:
    """Fold a scale, shift or padding into the operator that reads it."""
    node = graph.producer(anchor.inputs[0])
    if node is None or not is_standard(node) or node.op not in (*ARITHMETIC, "BatchNormalization", "Pad"):
        return False
    place = 0
    if node.op in ARITHMETIC:
        values = [graph.constant(t) for t in node.inputs]
        if (values[0] is None) == (values[1] is None):
            return False
        place = 0 if values[0] is None else 1
    try:
        if node.op == "Pad":
            pads = _merged_pads(graph, node, anchor, shapes.rank(anchor.inputs[1]))
            _sole_reader(graph, node.outputs[0], label(node))
            anchor.attrs.pop("auto_pad", None)
            anchor.attrs["pads"] = pads
        else:
            layer = _Layer(graph, anchor, shapes)
            affine = _affine(graph, node, place, layer.inputs)
            _not_widened(node.inputs[place], layer.inputs, shapes)
            _sole_reader(graph, node.outputs[0], label(node))
            layer.apply_before(affine)
    except _LeftAloneError as reason:
        context.note(node, str(reason))
        return False
    anchor.inputs[0] = node.inputs[place]
    graph.remove(node)
    return True


def _not_widened(source: Tensor, channels: _Channels, shapes: Shapes) -> None:
    """A constant may also widen its operand; then it cannot go."""
    shape = shapes.shape(source)
    if shape is None or channels.rank not in (None, len(shape)) or shape[channels.axis] != channels.count:
        raise _LeftAloneError("how many channels it reads is not known")


def _affine(graph: Graph, node: Node, place: int, channels: _Channels) -> _Affine:
    """Scale and shift of a node on the channels of its input `place`."""
    if node.op == "BatchNormalization":
        if channels.rank is None or channels.axis % channels.rank != 1:
            raise _LeftAloneError("its channels are not those of the weight")
        return _normalization(graph, node)
    value = graph.constant(node.inputs[1 - place])
    assert value is not None
    per_channel = _per_channel(value, channels)
    ones, zeros = np.ones(channels.count), np.zeros(channels.count)
    if node.op == "Mul":
        return _Affine(per_channel, zeros)
    if node.op == "Add":
        return _Affine(ones, per_channel)
    if node.op == "Sub":
        return _Affine(ones, -per_channel) if place == 0 else _Affine(-ones, per_channel)
    if place == 1:
        raise _LeftAloneError("it divides by the activation")
    if not per_channel.all():
        raise _LeftAloneError("it divides by 0")
    return _Affine(1 / per_channel, zeros)


def _normalization(graph: Graph, node: Node) -> _Affine:
    values = [graph.constant(t) for t in node.inputs[1:5]]
    scale, shift, mean, var = (None if v is None else v.astype(np.float64) for v in values)
    if scale is None or shift is None or mean is None or var is None:
        raise _LeftAloneError("its statistics are not constant")
    trained = node.attrs.get("training_mode", 0) or (graph.opset < 7 and not node.attrs.get("is_test", 0))
    if trained or any(t.name for t in node.outputs[1:]) or not node.attrs.get("spatial", 1):
        raise _LeftAloneError("it normalizes by the batch at hand, not by stored statistics")
    spread = var + np.float32(node.attrs.get("epsilon", 1e-5)).astype(np.float64)
    if not (spread > 0).all():
        raise _LeftAloneError("its variance is not positive")
    factor = scale / np.sqrt(spread)
    return _Affine(factor, shift - mean * factor)


def _per_channel(value: Array, channels: _Channels) -> Array:
    """A constant operand as one number per channel.

    Raises:
        _LeftAloneError: It varies along another axis, or widens its operand.
    """
    rank = 1 if channels.rank is None else channels.rank
    if value.ndim > rank:
        raise _LeftAloneError("the constant may widen what it is combined with")
    if value.size == 1:
        return np.full(channels.count, float(value.ravel()[0]))
    behind = channels.axis - rank if channels.axis >= 0 else channels.axis  # counted from the end
    if value.ndim < -behind or value.shape[behind] != channels.count or value.size != channels.count:
        raise _LeftAloneError("the constant is not one number per channel")
    return value.astype(np.float64).ravel()


class _Layer:
    """A weighted operator, its channels, and how to scale and shift them.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.

    Raises:
        _LeftAloneError: Weight or bias is not constant, or of a type that is not computed here.
    """

    def __init__(self, graph: Graph, node: Node, shapes: Shapes) -> None:
        self._graph = graph
        self._node = node
        self._group: int = node.attrs.get("group", 1)
        self._weight = self._constant(1)
        if self._weight.dtype.kind != "f" or self._weight.ndim < 2:
            raise _LeftAloneError(f"the weight of {label(node)} is no matrix of floats")
        shape = self._weight.shape
        convolution = node.op in {"Conv", "ConvTranspose"}
        rank = len(shape) if convolution else shapes.rank(node.inputs[0])
        inputs, outputs = {
            "Conv": (shape[1] * self._group, shape[0]),
            "ConvTranspose": (shape[0], shape[1] * self._group),
            "Gemm": shape[::-1] if node.attrs.get("transB", 0) else shape,
            "MatMul": shape[-2:],
        }[node.op]
        self.inputs, self.outputs = (_Channels(n, rank, 1 if convolution else -1) for n in (inputs, outputs))

    def _constant(self, place: int) -> Array:
        value = self._graph.constant(self._node.inputs[place])
        if value is None:
            raise _LeftAloneError(f"the {'weight' if place == 1 else 'bias'} of {label(self._node)} is not constant")
        return value

    def apply_behind(self, affine: _Affine) -> None:
        """Weight and bias with a scale and shift per output channel folded in."""
        self._store(self._scaled(affine.scale, self._along_outputs), self._bias() * affine.scale + affine.shift)

    def apply_before(self, affine: _Affine) -> None:
        """Weight and bias with a scale and shift per input channel folded in."""
        if affine.shift.any() and not self._takes_shift():
            raise _LeftAloneError("a shift before padding cannot go behind it")
        if self._node.attrs.get("transA", 0):
            raise _LeftAloneError(f"{label(self._node)} transposes its input")
        bias = self._bias() + self._summed(affine.shift) if affine.shift.any() else self._bias()
        self._store(self._scaled(affine.scale, self._along_inputs), bias)

    def _scaled(self, scale: Array, along: Callable[[Array], Array]) -> Array | None:
        """The weight scaled in double precision; None where it stays (a large one is not copied for nothing)."""
        return None if (scale == 1).all() else self._weight.astype(np.float64) * along(scale)

    def _along_outputs(self, values: Array) -> Array:
        if self._node.op == "Gemm":
            return values[:, None] if self._node.attrs.get("transB", 0) else values
        if self._node.op == "MatMul":
            return values
        if self._node.op == "Conv":
            return values.reshape(-1, *[1] * (self._weight.ndim - 1))
        rows = np.repeat(values.reshape(self._group, -1), self._weight.shape[0] // self._group, axis=0)
        return rows.reshape(*self._weight.shape[:2], *[1] * (self._weight.ndim - 2))

    def _along_inputs(self, values: Array) -> Array:
        if self._node.op == "Gemm":
            return values if self._node.attrs.get("transB", 0) else values[:, None]
        if self._node.op == "MatMul":
            return values[:, None]
        if self._node.op == "ConvTranspose":
            return values.reshape(-1, *[1] * (self._weight.ndim - 1))
        rows = np.repeat(values.reshape(self._group, -1), self._weight.shape[0] // self._group, axis=0)
        return rows.reshape(*self._weight.shape[:2], *[1] * (self._weight.ndim - 2))

    def _takes_shift(self) -> bool:
        attrs = self._node.attrs
        padded = any(attrs.get("pads", [])) or attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
        return self._node.op in {"Gemm", "MatMul"} or (self._node.op == "Conv" and not padded)

    def _summed(self, shift: Array) -> Array:
        """What a shift of the inputs adds to each output."""
        product = self._weight.astype(np.float64) * self._along_inputs(shift)
        if self._node.op == "Conv":
            return np.asarray(product.reshape(self.outputs.count, -1).sum(axis=1))
        if product.ndim > 2:
            raise _LeftAloneError("its weight is a stack of matrices")
        transposed = self._node.op == "Gemm" and self._node.attrs.get("transB", 0)
        return np.asarray(product.sum(axis=1 if transposed else 0) * self._node.attrs.get("alpha", 1.0))

    def _bias(self) -> Array:
        """The bias, beta included, as one number per output channel."""
        if len(self._node.inputs) < 3 or not self._node.inputs[2].name:
            return np.zeros(self.outputs.count)
        bias = self._constant(2).astype(np.float64)
        if bias.ndim > 1 and prod(bias.shape[:-1]) != 1:
            raise _LeftAloneError(f"the bias of {label(self._node)} is not one number per channel")
        bias = np.broadcast_to(bias.reshape(-1), (self.outputs.count,))
        return np.asarray(bias * self._node.attrs.get("beta", 1.0)) if self._node.op == "Gemm" else bias

    def _store(self, weight: Array | None, bias: Array) -> None:
        dtype = self._weight.dtype
        with np.errstate(over="ignore"):
            values, offsets = None if weight is None else weight.astype(dtype), bias.astype(dtype)
        if not np.isfinite(offsets).all() or (values is not None and not np.isfinite(values).all()):
            raise _LeftAloneError("the weights would not be finite")
        node = self._node
        if node.op == "MatMul" and offsets.any():
            if self.outputs.rank != 2 or self._weight.ndim != 2:
                raise _LeftAloneError("only a MatMul of two matrices takes a bias")
            node.op = "Gemm"
        if values is not None:
            self._graph.own_constant(node, 1).values = values
        if len(node.inputs) > 2 and node.inputs[2].name:
            self._graph.own_constant(node, 2).values = offsets
        elif offsets.any():
            vector = self._graph.add_constant(f"{node.inputs[1].name}_bias", offsets)
            node.inputs = [*node.inputs[:2], vector]
        if "beta" in node.attrs:
            node.attrs["beta"] = 1.0


def _merged_pads(graph: Graph, node: Node, anchor: Node, rank: int | None) -> list[int]:
    """Padding of a Conv with that of the Pad before it added.

    Raises:
        _LeftAloneError: The Pad does something else than add zeros along height and width.
    """
    if anchor.op != "Conv":
        raise _LeftAloneError(f"{anchor.op} does not pad its input")
    if node.attrs.get("mode", "constant") != "constant":
        raise _LeftAloneError("it does not pad with a constant")
    given = len(node.inputs) > 2 and node.inputs[2].name
    value = graph.constant(node.inputs[2]) if given else node.attrs.get("value", 0.0)
    if value is None or np.any(value):
        raise _LeftAloneError("it does not pad with zeros")
    if anchor.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise _LeftAloneError(f"{label(anchor)} chooses its padding itself")
    pads = _pads_per_axis(graph, node, rank)
    if any(a or b for a, b in pads[:2]) or any(a < 0 or b < 0 for a, b in pads):
        raise _LeftAloneError("it pads other axes than height and width, or cuts off")
    own = list(anchor.attrs.get("pads", [0] * (2 * len(pads[2:]))))
    added = [a for a, _ in pads[2:]] + [b for _, b in pads[2:]]
    return [a + b for a, b in zip(own, added, strict=True)]


def _pads_per_axis(graph: Graph, node: Node, rank: int | None) -> list[tuple[int, int]]:
    """Padding at both ends of each axis of the input of a Conv."""
    values = np.array(node.attrs["pads"]) if "pads" in node.attrs else graph.constant(node.inputs[1])
    listed = len(node.inputs) > 3 and bool(node.inputs[3].name)
    axes = graph.constant(node.inputs[3]) if listed else np.arange(rank or 0)
    if values is None or axes is None or rank is None:
        raise _LeftAloneError("its padding is not constant")
    before, after = values.reshape(2, -1).tolist()
    by_axis = dict(zip((axes % rank).tolist(), zip(before, after, strict=True), strict=True))
    return [by_axis.get(axis, (0, 0)) for axis in range(rank)]
