"""Between which numbers a tensor must lie, whatever the input: by interval arithmetic along the graph.

1. Behind an element-wise function of one variable: its image of the argument's interval.
2. Behind an operator that moves, selects or averages values: the interval of its input; of a Concat of all parts.
3. Behind an Add: the sum; behind a Mul of two non-negative factors: the product.

Everything else may be any number.
"""

import math
from collections.abc import Mapping

from onnxopt.calibration.derive import elementwise
from onnxopt.calibration.elementwise import Elementwise
from onnxopt.graph import Graph, Node, Tensor, is_standard

Interval = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)

_KEEPS = frozenset(
    {
        "MaxPool",
        "GlobalMaxPool",
        "Reshape",
        "Transpose",
        "Flatten",
        "Slice",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Identity",
    }
    | {"DepthToSpace", "SpaceToDepth", "Gather", "Expand", "Tile", "ReduceMax", "ReduceMin", "ReduceMean", "Identity"}
)
_PADS = frozenset({"AveragePool", "GlobalAveragePool", "Resize"})  # zeros may come in from beyond the edges
_FAR, _FARTHER = 1e6, 1e9


def value_bounds(graph: Graph) -> dict[str, Interval]:
    """Smallest and largest value that each tensor can take, by name; infinite where there is no bound.

    Args:
        graph: Float model, its nodes in order of execution.
    """
    bounds: dict[str, Interval] = {}
    for node in graph.nodes:
        found = output_bounds(graph, node, bounds)
        bounds.update((t.name, found) for t in node.outputs)
    return bounds


def output_bounds(graph: Graph, node: Node, bounds: Mapping[str, Interval]) -> Interval:
    """Bounds of a node's outputs from those of its inputs; what is not in `bounds` may be any number."""

    def of(tensor: Tensor) -> Interval:
        values = graph.constant(tensor)
        if values is not None and values.dtype.kind == "f" and values.size:
            return float(values.min()), float(values.max())
        return bounds.get(tensor.name, ANY)

    function = elementwise(graph, node)
    if function is not None:
        return _image(function[1], of(function[0]))
    if not is_standard(node) or not node.inputs:
        return ANY
    if node.op in _KEEPS:
        return of(node.inputs[0])
    if node.op in _PADS and node.attrs.get("mode", "nearest") != "cubic":
        low, high = of(node.inputs[0])
        return min(low, 0.0), max(high, 0.0)
    return _combined(node, [of(t) for t in node.inputs])


def _combined(node: Node, parts: list[Interval]) -> Interval:
    if node.op == "Softmax":
        return 0.0, 1.0
    if node.op == "Concat":
        return min(low for low, _ in parts), max(high for _, high in parts)
    if node.op == "Add":
        return sum(low for low, _ in parts), sum(high for _, high in parts)
    if node.op == "Mul" and all(low >= 0 for low, _ in parts):
        return math.prod(low for low, _ in parts), math.prod(high if high > 0 else 1.0 for _, high in parts)
    return ANY


def _image(function: Elementwise, argument: Interval) -> Interval:
    """What a function makes of an interval; where an end is infinite, its limit there or infinity."""
    near = function.interval(max(argument[0], -_FAR), min(argument[1], _FAR))
    if math.isfinite(argument[0]) and math.isfinite(argument[1]):
        return near
    far = function.interval(max(argument[0], -_FARTHER), min(argument[1], _FARTHER))
    return (near[0] if far[0] >= near[0] else -math.inf, near[1] if far[1] <= near[1] else math.inf)
