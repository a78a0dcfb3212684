"""How far a range need reach, given what reads the tensor.

A SiLU makes next to nothing of -20 and of -70 alike. A range that reaches as far as the values do spends most of its
256 steps where the reader cannot tell them apart, and has few left where it can.
"""

import numpy as np

from onnxopt.calibration.derive import elementwise
from onnxopt.calibration.elementwise import Elementwise
from onnxopt.calibration.methods import Range
from onnxopt.graph import Graph, Node, Tensor

FLAT = 0.25  # of a step of the function's own 8-bit output: such a difference is lost there anyway
STEPS = 255
WORTHWHILE = 0.95  # of the end; any function is flat over so little
POINTS = 1024  # at which a function is looked at


def useful_part(graph: Graph, tensor: Tensor, found: Range) -> Range:
    """Cut a range to where the only reader of a tensor still tells values apart.

    Args:
        graph: The float model.
        tensor: An activation.
        found: Its range.

    Returns:
        A range inside it; the same where the tensor has other readers than one element-wise function of one variable.
    """
    function = _only_reader(graph, tensor)
    return found if function is None else _cut(found, function)


def _only_reader(graph: Graph, tensor: Tensor) -> Elementwise | None:
    readers = graph.consumers(tensor)
    computed = [(n, f) for n in readers if (f := _function_of(graph, n, tensor)) is not None]
    if not computed or graph.is_output(tensor):
        return None
    last, function = computed[0]
    for node in readers:  # x * sigmoid(x) reads x twice; its Sigmoid must serve nobody else
        others = [n for n in graph.consumers(node.outputs[0]) if n is not last]
        if node is not last and (node.op != "Sigmoid" or others or graph.is_output(node.outputs[0])):
            return None
    return function


def _function_of(graph: Graph, node: Node, tensor: Tensor) -> Elementwise | None:
    """The function of a tensor that a node computes; a Sigmoid is one only where it is not half of a SiLU."""
    found = elementwise(graph, node)
    if found is None or found[0] is not tensor:
        return None
    gated = any(_is_gate(graph, n, tensor) for n in graph.consumers(node.outputs[0]))
    return None if node.op == "Sigmoid" and gated else found[1]


def _is_gate(graph: Graph, node: Node, tensor: Tensor) -> bool:
    found = elementwise(graph, node) if node.op == "Mul" else None
    return found is not None and found[0] is tensor


def _cut(found: Range, function: Elementwise) -> Range:
    smallest, largest = function.interval(found.low, found.high)
    tolerance = FLAT * (largest - smallest) / STEPS
    return Range(_flat_until(found.low, function, tolerance), _flat_until(found.high, function, tolerance))


def _flat_until(end: float, function: Elementwise, tolerance: float) -> float:
    """Where the flat part of a function at an end of its range ends, on the way to 0; the end itself if it is short.

    Flat: nowhere more than the tolerance away from the value at its inner border, which all of it becomes.
    """
    points = np.linspace(end, 0.0, POINTS)
    values = function(points)
    apart = np.maximum(np.maximum.accumulate(values) - values, values - np.minimum.accumulate(values))
    border = float(points[np.flatnonzero(apart <= tolerance)[-1]])
    return border if abs(border) < WORTHWHILE * abs(end) else end
