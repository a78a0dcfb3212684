"""The int8 layers of a quantized graph: codes, scales and biases, to read and to write."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxopt.graph import Array, Graph, Node, Tensor
from onnxopt.placement.emit import BIAS_LIMIT
from onnxopt.placement.strip import dequantized
from onnxopt.placement.tail import FEATURE_OPS

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedLayer:
    """A weighted operator that reads a quantized activation and int8 weights, each behind a DequantizeLinear.

    Attributes:
        graph: Where it stands.
        node: Conv, ConvTranspose, Gemm or MatMul.
        axis: Axis of the weights that has the scales; None for one scale for all.
    """

    graph: Graph
    node: Node
    axis: int | None

    @property
    def output(self) -> str:
        """Name of the tensor it writes; the float model has one of that name too."""
        return str(self.node.outputs[0].name)

    @property
    def input(self) -> str:
        """Name of the tensor it reads, dequantized."""
        return str(self.node.inputs[0].name)

    @property
    def weights(self) -> Node:
        """The DequantizeLinear behind the weights' codes."""
        return _dequantize(self.graph, self.node, 1)

    @property
    def codes(self) -> Array:
        """Codes of the weights, int8."""
        return _value(self.graph, self.weights, 0)

    @property
    def scale(self) -> Float32Array:
        """Scales of the weights, float32, one per channel or a scalar."""
        return _value(self.graph, self.weights, 1)

    @property
    def channels(self) -> int:
        """How many output channels it has."""
        return int(self.codes.shape[0 if self.axis is None else self.axis])

    @property
    def may_have_bias(self) -> bool:
        """Whether a bias per output channel can be written."""
        if self.node.op == "Conv":
            return True
        plain = self.node.attrs.get("beta", 1.0) == 1.0
        return self.node.op == "Gemm" and plain and self.axis is not None and self._bias_fits()

    def _bias_fits(self) -> bool:
        bias = self.bias()
        return bias is None or bias.size == self.channels

    def bias(self) -> Float32Array | None:
        """Values of the bias, float32; None where there is none."""
        if len(self.node.inputs) < 3 or not self.node.inputs[2].name:
            return None
        value = self.graph.constant(self.node.inputs[2])
        if value is not None:
            return value
        source = self.graph.producer(self.node.inputs[2])
        codes = self.graph.constant(source.inputs[0]) if source is not None else None
        return dequantized(self.graph, source, codes) if source is not None and codes is not None else None

    def weight(self) -> Float32Array:
        """Values of the weights, float32."""
        value = dequantized(self.graph, self.weights, self.codes)
        assert value is not None
        return value

    def prepare(self, *, integer_bias: bool, with_bias: bool) -> None:
        """Give it constants that nobody else reads, and a bias of zeros where it has none, may have and shall have one.

        Args:
            integer_bias: Whether a new bias is int32 with the product of the scales of input and weights.
            with_bias: Whether it shall have one.
        """
        for index in (0, 1):
            self.graph.own_constant(self.weights, index)
        if self.bias() is None and with_bias and self.may_have_bias:
            self._add_bias(integer=integer_bias)
        source = self._bias_source()
        if source is not None:
            self.graph.own_constant(source, 0)
            self.graph.own_constant(source, 1)
        elif self.bias() is not None:
            self.graph.own_constant(self.node, 2)

    def set_weight(self, codes: Array, scale: Float32Array) -> None:
        """Write codes (int8, of the weights' shape) and scales; the zero points are 0 and stay."""
        self._write(self.weights, 0, codes)
        self._write(self.weights, 1, scale)

    def set_bias(self, bias: Float32Array) -> None:
        """Write values in the place of those of the bias, in the form that it has."""
        source = self._bias_source()
        if source is None:
            shape = _value(self.graph, self.node, 2).shape
            self._write(self.node, 2, bias.astype(np.float32).reshape(shape))
            return
        scale = self.bias_scale(bias.size)
        codes = np.rint(bias.reshape(-1).astype(np.float64) / scale)
        self._write(source, 0, np.clip(codes, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32))
        self._write(source, 1, scale)

    def bias_scale(self, count: int) -> Float32Array:
        """Step of an int32 bias: the product of the scales of input and weights, per channel."""
        step = np.float32(_value(self.graph, _dequantize(self.graph, self.node, 0), 1))
        return (np.broadcast_to(self.scale, (count,)) * step).astype(np.float32)

    def least_scale(self, bias: Float32Array | None) -> Float32Array | None:
        """Smallest scales of the weights at which a bias fits into 32 bits; None where there is no such limit."""
        if bias is None or self._bias_source() is None:
            return None
        step = np.float32(_value(self.graph, _dequantize(self.graph, self.node, 0), 1))
        return (np.abs(bias.reshape(-1)) / (step * BIAS_LIMIT)).astype(np.float32)

    def _bias_source(self) -> Node | None:
        """The DequantizeLinear of an int32 bias."""
        if len(self.node.inputs) < 3 or not self.node.inputs[2].name:
            return None
        source = self.graph.producer(self.node.inputs[2])
        return source if source is not None and source.op == "DequantizeLinear" else None

    def _add_bias(self, *, integer: bool) -> None:
        tensor: Tensor = self.graph.add_constant(f"{self.output}_bias", np.zeros(self.channels, np.float32))
        if integer:
            zeros, scale = np.zeros(self.channels, np.int32), self.bias_scale(self.channels)
            made = self.graph.add_node(
                "DequantizeLinear", [zeros, scale, zeros], {"axis": 0}, name=f"{self.output}_bias", before=self.node
            )
            tensor = made.outputs[0]
        if len(self.node.inputs) > 2:
            self.node.inputs[2] = tensor
        else:
            self.node.inputs.append(tensor)

    def _write(self, node: Node, index: int, values: Array) -> None:
        self.graph.own_constant(node, index).values = values


def find_layers(graph: Graph) -> list[QuantizedLayer]:
    """The int8 layers, in order of execution."""
    graph.sort()
    found = []
    for node in graph.nodes:
        if node.op not in FEATURE_OPS or len(node.inputs) < 2:
            continue
        reads, weights = (graph.producer(t) for t in node.inputs[:2])
        if reads is None or reads.op != "DequantizeLinear" or weights is None or weights.op != "DequantizeLinear":
            continue
        codes, scale = (graph.constant(t) for t in weights.inputs[:2])
        if codes is None or codes.dtype != np.int8 or scale is None or scale.ndim > 1:
            continue
        if len(graph.consumers(weights.outputs[0])) > 1:
            continue  # weights that serve two layers cannot be fitted to one
        axis = weights.attrs.get("axis", 1) % codes.ndim if scale.ndim == 1 else None
        found.append(QuantizedLayer(graph, node, axis))
    return found


def _dequantize(graph: Graph, node: Node, index: int) -> Node:
    producer = graph.producer(node.inputs[index])
    assert producer is not None
    return producer


def _value(graph: Graph, node: Node, index: int) -> Array:
    value = graph.constant(node.inputs[index])
    assert value is not None
    return value
