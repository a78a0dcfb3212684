"""Which tensors have to be measured, and which ranges follow from another tensor's.

1. Behind an element-wise function of one variable (Relu, Clip, SiLU, Sigmoid, …) of a known tensor, the range and
   the histogram are those of the function over the known ones.
2. Behind an operator that moves or selects values (MaxPool, Resize nearest, Reshape, Transpose, Split, …) they are
   those of its input.
3. Behind a Concat of known tensors they are those of all parts together.

What does not follow is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxopt.calibration.elementwise import ELEMENTWISE, Elementwise, silu
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.graph import Graph, Node, Tensor

_MOVES = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity"}
    | {"DepthToSpace", "SpaceToDepth"}
)


@dataclass(frozen=True)
class Derivation:
    """How one tensor's statistics follow from others'.

    Attributes:
        name: The tensor.
        sources: The tensors that it follows from.
        apply: Their statistics to this tensor's.
    """

    name: str
    sources: tuple[str, ...]
    apply: Callable[[Sequence[TensorStatistics]], TensorStatistics]


@dataclass(frozen=True)
class Plan:
    """What to measure and what to derive, both in order of execution.

    Attributes:
        measured: Tensor name to the bounds that the function making it cannot leave, or None.
        derived: Each from tensors that are measured or derived before it.
    """

    measured: dict[str, tuple[float, float] | None]
    derived: list[Derivation]


def plan_statistics(graph: Graph, needed: Sequence[str]) -> Plan:
    """Split the needed tensors into measured and derived ones.

    Args:
        graph: The model; its nodes must be in order of execution.
        needed: Names of tensors.
    """
    wanted, known = set(needed), set[str]()
    measured: dict[str, tuple[float, float] | None] = {}
    derived: list[Derivation] = []
    for tensor, node in _tensors(graph):
        if tensor.name not in wanted:
            continue
        derivation = _derive(graph, tensor, node, known) if node is not None else None
        if derivation is not None:
            derived.append(derivation)
        else:
            function = elementwise(graph, node) if node is not None else None
            measured[tensor.name] = function[1].bounds if function is not None else None
        known.add(tensor.name)
    return Plan(measured, derived)


def _tensors(graph: Graph) -> list[tuple[Tensor, Node | None]]:
    return [(t, None) for t in graph.inputs] + [(t, n) for n in graph.nodes for t in n.outputs]


def _derive(graph: Graph, tensor: Tensor, node: Node, known: set[str]) -> Derivation | None:
    name = tensor.name
    if node.op == "Concat" and all(t.name in known for t in node.inputs):
        sources = tuple(dict.fromkeys(t.name for t in node.inputs))
        return Derivation(name, sources, lambda parts: TensorStatistics.union(name, parts))
    moves = node.op in _MOVES or (node.op == "Resize" and node.attrs.get("mode", "nearest") == "nearest")
    if moves and node.inputs[0].name in known:
        return Derivation(name, (node.inputs[0].name,), lambda parts: parts[0].renamed(name))
    function = elementwise(graph, node)
    if function is not None and function[0].name in known:
        mapping = function[1]
        return Derivation(name, (function[0].name,), lambda parts: parts[0].mapped(mapping, name))
    return None


def elementwise(graph: Graph, node: Node) -> tuple[Tensor, Elementwise] | None:
    """The argument and the function, where a node computes an element-wise function of one variable."""
    if node.op == "Mul" and len(node.inputs) == 2:
        for x, gate in (node.inputs, node.inputs[::-1]):
            producer = graph.producer(gate)
            if producer is not None and producer.op == "Sigmoid" and producer.inputs[0] is x:
                return x, silu()
        return None
    make = ELEMENTWISE.get(node.op)
    if make is None:
        return None
    if node.op == "Clip":
        return _clip(graph, node)
    return node.inputs[0], make(**{key: value for key, value in node.attrs.items() if key != "axis"})


def _clip(graph: Graph, node: Node) -> tuple[Tensor, Elementwise] | None:
    bounds: dict[str, float] = {
        key: float(node.attrs[key]) for key in ("min", "max") if key in node.attrs
    }  # before opset 11
    for key, tensor in zip(("min", "max"), node.inputs[1:], strict=False):
        value = graph.constant(tensor) if tensor.name else None
        if tensor.name and (value is None or value.size != 1):
            return None
        if value is not None:
            bounds[key] = float(value.item())
    return node.inputs[0], ELEMENTWISE["Clip"](**bounds)
