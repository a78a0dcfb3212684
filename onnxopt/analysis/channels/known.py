"""Channels whose values are the same for every input, found from the weights.

A layer whose weights for a channel are all 0 gives that channel's bias everywhere. What is computed from such
channels one by one is known as well. Nothing is run on samples: what is known here holds for all inputs.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxopt.analysis.channels.facts import Site
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.channels.weights import weight_value
from onnxopt.graph import Array, Graph, Node, Tensor, is_standard

FloatArray = npt.NDArray[np.float64]

# Applied value by value; the reference implementation makes NaN of NaN.
POINTWISE = frozenset(
    {"Abs", "Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"LeakyRelu", "Max", "Min", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Softplus", "Sub", "Tanh"}
)
# Each value of the output is one of the input's, or a mean of some of the same channel.
HANDING_ON = frozenset(
    {"Concat", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice"}
    | {"Split", "Squeeze", "Transpose", "Unsqueeze"}
)


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
        if not is_standard(node):
            continue
        for output in node.outputs:
            layout = relations.tracked(output)
            if len(layout) != 1:
                continue
            [(axis, atoms)] = layout.items()
            if any(s.role == "out" for s in sites.get(position, ())):
                found = _made(graph, node, sites[position], len(atoms))
            elif any(s.role == "through" and s.input == 1 for s in sites.get(position, ())) and node.op == "Conv":
                found = _filtered(graph, node, sites[position], known, len(atoms))
            elif node.op in POINTWISE:
                found = _computed(graph, relations, node, known, axis, len(atoms))
            elif node.op in HANDING_ON:
                found = _handed_on(relations, node, known, relations.atoms.roots(atoms))
            else:
                continue
            found = np.where(np.isfinite(found), found, np.nan)
            if not np.isnan(found).all():
                known[output.name] = found
    return known


def _silent(graph: Graph, node: Node, site: Site) -> npt.NDArray[np.bool_]:
    """Which channels have weights of 0 alone."""
    weight = weight_value(graph, node.inputs[site.input])
    assert weight is not None
    return np.asarray(~(weight != 0).any(axis=tuple(a for a in range(weight.ndim) if a != site.axis)))


def _bias(graph: Graph, node: Node, count: int) -> FloatArray:
    """Bias per channel; NaN where it is none of that."""
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return np.zeros(count)
    value = weight_value(graph, node.inputs[2])
    if value is None or value.size != count or node.attrs.get("beta", 1.0) != 1.0:
        return np.full(count, np.nan)
    return np.asarray(value, np.float64).ravel()


def _made(graph: Graph, node: Node, sites: list[Site], count: int) -> FloatArray:
    site = next(s for s in sites if s.role == "out")
    silent = _silent(graph, node, site)
    if len(silent) != count:  # a grouped ConvTranspose: one entry stands for a channel of each group
        return np.full(count, np.nan)
    return np.where(silent, _bias(graph, node, count), np.nan)


def _filtered(graph: Graph, node: Node, sites: list[Site], known: dict[str, FloatArray], count: int) -> FloatArray:
    """A depthwise Conv: zeros in, or weights of 0, give the bias."""
    site = next(s for s in sites if s.role == "through")
    silent = _silent(graph, node, site)
    read = known.get(node.inputs[0].name)
    if read is not None and len(read) == count == len(silent):
        silent = silent | (read == 0)
    return np.where(silent, _bias(graph, node, count), np.nan)


def _computed(
    graph: Graph, relations: Trace, node: Node, known: dict[str, FloatArray], axis: int, count: int
) -> FloatArray:
    """What a node that works value by value makes of known channels."""
    nothing = np.full(count, np.nan)
    values: list[Array | None] = []
    for tensor in node.inputs:
        value = _value(graph, relations, tensor, known) if tensor.name else None
        if tensor.name and value is None:
            return nothing
        values.append(value)
    result = _evaluated(node, values, graph.opset)
    if result is None or result.size != count or result.ndim <= axis or result.shape[axis] != count:
        return nothing
    found = np.asarray(result, np.float64).ravel()
    zeros = [v for v in values if v is not None and v.size == count] if node.op == "Mul" else []
    for value in zeros:
        found[value.ravel() == 0] = 0.0
    return found


def _value(graph: Graph, relations: Trace, tensor: Tensor, known: dict[str, FloatArray]) -> Array | None:
    """A constant, or the known channels of a tensor along their axis with all other axes of length 1."""
    constant = weight_value(graph, tensor)
    if constant is not None:
        return constant
    layout = relations.tracked(tensor)
    if len(layout) != 1:
        return None
    [(axis, atoms)] = layout.items()
    values = known.get(tensor.name, np.full(len(atoms), np.nan))
    return values.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(relations.rank(tensor))])


def _evaluated(node: Node, values: list[Array | None], opset: int) -> Array | None:
    """The node's first output by the reference implementation; None where that has no answer."""
    names = [f"i{place}" if value is not None else "" for place, value in enumerate(values)]
    plain: dict[str, Any] = {k: v for k, v in node.attrs.items() if isinstance(v, int | float | str | list | tuple)}
    made = helper.make_node(node.op, names, ["o"], **plain)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, values, strict=True)
        if value is not None
    ]
    output = helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([made], "one", inputs, [output]), opset_imports=[helper.make_opsetid("", opset)]
    )
    feeds = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    try:
        with np.errstate(all="ignore"):
            found: Any = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001  (whatever it cannot do is not known)
        return None
    return np.asarray(found[0])


def _handed_on(relations: Trace, node: Node, known: dict[str, FloatArray], roots: npt.NDArray[np.int64]) -> FloatArray:
    """Values follow their channels, wherever these go."""
    values: dict[int, float] = {}
    for tensor in node.inputs:
        for atoms in relations.tracked(tensor).values():
            given = known.get(tensor.name, np.full(len(atoms), np.nan))
            for root, value in zip(relations.atoms.roots(atoms).tolist(), given.tolist(), strict=False):
                same = values.setdefault(root, value) == value
                values[root] = value if same else np.nan
    return np.array([values.get(root, np.nan) for root in roots.tolist()])
