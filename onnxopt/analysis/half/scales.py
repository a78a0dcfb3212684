"""Scales of Q/DQ pairs as numbers that float16 holds, before anything turns half.

float16 renders a scale below 2^-14 with few digits and one below 2^-25 as 0, which is no scale at all.

1. A scale of 2^-14 or more is rounded to the nearest float16. Integers keep their meaning within 2^-12.
2. A smaller one is raised to the next float16, 2^-24 at least. Integer constants behind it are counted anew in the
   larger steps: a channel of weights that small is dead in all but name.
3. Where raising costs weights more than 40 dB of SQNR, or an activation more than 1/16 of its steps, the scale stays
   as it is, and with it the pair in float32 (see `choice`).
"""

import numpy as np

from onnxopt.analysis.half.peaks import SMALLEST_NORMAL, to_half
from onnxopt.graph import Array, Graph, Node, Tensor
from onnxopt.placement.strip import dequantized

STEP = 2.0**-24  # between the smallest float16 numbers
MOST_RAISED = 17 / 16  # of an activation's scale
LEAST_SQNR = 40.0  # dB; about what eight bits leave of a weight anyway
PAIR = ("QuantizeLinear", "DequantizeLinear")


def fit_scales(graph: Graph) -> tuple[int, list[tuple[Tensor, int]]]:
    """Give pairs scales that float16 holds, in place; all numbers stay float32.

    Returns:
        How many scale tensors changed, and those with raised numbers: tensor and how many of them.
    """
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes_of(*PAIR):
        if len(node.inputs) > 1 and _is_single(graph.constant(node.inputs[1])):
            readers.setdefault(id(node.inputs[1]), []).append(node)
    changed = 0
    raised: list[tuple[Tensor, int]] = []
    for nodes in readers.values():
        tensor = nodes[0].inputs[1]
        scale = graph.constant(tensor)
        assert scale is not None
        fitting = fitted(scale)
        if np.array_equal(fitting, scale):
            continue
        small = int((scale < SMALLEST_NORMAL).sum())
        codes = [_counted(graph, n, scale, fitting) for n in nodes] if small else [None] * len(nodes)
        if small and any(c is None and not _bears(graph, n, scale, fitting) for c, n in zip(codes, nodes, strict=True)):
            continue
        twin = graph.add_constant(f"{tensor.name}_fit", fitting)
        for node, values in zip(nodes, codes, strict=True):
            node.inputs[1] = twin
            if values is not None:
                node.inputs[0] = graph.add_constant(f"{node.inputs[0].name}_fit", values)
        changed += 1
        if small:
            raised.append((twin, small))
    return changed, raised


def _is_single(scale: Array | None) -> bool:
    return scale is not None and scale.dtype == np.float32 and bool((np.isfinite(scale) & (scale > 0)).all())


def fitted(scale: Array) -> Array:
    """Float32 numbers that float16 holds: the nearest of positive normal ones, above for smaller ones."""
    raised = np.ceil(scale.astype(np.float64) / STEP) * STEP
    nearest = to_half(scale).astype(np.float64)
    fitting: Array = np.where(scale < SMALLEST_NORMAL, raised, nearest).astype(np.float32)
    return fitting


def _counted(graph: Graph, node: Node, scale: Array, fitting: Array) -> Array | None:
    """A constant's integers in steps of the new scale; None where there is none, or it would lose too much."""
    codes = graph.constant(node.inputs[0]) if node.op == "DequantizeLinear" else None
    if codes is None or codes.dtype not in (np.int8, np.int32) or _zero(graph, node):
        return None
    before = dequantized(graph, node, codes)
    if before is None:
        return None
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[node.attrs.get("axis", 1)] = scale.size
    ratio = (scale.astype(np.float64) / fitting.astype(np.float64)).reshape(shape if codes.ndim else ())
    counted: Array = np.rint(codes * ratio).astype(codes.dtype)
    error = (counted * fitting.reshape(shape if codes.ndim else ()) - before).astype(np.float64)
    noise, signal = float((error**2).sum()), float((before.astype(np.float64) ** 2).sum())
    return counted if noise <= signal * 10 ** (-LEAST_SQNR / 10) else None


def _zero(graph: Graph, node: Node) -> bool:
    """Whether a zero point is other than 0, or not known."""
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return False
    zero = graph.constant(node.inputs[2])
    return zero is None or bool(zero.any())


def _bears(graph: Graph, node: Node, scale: Array, fitting: Array) -> bool:
    """Whether an activation's pair bears the larger scale."""
    return graph.constant(node.inputs[0]) is None and bool((fitting <= scale * MOST_RAISED).all())
