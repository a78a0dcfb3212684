"""What Q/DQ pairs of a given model said: ranges of activations, and how constants were stored.

A range is kept as the span of a pair, [(qmin - z) s, (qmax - z) s], in float64, where it is exact; the parameters that
`calibration.parameters` makes of it for the same number format are therefore s and z again, bit for bit. For another
format:

1. int8 <-> uint8, both asymmetric or with the zero point in the middle: the same scale, the zero point 128 further.
2. To an asymmetric format, what the operators before the tensor cannot reach is cut off (`calibration.bounds`): a
   symmetric range behind a Relu loses its lower half and gains a bit.
3. To a symmetric format: the larger end on both sides.

Ranges spread to neighbours that hold the same values (`spread`), so that they reach the tensors that another target
wants: forward through functions of one variable and operators that move values, backward through the latter.

Constants are found by their values, not by name: what a pass has changed since is not found, and gets new parameters.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from onnxopt.calibration.bounds import value_bounds
from onnxopt.calibration.derive import elementwise
from onnxopt.calibration.table import CalibrationEntry
from onnxopt.graph import Array, Graph, Node
from onnxopt.pass_api import Context
from onnxopt.targets import NumberFormat

METHOD = "given"
_NARROW = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}
_FLOAT8 = {"float8_e4m3fn": 448, "float8_e4m3fnuz": 240, "float8_e5m2": 57344, "float8_e5m2fnuz": 57344}
_SAME = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Dropout"})
_MOVES = _SAME | {"DepthToSpace", "SpaceToDepth", "Slice", "Split", "Gather"}


@dataclass(frozen=True)
class GivenRange:
    """The range of an activation.

    Attributes:
        low: Lower end, <= 0.
        high: Upper end, >= 0.
        dtype: Integers of the pair, numpy's name; "" where the range follows from others.
        symmetric: Whether the zero point was in the middle.
    """

    low: float
    high: float
    dtype: str = ""
    symmetric: bool = False

    def joined(self, other: "GivenRange") -> "GivenRange":
        """A range that holds both."""
        return GivenRange(
            min(self.low, other.low),
            max(self.high, other.high),
            self.dtype if self.dtype == other.dtype and (self.low, self.high) == (other.low, other.high) else "",
            self.symmetric and other.symmetric,
        )


@dataclass(frozen=True)
class GivenCodes:
    """How a constant was stored.

    Attributes:
        scale: float32, scalar or [channels].
        zeros: Zero points, shape of `scale`.
        dtype: Type of the integers, numpy's name.
        axis: Of the channels; None for one scale.
        codes: The integers; None where the file holds the float values and quantizes them when it runs.
    """

    scale: Array
    zeros: Array
    dtype: str
    axis: int | None
    codes: Array | None


@dataclass
class GivenRanges:
    """Artefact: what `strip-qdq` took out.

    Attributes:
        activations: Ranges by tensor name.
        constants: By digest of the float values.
    """

    activations: dict[str, GivenRange] = field(default_factory=dict)
    constants: dict[str, GivenCodes] = field(default_factory=dict)

    def empty(self) -> bool:
        """Whether nothing was taken out."""
        return not self.activations and not self.constants

    def add_constant(self, values: Array, stored: GivenCodes) -> None:
        """Remember how a constant was stored; a matrix also as its transpose, which exporters fold later."""
        self.constants.setdefault(digest(values), stored)
        if values.ndim == 2:
            turned = GivenCodes(
                stored.scale,
                stored.zeros,
                stored.dtype,
                None if stored.axis is None else 1 - stored.axis % 2,
                None if stored.codes is None else stored.codes.T,
            )
            self.constants.setdefault(digest(values.T), turned)

    def weight_scale(self, weight: Array, axis: int | None, kind: NumberFormat) -> Array | None:
        """Scale with which a weight was stored, if the format can store the same numbers.

        Args:
            weight: Float values.
            axis: Of the channels that get a scale each; None for one scale for all.
            kind: Symmetric format wanted.

        Returns:
            float32 of shape [channels], or scalar without an axis; None where there is none that fits.
        """
        stored = self.constants.get(digest(weight)) if self.constants else None
        if stored is None or stored.dtype not in {"int8", "uint8"}:
            return None
        middle = 0 if stored.dtype == "int8" else 128
        if not (stored.zeros == middle).all() or not ((stored.scale > 0) & np.isfinite(stored.scale)).all():
            return None
        if stored.scale.size > 1 and (axis is None or stored.axis is None or stored.axis % weight.ndim != axis):
            return None
        scale = stored.scale.reshape(-1)
        along = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]) if scale.size > 1 else scale
        if kind.limit < 127 and (np.abs(np.rint(weight / along)) > kind.limit).any():
            return None
        return scale.reshape(()) if axis is None else np.broadcast_to(scale, (weight.shape[axis],)).copy()

    def bias_codes(self, bias: Array, scale: Array) -> Array | None:
        """The int32 codes of a bias, flat, if it was stored with just these scales."""
        stored = self.constants.get(digest(bias)) if self.constants else None
        if stored is None or stored.codes is None or stored.dtype != "int32" or stored.zeros.any():
            return None
        same = bias.size == scale.size and np.array_equal(np.broadcast_to(stored.scale, scale.shape), scale)
        return stored.codes.reshape(-1) if same else None


def came_quantized(context: Context) -> bool:
    """Whether `strip-qdq` took anything out of the model: its weights may have been trained with their scales."""
    return context.has(GivenRanges) and not context.get(GivenRanges).empty()


def digest(values: Array) -> str:
    """Digest of type, shape and values of an array."""
    text = hashlib.blake2b(f"{values.dtype} {values.shape}".encode(), digest_size=16)
    text.update(np.ascontiguousarray(values).tobytes())
    return text.hexdigest()


def span(scale: Array, zero: Array, dtype: str) -> GivenRange | None:
    """Range of a pair: of all channels together where there are several; None for scales that are no numbers > 0.

    Args:
        scale: Scalar or [channels].
        zero: Integers (zeros for float8), shape of `scale` or scalar.
        dtype: Type of the codes, numpy's name.
    """
    steps, shift = np.asarray(scale, np.float64), np.asarray(zero).astype(np.float64)
    if not ((steps > 0) & np.isfinite(steps)).all():
        return None
    if dtype in _FLOAT8:
        qmin, qmax = -_FLOAT8[dtype], _FLOAT8[dtype]
    elif dtype in _NARROW:
        qmin, qmax = _NARROW[dtype]
    else:
        qmin, qmax = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    low, high = float(((qmin - shift) * steps).min()), float(((qmax - shift) * steps).max())
    symmetric = bool((shift == (qmin + qmax + 1) // 2).all())
    return GivenRange(min(low, 0.0), max(high, 0.0), dtype if steps.size == 1 else "", symmetric)


def spread(graph: Graph, ranges: dict[str, GivenRange]) -> dict[str, GivenRange]:
    """Add the ranges of neighbours that hold the same values, or a function of them.

    Args:
        graph: Float model, its nodes in order of execution.
        ranges: What is known; kept as it is.
    """
    known = dict(ranges)
    for node in graph.nodes:
        _forward(graph, node, known)
    for node in reversed(graph.nodes):
        _backward(graph, node, known)
    for node in graph.nodes:
        _forward(graph, node, known)
    return known


def entries(graph: Graph, given: GivenRanges, kind: NumberFormat) -> dict[str, CalibrationEntry]:
    """Entries of a calibration table that lead to the given parameters where a number format allows them.

    Args:
        graph: Float model, its nodes in order of execution.
        given: What the pairs said.
        kind: Format of activations.
    """
    bounds = value_bounds(graph)
    table = {}
    for name, known in spread(graph, given.activations).items():
        low, high = known.low, known.high
        if kind.symmetric:
            low = -high if known.symmetric else low
        elif known.dtype != kind.dtype and name in bounds:
            low, high = max(low, min(bounds[name][0], 0.0)), min(high, max(bounds[name][1], 0.0))
        table[name] = CalibrationEntry(low, high, METHOD, 0)
    return table


def _moves_all(graph: Graph, node: Node) -> bool:
    """Whether every value of a node's first input is among its output's values, and nothing but zeros beside them."""
    if node.op == "Pad":
        fill = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
        return node.attrs.get("mode", "constant") == "constant" and fill is not None and not fill.any()
    return node.op in _SAME or node.op in {"DepthToSpace", "SpaceToDepth"} or _repeats(node)


def _repeats(node: Node) -> bool:
    return node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest"


def _forward(graph: Graph, node: Node, known: dict[str, GivenRange]) -> None:
    found: GivenRange | None = None
    if node.op == "Concat":
        found = _joined(known, (t.name for t in node.inputs))
    elif node.inputs and (node.op in _MOVES or _repeats(node) or _moves_all(graph, node)):
        found = known.get(node.inputs[0].name)
    else:
        function = elementwise(graph, node)
        argument = known.get(function[0].name) if function is not None else None
        if function is not None and argument is not None:
            low, high = function[1].interval(argument.low, argument.high)
            found = GivenRange(min(low, 0.0), max(high, 0.0))
    if found is not None:
        for tensor in node.outputs:
            known.setdefault(tensor.name, found)


def _backward(graph: Graph, node: Node, known: dict[str, GivenRange]) -> None:
    if node.op == "Concat" and node.outputs[0].name in known:
        sources = node.inputs
    elif node.op == "Split" or (node.inputs and _moves_all(graph, node)):
        sources = node.inputs[:1]
    else:
        return
    found = _joined(known, (t.name for t in node.outputs))
    for tensor in sources if found is not None else ():
        if found is not None and graph.constant(tensor) is None:
            known.setdefault(tensor.name, found)


def _joined(known: dict[str, GivenRange], names: Iterable[str]) -> GivenRange | None:
    """One range for all of some tensors; None where one of them is not known."""
    whole: GivenRange | None = None
    for name in names:
        part = known.get(name)
        if part is None:
            return None
        whole = part if whole is None else whole.joined(part)
    return whole
