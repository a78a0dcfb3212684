"""Keep one of what is there several times.

1. Initializers of one type and shape with the same bytes become one.
2. Nodes of one operator with the same attributes and inputs become one; in order of execution, so that what reads
   merged nodes is merged too.
3. Slices that cut a tensor along one axis into parts which together are the whole become one Split.

Left alone: random operators, operators of other domains, nodes with nested graphs, initializers that a caller may
override. Of two graph outputs that are equal both stay, for their names are the model's interface.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from onnx_graphsurgeon import Graph as NestedGraph
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxopt import Context, Graph, Pass
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Constant, Node, Tensor, is_standard

RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


class MergeDuplicates(Pass):
    """Keep one of equal initializers, of equal nodes, and one Split for complementary Slices.

    When to use it: after folding and fusing, which leave equal constants behind. `simplify` runs it for you.

    Example:
        before: `a = Slice (x, 0, 4, 1)`, `b = Slice (x, 4, 8, 1)`, `c = Relu (a)`, `d = Relu (a)`, `y = Sum (b, c, d)`
        after:  `a, b = Split (x, [4, 4])`, `c = Relu (a)`, `y = Sum (b, c, c)`

    Effect: exact.
    """

    name = "merge-duplicates"
    effect = "exact"

    def run(self, graph: Graph, context: Context) -> bool:
        """Initializers first, so that nodes that read equal ones are equal, and again the sizes of new Splits."""
        graph.sort()
        shapes = context.get(Shapes)
        counts = {
            "initializers merged": _merge_initializers(graph),
            "nodes merged": _merge_nodes(graph, context),
            "Slices made Splits": _merge_slices(graph, shapes),
        }
        if counts["Slices made Splits"]:
            counts["initializers merged"] += _merge_initializers(graph)
        for what, count in counts.items():
            if count:
                context.count(what, count)
        return any(counts.values())


def _merge_initializers(graph: Graph) -> int:
    overridable = set(graph.overridable)
    alike: dict[Hashable, list[Constant]] = defaultdict(list)
    for constant in _constants(graph):
        if constant.name not in overridable and not graph.is_output(constant) and not isinstance(constant.dtype, int):
            alike[np.dtype(constant.dtype), tuple(constant.shape or ())].append(constant)
    merged = 0
    for group in alike.values():
        first: dict[bytes, Constant] = {}
        for constant in group if len(group) > 1 else ():
            kept = first.setdefault(_digest(constant), constant)
            if kept is not constant:
                graph.replace_uses(constant, kept)
                merged += 1
    return merged


def _constants(graph: Graph) -> Iterator[Constant]:
    """Initializers that nodes outside nested graphs read, each once."""
    seen: dict[int, Constant] = {id(t): t for n in graph.nodes for t in n.inputs if isinstance(t, Constant)}
    return iter(seen.values())


def _digest(constant: Constant) -> bytes:
    """Hash of the values; what has not been read into memory yet is read for the moment only."""
    held = constant._values  # noqa: SLF001  (`.values` would keep what it reads)
    values = held.load() if isinstance(held, LazyValues) else held
    if values.dtype.kind == "O":
        return hashlib.sha256(repr(values.tolist()).encode()).digest()
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _merge_nodes(graph: Graph, context: Context) -> int:
    first: dict[Hashable, Node] = {}
    merged = 0
    for node in list(graph.nodes):
        key = _key(node)
        if key is None:
            continue
        kept = first.setdefault(key, node)
        if kept is node:
            continue
        pairs = list(zip(kept.outputs, node.outputs, strict=True))
        if any(graph.is_output(a) and graph.is_output(b) for a, b in pairs):
            context.note(node, "equals another node, but both are graph outputs, whose names stay")
            continue
        graph.remove(node)
        for place, (a, b) in enumerate(pairs):
            if graph.is_output(b):
                kept.outputs[place] = b
                graph.replace_uses(a, b)
            else:
                graph.replace_uses(b, a)
        merged += 1
    return merged


def _key(node: Node) -> Hashable:
    """What two equal nodes share; None for a node that equals no other."""
    if not is_standard(node) or node.op in RANDOM:
        return None
    origin: Any = node.__dict__.get("origin")
    nested = any(isinstance(value, NestedGraph) for value in node.attrs.values())
    if nested or (origin is not None and origin.uncarried):
        return None
    attrs = tuple((name, _attribute(value)) for name, value in sorted(node.attrs.items()))
    inputs = tuple(id(t) if t.name else 0 for t in node.inputs)
    return node.op, attrs, inputs, tuple(bool(t.name) for t in node.outputs)


def _attribute(value: Any) -> Hashable:
    if isinstance(value, Constant):
        return str(value.dtype), tuple(value.shape or ()), _digest(value)
    return tuple(value) if isinstance(value, list) else value


def _merge_slices(graph: Graph, shapes: Shapes) -> int:
    """Slices that are the parts of a whole, to one Split each."""
    readers: dict[tuple[int, int], list[Node]] = defaultdict(list)
    bounds: dict[int, tuple[int, int]] = {}
    whole: dict[tuple[int, int], int] = {}
    for node in graph.nodes_of("Slice"):
        cut = _cut(graph, node, shapes)
        if cut is not None and is_standard(node):
            axis, size, bounds[id(node)] = cut
            readers[id(node.inputs[0]), axis].append(node)
            whole[id(node.inputs[0]), axis] = size
    merged = 0
    for (_, axis), nodes in readers.items():
        parts = sorted(nodes, key=lambda n: bounds[id(n)])
        edges = [bounds[id(n)] for n in parts]
        size = whole[id(nodes[0].inputs[0]), axis]
        joined = all(a[1] == b[0] for a, b in pairwise(edges))
        if len(parts) > 1 and joined and (edges[0][0], edges[-1][1]) == (0, size):
            _split(graph, nodes[0], parts, [end - start for start, end in edges], axis)
            merged += len(parts)
    return merged


def _cut(graph: Graph, node: Node, shapes: Shapes) -> tuple[int, int, tuple[int, int]] | None:
    """Axis, its size, and start and end of a Slice along one axis in steps of 1; None for any other."""
    starts, ends, axes = (_number(graph, node, name, place) for place, name in enumerate(("starts", "ends", "axes"), 1))
    steps = _number(graph, node, "steps", 4) if len(node.inputs) > 4 else 1
    shape = shapes.shape(node.inputs[0])
    if starts is None or ends is None or axes is None or steps != 1 or shape is None:
        return None
    size = shape[axes]
    if not isinstance(size, int) or size < 1:
        return None
    start, end, _ = slice(starts, ends).indices(size)  # counts from the end and clamps as ONNX does
    return (axes % len(shape), size, (start, end)) if start < end else None


def _number(graph: Graph, node: Node, name: str, place: int) -> int | None:
    """The one number of an argument that is an attribute in old operator sets and an input in new ones."""
    if name in node.attrs:
        values = list(node.attrs[name])
    elif place < len(node.inputs) and node.inputs[place].name:
        constant = graph.constant(node.inputs[place])
        values = [] if constant is None else constant.ravel().tolist()
    else:
        values = [0] if name == "axes" else []  # without axes, the first ones are meant
    return int(values[0]) if len(values) == 1 else None


def _split(graph: Graph, first: Node, parts: list[Node], sizes: list[int], axis: int) -> None:
    """Put a Split where the first of the Slices stands."""
    source, name = first.inputs[0], first.name
    outputs: list[Tensor] = [n.outputs[0] for n in parts]
    if graph.opset < 13:
        arguments: list[Tensor] = [source]
        attrs: dict[str, Any] = {"axis": axis, "split": sizes}
    else:
        arguments, attrs = [source, graph.add_constant(f"{name}_sizes", np.array(sizes, np.int64))], {"axis": axis}
    for node in parts:
        node.outputs.clear()
    graph.add_node("Split", arguments, attrs, outputs=outputs, name=name, before=first)
    graph.remove(*parts)
