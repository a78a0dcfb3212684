"""Which inputs and outputs of a node turn half, read off ONNX's own schemas.

1. An input or output may turn half if its type constraint at the graph's opset allows float16 (scales of Resize and
   inputs of Range do not).
2. All float32 tensors of one type parameter turn together.
3. An output whose type parameter no input shares has its type from an attribute. Cast and ConstantOfShape get the
   attribute changed; others (RandomNormal, EyeLike) stay float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import defs

from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Constant, Graph, Node, Tensor, is_standard

# Contrib operators of one type parameter; onnx knows no schemas of theirs.
UNIFORM = frozenset({("com.microsoft", op) for op in ("QuickGelu", "Gelu", "FastGelu", "BiasGelu")})
RETARGETED = frozenset({"Cast", "ConstantOfShape"})
SCALED = 23  # the opset from which DequantizeLinear may name another type than its scale's
_FLOAT, _HALF = "tensor(float)", "tensor(float16)"


@dataclass(frozen=True)
class HalfForm:
    """How a node looks in half.

    Attributes:
        inputs: Places of the inputs that turn half.
        outputs: Places of the outputs that turn half.
        obstacle: Why nothing does, for a node that has float32 tensors; "" otherwise.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    obstacle: str = ""

    @property
    def possible(self) -> bool:
        """Whether anything turns half."""
        return bool(self.inputs or self.outputs)


def half_forms(graph: Graph, shapes: Shapes) -> list[HalfForm]:
    """The form of each top-level node, in the order of `graph.nodes`."""
    opsets = {"": graph.opset, **graph.opsets}
    return [HalfForm() if _is_constant(graph, node) else _form(node, opsets, shapes) for node in graph.nodes]


def _is_constant(graph: Graph, node: Node) -> bool:
    """Whether a node makes a constant: what reads it gets an initializer of its own type."""
    return len(node.outputs) == 1 and graph.constant(node.outputs[0]) is not None


def is_single(tensor: Tensor, shapes: Shapes) -> bool:
    """Whether a tensor is known to be float32."""
    return bool(tensor.name) and _dtype(tensor, shapes) == np.float32


def _dtype(tensor: Tensor, shapes: Shapes) -> np.dtype[np.generic] | None:
    if isinstance(tensor, Constant):
        own: np.dtype[np.generic] = np.dtype(tensor.dtype)
        return own
    return shapes.dtype(tensor)


def _form(node: Node, opsets: dict[str, int], shapes: Shapes) -> HalfForm:
    inputs = [i for i, t in enumerate(node.inputs) if is_single(t, shapes)]
    outputs = [i for i, t in enumerate(node.outputs) if is_single(t, shapes)]
    if any(hasattr(value, "nodes") for value in node.attrs.values()):
        return HalfForm(obstacle="it holds a nested graph, which stays as it is")
    if (node.domain, node.op) in UNIFORM:
        return HalfForm(tuple(inputs), tuple(outputs))
    if not inputs and not outputs:
        return HalfForm()
    domain = "" if is_standard(node) else str(node.domain)
    if not defs.has(node.op, opsets.get(domain, 1), domain):
        return HalfForm(obstacle=f"nothing is known of operators of domain '{domain}'")
    if node.op == "DequantizeLinear" and not node.attrs.get("output_dtype") and opsets[""] >= SCALED:
        return HalfForm(tuple(inputs), tuple(outputs))
    schema = defs.get_schema(node.op, opsets.get(domain, 1), domain)
    return _by_schema(node, _Signature(schema), (inputs, outputs), shapes)


class _Signature:
    """A schema's type parameters by place."""

    def __init__(self, schema: defs.OpSchema) -> None:
        self.version = schema.since_version
        self._inputs, self._outputs = list(schema.inputs), list(schema.outputs)
        self._allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def input(self, place: int) -> str:
        return self._parameter(self._inputs, place)

    def output(self, place: int) -> str:
        return self._parameter(self._outputs, place)

    def inputs_of(self, count: int) -> set[str]:
        return {self.input(place) for place in range(count)}

    def _parameter(self, formal: Sequence[defs.OpSchema.FormalParameter], place: int) -> str:
        return str(formal[min(place, len(formal) - 1)].type_str)  # the last one may be variadic

    def allows(self, parameter: str, kind: str) -> bool:
        return kind in self._allowed.get(parameter, {parameter})


def _by_schema(node: Node, signature: _Signature, single: tuple[list[int], list[int]], shapes: Shapes) -> HalfForm:
    for tensor, parameter in [
        *((t, signature.input(i)) for i, t in enumerate(node.inputs)),
        *((t, signature.output(i)) for i, t in enumerate(node.outputs)),
    ]:
        if tensor.name and _dtype(tensor, shapes) is None and signature.allows(parameter, _FLOAT):
            return HalfForm(obstacle=f"the type of '{tensor.name}' is not known")
    inputs = tuple(i for i in single[0] if signature.allows(signature.input(i), _HALF))
    turned = {signature.input(i) for i in inputs}
    tied = signature.inputs_of(len(node.inputs))
    outputs = []
    for place in single[1]:
        parameter = signature.output(place)
        if parameter in turned or (node.op in RETARGETED and signature.allows(parameter, _HALF)):
            outputs.append(place)
        elif parameter not in tied and signature.allows(parameter, _HALF):
            return HalfForm(obstacle="its output's type does not follow from its inputs'")
    if single[1] and not outputs:
        return HalfForm(obstacle=f"{node.op} (opset {signature.version}) takes no float16")
    return HalfForm(inputs, tuple(outputs))
