"""Channels whose values are the same for every input, found from the weights.

A layer whose weights for a channel are all 0 gives that channel's bias everywhere. What is computed from such
channels one by one is known as well. Nothing is run on samples: what is known here holds for all inputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.facts import Site
from onnxopt.analysis.channels.trace import Trace
from onnxopt.graph import Graph, Node, Tensor, is_standard

FloatArray: TypeAlias = npt.NDArray[np.float64]
Rule: TypeAlias = Callable[[Sequence[FloatArray], Mapping[str, Any]], FloatArray]

# Each value of the output is one of the input's, or a mean of some of the same channel.
HANDING_ON = frozenset(
    {"Concat", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice"}
    | {"Split", "Squeeze", "Transpose", "Unsqueeze"}
)


def _clip(values: Sequence[FloatArray], attrs: Mapping[str, Any]) -> FloatArray:
    low, high = (*values[1:], *(None,) * 2)[:2]
    least = attrs.get("min", -math.inf) if low is None or not low.size else low
    most = attrs.get("max", math.inf) if high is None or not high.size else high
    return np.minimum(np.maximum(values[0], least), most)


def _normalized(values: Sequence[FloatArray], attrs: Mapping[str, Any]) -> FloatArray:
    x, scale, shift, mean, variance = (
        v if i == 0 else v.reshape(-1, *(1,) * (values[0].ndim - 2)) for i, v in enumerate(values)
    )
    return np.asarray((x - mean) / np.sqrt(variance + attrs.get("epsilon", 1e-5)) * scale + shift)


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-x)))


# Applied value by value. NaN stands for what is not known, and stays.
POINTWISE: Mapping[str, Rule] = {
    "Abs": lambda v, _: np.abs(v[0]),
    "Add": lambda v, _: v[0] + v[1],
    "BatchNormalization": _normalized,
    "Clip": _clip,
    "Div": lambda v, _: v[0] / v[1],
    "Elu": lambda v, a: np.where(v[0] < 0, a.get("alpha", 1.0) * np.expm1(v[0]), v[0]),
    "HardSigmoid": lambda v, a: np.clip(a.get("alpha", 0.2) * v[0] + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda v, _: v[0] * np.clip(v[0] / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda v, a: np.where(v[0] < 0, a.get("alpha", 0.01) * v[0], v[0]),
    "Mul": lambda v, _: v[0] * v[1],
    "Neg": lambda v, _: -v[0],
    "PRelu": lambda v, _: np.where(v[0] < 0, v[1] * v[0], v[0]),
    "Relu": lambda v, _: np.maximum(v[0], 0),
    "Sigmoid": lambda v, _: _sigmoid(v[0]),
    "Softplus": lambda v, _: np.logaddexp(v[0], 0),
    "Sub": lambda v, _: v[0] - v[1],
    "Tanh": lambda v, _: np.tanh(v[0]),
}


def known_channels(graph: Graph, relations: Trace) -> dict[str, FloatArray]:
    """Tensor name to the value of each channel, float64[channels], NaN where it depends on the input.

    Tensors of which no channel is known are left out, and so are those with channels along several axes.

    Args:
        graph: The graph, its nodes in order of execution.
        relations: Its analysis.
    """
    sites: dict[int, list[Site]] = {}
    for site in relations.sites:
        sites.setdefault(site.node, []).append(site)
    known: dict[str, FloatArray] = {}
    for position, node in enumerate(graph.nodes):
        for output in node.outputs if is_standard(node) else ():
            layout = relations.tracked(output)
            if len(layout) == 1:
                [(axis, atoms)] = layout.items()
                with np.errstate(all="ignore"):
                    found = _values(graph, relations, node, sites.get(position, ()), known, axis, atoms)
                found = np.where(np.isfinite(found), found, np.nan)
                if not np.isnan(found).all():
                    known[output.name] = found
    return known


def _values(
    graph: Graph,
    relations: Trace,
    node: Node,
    sites: Sequence[Site],
    known: Mapping[str, FloatArray],
    axis: int,
    atoms: IntArray,
) -> FloatArray:
    count = len(atoms)
    maker = next((s for s in sites if s.role == "out"), None)
    filters = next((s for s in sites if s.role == "through" and s.input == 1 and node.op == "Conv"), None)
    if maker is not None:
        return np.where(_silent(graph, node, maker, count), _bias(graph, node, count), np.nan)
    if filters is not None:
        return _filtered(graph, node, filters, known, count)
    if any(t.name in known for t in node.inputs):
        if node.op in POINTWISE:
            return _computed(graph, relations, node, known, axis, count)
        if node.op in HANDING_ON and not any(d != 1 for d in node.attrs.get("dilations", ())):
            return _handed_on(relations, node, known, axis, atoms)
    return np.full(count, np.nan)


def _silent(graph: Graph, node: Node, site: Site, count: int) -> npt.NDArray[np.bool_]:
    """Which channels have weights of 0 alone."""
    weight = graph.constant(node.inputs[site.input])
    # Of a grouped ConvTranspose one entry stands for a channel of each group.
    if weight is None or weight.shape[site.axis] != count:
        return np.zeros(count, np.bool_)
    return np.asarray(~(weight != 0).any(axis=tuple(a for a in range(weight.ndim) if a != site.axis)))


def _bias(graph: Graph, node: Node, count: int) -> FloatArray:
    """Bias per channel; NaN where it is none of that."""
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return np.zeros(count)
    value = graph.constant(node.inputs[2])
    if value is None or value.size != count or value.shape[-1:] != (count,) or node.attrs.get("beta", 1.0) != 1.0:
        return np.full(count, np.nan)
    return np.asarray(value, np.float64).ravel()


def _filtered(graph: Graph, node: Node, site: Site, known: Mapping[str, FloatArray], count: int) -> FloatArray:
    """A grouped Conv: weights of 0, or in a depthwise one zeros in, give the bias."""
    silent, weight = _silent(graph, node, site, count), graph.constant(node.inputs[1])
    read = known.get(node.inputs[0].name)
    if read is not None and weight is not None and weight.shape[1] == 1 and len(read) == count:
        silent = silent | (read == 0)
    return np.where(silent, _bias(graph, node, count), np.nan)


def _computed(
    graph: Graph, relations: Trace, node: Node, known: Mapping[str, FloatArray], axis: int, count: int
) -> FloatArray:
    """What a node that works value by value makes of known channels."""
    values = [_value(graph, relations, t, known) if t.name else np.empty(0) for t in node.inputs]
    given = [v for v in values if v is not None]
    if len(given) < len(values):
        return np.full(count, np.nan)
    try:
        result = POINTWISE[node.op](given, node.attrs)
    except ValueError:  # shapes that only an old operator set joins
        return np.full(count, np.nan)
    if result.size != count or result.ndim <= axis or result.shape[axis] != count:
        return np.full(count, np.nan)
    found = np.asarray(result, np.float64).ravel()
    for value in given if node.op == "Mul" else ():  # 0 times what is not known
        if value.size == count:
            found = np.where(value.ravel() == 0, 0.0, found)
    return found


def _value(graph: Graph, relations: Trace, tensor: Tensor, known: Mapping[str, FloatArray]) -> FloatArray | None:
    """A constant, or the known channels of a tensor along their axis with all other axes of length 1."""
    constant = graph.constant(tensor)
    if constant is not None:
        return np.asarray(constant, np.float64)
    layout = relations.tracked(tensor)
    if len(layout) != 1:
        return None
    [(axis, atoms)] = layout.items()
    values = known.get(tensor.name, np.full(len(atoms), np.nan))
    return values.reshape([-1 if i == axis else 1 for i in range(relations.rank(tensor))])


def _handed_on(relations: Trace, node: Node, known: Mapping[str, FloatArray], axis: int, atoms: IntArray) -> FloatArray:
    """Values follow their channels, wherever these go."""
    nothing = np.full(len(atoms), np.nan)
    if node.op == "Concat":
        across = int(node.attrs["axis"]) % relations.rank(node.outputs[0]) != axis
        if across and any(t.name not in known for t in node.inputs):
            return nothing
    values: dict[int, float] = {}
    for tensor in node.inputs:
        layout = relations.tracked(tensor)
        if len(layout) > 1:
            return nothing
        for mine in layout.values():
            given = known.get(tensor.name, np.full(len(mine), np.nan))
            for root, value in zip(relations.atoms.roots(mine).tolist(), given.tolist(), strict=True):
                values[root] = value if values.setdefault(root, value) == value else np.nan
    return np.array([values.get(root, np.nan) for root in relations.atoms.roots(atoms).tolist()])
