"""Writing a placement into a graph: Q/DQ pairs, int8 weights, int32 biases.

1. Activations: one QuantizeLinear and one DequantizeLinear behind each tensor of the placement. An int8 kernel's
   output is read through the pair by everyone (a float reader beside it would break the fusion); a float operator's
   output is read through it by int8 operators only.
2. Weights: int8, symmetric, one scale per output channel, behind a DequantizeLinear.
3. Biases, where the target wants it: int32 with scale s_x * s_w. Where that scale is so small that a bias would not
   fit into 32 bits, the weight's scale is raised until it does. The bias of a layer that reads a shifted tensor
   (`Shifts`) takes the shift away as int8 sees it: s W 1 becomes fq(s) fq(W) 1.
4. A layer that stays float between a quantized input and a quantized output gets its input through a per-channel
   DequantizeLinear of equal scales: ONNX Runtime would otherwise quantize it behind our back
   (`WeightBiasQuantization`). Elsewhere it reads the float value. Likewise the Q behind a float operator that it must
   not move before (`Target.unmoved`) has its one scale once per channel.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.calibration.given import METHOD, GivenRanges
from onnxopt.calibration.parameters import channel_parameters, integer_limits, quantization_parameters
from onnxopt.calibration.table import CalibrationTable
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, Variable
from onnxopt.kernels import quantize_linear
from onnxopt.placement.plan import Placement
from onnxopt.placement.shifts import Shifts
from onnxopt.placement.tail import FEATURE_OPS
from onnxopt.targets import Target

BIAS_LIMIT = 2**31 - 2**16  # codes; the accumulator needs room beside the bias


def emit(
    graph: Graph,
    target: Target,
    placement: Placement,
    table: CalibrationTable,
    given: GivenRanges | None = None,
    shifts: Shifts | None = None,
) -> None:
    """Quantize a graph in place.

    Args:
        graph: The float model that `placement` was planned on.
        target: Number formats and policies.
        placement: What to quantize.
        table: Ranges of all tensors of the placement.
        given: How weights were stored in the quantized model that this was; their scales stay where they fit.
        shifts: What was added to tensors.

    Raises:
        UsageError: A range is missing (names the tensor).
    """
    _Emitter(graph, target, placement, table, given or GivenRanges(), shifts or Shifts()).run()


def group_parameters(target: Target, placement: Placement, table: CalibrationTable, group: str) -> tuple[Array, Array]:
    """Scale (float32 scalar) and zero point (integer scalar) that serve all tensors of a group.

    Raises:
        UsageError: A range is missing (names the tensor).
    """
    low, high = _range(placement, table, group)
    kind = target.format_from(low)
    scale, zero = quantization_parameters(low, high, dtype=kind.dtype, symmetric=kind.symmetric, limit=kind.limit)
    return np.asarray(scale, np.float32), np.asarray(zero, kind.dtype)


def _range(placement: Placement, table: CalibrationTable, group: str) -> tuple[float, float]:
    """The range of a group, zero in it; that of its wider group if that costs the group no more than one bit.

    What a quantized model came with stays as it is, for its weights may have been trained with it.
    """
    members = [t for t in placement.tensors.values() if t.group == group]
    wider = members[0].wider
    own, whole = (
        (min(0.0, *(table[t.name].low for t in tensors)), max(0.0, *(table[t.name].high for t in tensors)))
        for tensors in (
            members,
            [t for t in placement.tensors.values() if t.wider == wider],
        )
    )
    given = any(table[t.name].method == METHOD for t in members)
    return whole if not given and whole[1] - whole[0] <= 2 * (own[1] - own[0]) else own


@dataclass(frozen=True)
class _Codes:
    """A constant as integers: `values`, and scale and zero point per channel of `axis` (None: one for all)."""

    values: Array
    scale: Array
    zeros: Array
    axis: int | None


class _Emitter:
    def __init__(
        self,
        graph: Graph,
        target: Target,
        placement: Placement,
        table: CalibrationTable,
        given: GivenRanges,
        shifts: Shifts,
    ) -> None:
        self.graph, self.target, self.placement, self.table = graph, target, placement, table
        self.given, self.shifts = given, shifts
        self.scales: dict[str, tuple[Constant, Constant]] = {}
        self.tensors = graph.tensors()

    def run(self) -> None:
        users = {name: self._readers(name) for name in self.placement.tensors}
        nodes = {n.outputs[0].name: n for n in self.graph.nodes}
        for name, readers in users.items():
            self._activation(name, readers)
        for weight in self.placement.weights:
            self._weights(nodes[weight.node], weight.index, weight.axis)

    def _readers(self, name: str) -> list[Node]:
        tensor = self.tensors[name]
        consumers = self.graph.consumers(tensor)
        if not self.placement.tensors[name].native:
            return [n for n in consumers if id(n) in self.placement.consumers]
        readers = [n for n in consumers if self.target.requantizes_float or not self._is_float_layer(n)]
        return [n for n in readers if not (self.target.reads_pairs and self._multiplies_by_a_map(n))]

    def _multiplies_by_a_map(self, node: Node) -> bool:
        """Whether it is a product with a constant of several numbers, through which scales and zero points move."""
        constants = [self.graph.constant(t) for t in node.inputs] if node.op == "Mul" else []
        return any(value is not None and value.size > 1 for value in constants)

    def _is_float_layer(self, node: Node) -> bool:
        return node.op in FEATURE_OPS and id(node) not in self.placement.consumers

    def parameters(self, name: str) -> tuple[Constant, Constant]:
        """Scale and zero point of a tensor: float32 scalar and integer scalar, shared within its group."""
        group = self.placement.tensors[name].group
        if group not in self.scales:
            scale, zero = group_parameters(self.target, self.placement, self.table, group)
            self.scales[group] = (
                self.graph.add_constant(f"{group}_scale", scale),
                self.graph.add_constant(f"{group}_zero_point", zero),
            )
        return self.scales[group]

    def _activation(self, name: str, readers: list[Node]) -> None:
        tensor = self.tensors[name]
        scale, zero = self.parameters(name)
        codes = Variable(self.graph.unique_name(f"{name}_quantized"))
        values = Variable(self.graph.unique_name(f"{name}_dequantized"))
        first = readers[0] if readers else None
        channels = self.placement.tensors[name].channels
        repeated = [np.repeat(t.values, channels) for t in (scale, zero)] if channels is not None else [scale, zero]
        self.graph.add_node(
            "QuantizeLinear",
            [tensor, *repeated],
            {"axis": 1} if channels is not None else {},
            outputs=[codes],
            name=f"{name}_QuantizeLinear",
            before=first,
        )
        self.graph.add_node(
            "DequantizeLinear", [codes, scale, zero], outputs=[values], name=f"{name}_DequantizeLinear", before=first
        )
        self.graph.replace_uses(tensor, values, readers)
        for reader in readers:
            if self._would_be_quantized(reader):
                self._read_per_channel(reader, codes, values)

    def _would_be_quantized(self, node: Node) -> bool:
        """Whether ONNX Runtime would turn this float layer into int8 behind our back."""
        if not self.target.requantizes_float or node.op != "Conv" or id(node) in self.placement.consumers:
            return False
        return self.graph.constant(node.inputs[1]) is not None and id(node) not in self.placement.final

    def _read_per_channel(self, node: Node, codes: Tensor, values: Tensor) -> None:
        weight = self.graph.constant(node.inputs[1])
        dequantize = self.graph.producer(values)
        assert weight is not None
        assert dequantize is not None
        channels = weight.shape[1] * node.attrs.get("group", 1)
        scale, zero = (np.repeat(np.asarray(self.graph.constant(t)), channels) for t in dequantize.inputs[1:3])
        own = self.graph.add_node(
            "DequantizeLinear", [codes, scale, zero], {"axis": 1}, name=f"{node.name}_input", before=node
        )
        self.graph.replace_uses(values, own.outputs[0], [node])

    def _weights(self, node: Node, index: int, axis: int | None) -> None:
        weight = self.graph.constant(node.inputs[index])
        assert weight is not None
        known = self.given.weight_scale(weight, axis, self.target.weight)
        scale = known if known is not None else self._weight_scale(weight, axis)
        has_bias = node.op in {"Conv", "Gemm"} and len(node.inputs) > 2 and bool(node.inputs[2].name)
        bias = self.graph.constant(node.inputs[2]) if has_bias else None
        step = self._input_scale(node) if self.target.int32_bias and bias is not None and axis is not None else None
        if bias is not None and step is not None:
            scale = np.maximum(scale, (np.abs(bias).reshape(-1) / (step * BIAS_LIMIT)).astype(np.float32))
        # A given scale may have been made for codes down to -128; one more code is kept if so.
        low, high = integer_limits(self.target.weight.dtype, symmetric=known is None, limit=self.target.weight.limit)
        zeros = np.zeros(scale.shape, np.int8)
        codes = _Codes(quantize_linear(weight, scale, zeros, qmin=low, qmax=high, axis=axis), scale, zeros, axis)
        source = self._source(node)
        if bias is not None and source in self.shifts.by:
            bias = bias + self._shift_error(source, weight, codes)
            self.graph.own_constant(node, 2).values = bias
        if bias is not None and step is not None:
            self._bias(node, bias, (scale * np.float32(step)).astype(np.float32))
        self._dequantized(node, index, codes)

    def _source(self, node: Node) -> str:
        """Name of the tensor that an int8 layer reads through its pair."""
        dequantize = self.graph.producer(node.inputs[0])
        assert dequantize is not None
        quantize = self.graph.producer(dequantize.inputs[0])
        assert quantize is not None
        return str(quantize.inputs[0].name)

    def _shift_error(self, name: str, weight: Array, codes: _Codes) -> Array:
        """What a shift contributes in float less what it contributes in int8, float32[channels of a Conv]."""
        shift, (scale, zero) = self.shifts.by[name], (t.values for t in self.parameters(name))
        limits = np.iinfo(zero.dtype)
        as_code = quantize_linear(np.array([shift], np.float32), scale, zero, qmin=limits.min, qmax=limits.max)
        seen = (float(as_code[0]) - float(zero)) * float(scale)
        rows = codes.values.reshape(len(weight), -1).sum(axis=1, dtype=np.float64) * codes.scale
        exact = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.float64)
        return np.asarray(shift * exact - seen * rows, np.float32)

    def _weight_scale(self, weight: Array, axis: int | None) -> Array:
        axes = tuple(a for a in range(weight.ndim) if a != axis)
        high = np.abs(weight).max(axis=axes if axis is not None else None)
        kind = self.target.weight
        return channel_parameters(-high, high, dtype=kind.dtype, symmetric=True, limit=kind.limit)[0]

    def _input_scale(self, node: Node) -> np.float32:
        producer = self.graph.producer(node.inputs[0])
        assert producer is not None
        scale = self.graph.constant(producer.inputs[1])
        assert scale is not None
        return np.float32(scale)

    def _bias(self, node: Node, bias: Array, scale: Array) -> None:
        flat = np.broadcast_to(bias.reshape(-1), scale.shape)
        known = self.given.bias_codes(bias, scale)
        exact = np.rint(flat.astype(np.float64) / scale.astype(np.float64)).astype(np.int32)
        codes = exact if known is None else known
        self._dequantized(node, 2, _Codes(codes, scale, np.zeros(scale.shape, np.int32), 0))

    def _dequantized(self, node: Node, index: int, codes: _Codes) -> None:
        """Put the codes and a DequantizeLinear in the place of a constant."""
        name = node.inputs[index].name
        output = Variable(self.graph.unique_name(f"{name}_dequantized"))
        self.graph.add_node(
            "DequantizeLinear",
            [
                self.graph.add_constant(f"{name}_quantized", codes.values),
                self.graph.add_constant(f"{name}_scale", codes.scale),
                self.graph.add_constant(f"{name}_zero_point", codes.zeros),
            ],
            {} if codes.axis is None else {"axis": codes.axis},
            outputs=[output],
            name=f"{name}_DequantizeLinear",
            before=node,
        )
        node.inputs[index] = output
