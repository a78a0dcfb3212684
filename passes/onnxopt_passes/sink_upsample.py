"""Move nearest-neighbour up-sampling behind the 1x1 convolution that reads it.

Up-sampling U repeats pixels; a 1x1 convolution looks at one pixel alone, so the two commute:

1. W U(x) + b = U(W x + b).
2. Behind a Concat, as in feature pyramids:  W [U(x), y] + b = U(W_x x) + (W_y y + b).

With factors of 2 the convolution of x costs a quarter, and fewer channels are up-sampled and concatenated. Weights
are split, never computed anew, so only the order of the sums changes. Left alone, with the reason: where the
convolution makes more channels than it reads from the up-sampling, and where others read the Concat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt import Context, Graph, Pass
from onnxopt.analysis.shapes import Shapes
from onnxopt.analysis.upsampling import repeats
from onnxopt.graph import Array, Node, Tensor, is_standard

PLAIN = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1, "auto_pad": "NOTSET"}


@dataclass(frozen=True)
class _Upsampling:
    """A Resize that repeats pixels, and how often along height and width."""

    node: Node
    factors: tuple[int, int]


class SinkUpsample(Pass):
    """Move nearest-neighbour up-sampling behind the 1x1 convolution that reads it, so that it computes less.

    When to use it: on detectors and segmentation networks with a feature pyramid, after `simplify`; the pipeline
    `quantize` does it.

    Example:
        before: `u = Resize (x)`, `c = Concat (u, y)`, `z = Conv (c, w, b)`
        after:  `p = Conv (x, w_x)`, `u = Resize (p)`, `q = Conv (y, w_y, b)`, `z = Add (u, q)`

    Effect: rounding. The same products, added in another order.
    """

    name = "sink-upsample"
    effect = "rounding"

    def run(self, graph: Graph, context: Context) -> bool:
        """Every 1x1 convolution in order of execution."""
        graph.sort()
        shapes = context.get(Shapes)
        sunk = 0
        for conv in graph.nodes_of("Conv"):
            if _is_pointwise(graph, conv):
                sunk += _sink(graph, conv, shapes, context)
        if sunk:
            context.count("up-samplings moved", sunk)
        return sunk > 0


def _is_pointwise(graph: Graph, conv: Node) -> bool:
    weight = graph.constant(conv.inputs[1]) if is_standard(conv) else None
    if weight is None or weight.shape[2:] != (1, 1):
        return False
    return all(conv.attrs.get(name, value) == value for name, value in PLAIN.items())


def _sink(graph: Graph, conv: Node, shapes: Shapes, context: Context) -> int:
    source = graph.producer(conv.inputs[0])
    if source is None or not is_standard(source):
        return 0
    concat = source if source.op == "Concat" and source.attrs.get("axis") in (1, -3) else None
    parts = list(concat.inputs) if concat is not None else [conv.inputs[0]]
    found = {i: u for i, t in enumerate(parts) if (u := _upsampling(graph, t, shapes)) is not None}
    if not found:
        return 0
    weight = graph.constant(conv.inputs[1])
    assert weight is not None
    counts = [_channels(t, shapes) for t in parts]
    if concat is not None and (len(concat.outputs[0].outputs) > 1 or graph.is_output(concat.outputs[0])):
        context.note(conv, "what it reads, an up-sampling among others, is read elsewhere too")
        return 0
    if any(c is None for c in counts) or sum(c or 0 for c in counts) != weight.shape[1]:
        context.note(conv, "how many channels it reads from an up-sampling is not known")
        return 0
    slices = _slices([c or 0 for c in counts])
    moved = {i: u for i, u in found.items() if len(weight) <= (counts[i] or 0)}
    if not moved:
        context.note(conv, "makes more channels than it reads from an up-sampling")
        return 0
    _rewrite(graph, conv, parts, weight, slices, moved)
    read = [concat] if concat is not None else []
    left = [*read, *(u.node for u in moved.values())]
    for node in {id(n): n for n in left}.values():  # a Concat may read one up-sampling twice
        if not node.outputs[0].outputs and not graph.is_output(node.outputs[0]):
            graph.remove(node)
    return len(moved)


def _upsampling(graph: Graph, tensor: Tensor, shapes: Shapes) -> _Upsampling | None:
    producer = graph.producer(tensor)
    factors = repeats(graph, producer, shapes) if producer is not None else None
    return _Upsampling(producer, factors) if producer is not None and factors is not None else None


def _channels(tensor: Tensor, shapes: Shapes) -> int | None:
    shape = shapes.shape(tensor)
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _slices(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts)
    return [slice(int(end) - count, int(end)) for count, end in zip(counts, ends, strict=True)]


def _rewrite(
    graph: Graph, conv: Node, parts: list[Tensor], weight: Array, slices: list[slice], moved: dict[int, _Upsampling]
) -> None:
    output = conv.outputs[0]
    bias = list(conv.inputs[2:])
    rest = [i for i in range(len(parts)) if i not in moved]
    terms = []
    if rest:
        y = parts[rest[0]] if len(rest) == 1 else _concat(graph, conv, [parts[i] for i in rest])
        own = graph.add_constant(f"{conv.name}_rest", np.concatenate([weight[:, slices[i]] for i in rest], axis=1))
        terms.append(_pointwise(graph, conv, [y, own, *bias], "rest"))
        bias = []
    for i, upsampling in moved.items():
        own = graph.add_constant(f"{conv.name}_part", np.ascontiguousarray(weight[:, slices[i]]))
        small = _pointwise(graph, conv, [upsampling.node.inputs[0], own, *bias], "part")
        terms.append(_resized(graph, conv, upsampling, small))
        bias = []
    conv.outputs.clear()
    total = terms[0]
    for term in terms[1:]:
        total = graph.add_node("Add", [total, term], name=f"{conv.name}_sum", before=conv).outputs[0]
    last = graph.producer(total)
    assert last is not None
    last.outputs[0] = output
    graph.remove(conv)


def _concat(graph: Graph, conv: Node, parts: list[Tensor]) -> Tensor:
    return graph.add_node("Concat", parts, {"axis": 1}, name=f"{conv.name}_concat", before=conv).outputs[0]


def _pointwise(graph: Graph, conv: Node, inputs: list[Tensor], what: str) -> Tensor:
    attrs = {"kernel_shape": [1, 1]}
    return graph.add_node("Conv", inputs, attrs, name=f"{conv.name}_{what}", before=conv).outputs[0]


def _resized(graph: Graph, conv: Node, moved: _Upsampling, x: Tensor) -> Tensor:
    """The same up-sampling of another tensor, by scales, for target sizes would name another count of channels."""
    inputs: list[Tensor | Array] = [x, moved.node.inputs[1], np.asarray([1, 1, *moved.factors], np.float32)]
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add_node("Resize", inputs, attrs, name=f"{conv.name}_resize", before=conv).outputs[0]
