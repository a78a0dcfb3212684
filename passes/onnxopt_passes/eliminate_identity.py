"""Remove nodes that hand on their input as it is, and merge neighbours that undo or repeat each other.

1. Always the input: Identity, Dropout at inference, Concat, Sum, Max, Min and Mean of one tensor, Split into one part.
2. The input for these arguments: Transpose that keeps the order, Cast to the same type, Pad by nothing, Slice of
   everything, Tile once, Resize and Upsample by 1, pooling over 1x1, x * 1, x / 1, x - 0.
3. The input because the shape stays: Reshape, Flatten, Squeeze, Unsqueeze, Expand.
4. Transpose of Transpose is one Transpose or none; of two Reshape-like nodes the first goes, or both where they undo
   each other.
5. Cast of Cast: the first goes where it loses nothing (every value of the source type exists in the middle type).
6. Slice of Slice along other axes is one Slice; Concat of Concat along the same axis is one Concat.
7. All parts of a Split, side by side in a Concat, are what was split; a Split of which one part is then left is a
   Slice.

x + 0 stays: it turns -0 into +0, so it is not exact. So does x * 0 (infinity, NaN). Names of graph outputs stay: a
node between a graph input and a graph output is left alone.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from onnxopt import Context, Graph, Pass
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Array, Node, Tensor, is_standard

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
TO_THE_END = 2**31 - 1  # an end of a Slice that exporters write for "everything"


class EliminateIdentity(Pass):
    """Remove nodes that hand on their input as it is, and merge neighbours that undo each other.

    When to use it: after `fold-constants`, which lets shapes and arguments be known. `simplify` runs both.

    Example:
        before: `a = Transpose <perm = [0, 2, 1]> (x)`, `b = Transpose <perm = [0, 2, 1]> (a)`, `y = Relu (b)`
        after:  `y = Relu (x)`

    Effect: exact.
    """

    name = "eliminate-identity"
    effect = "exact"

    def run(self, graph: Graph, context: Context) -> bool:
        """One walk in order of execution, so that chains collapse from their start."""
        graph.sort()
        facts = _Facts(graph, context)
        removed, merged = 0, 0
        for node in list(graph.nodes):
            if not is_standard(node) or not node.outputs:
                continue
            merge = MERGES.get("View" if node.op in VIEWS else node.op)
            merged += merge is not None and merge(node, facts)
            source = _source(node, facts)
            if source is not None:
                if graph.bypass(node, source):
                    removed += 1
                else:
                    context.note(node, "stands between a graph input and a graph output, whose names stay")
        if removed:
            context.count("nodes removed", removed)
        if merged:
            context.count("nodes merged", merged)
        return bool(removed or merged)


class _Facts:
    """What the rules ask about tensors and arguments."""

    def __init__(self, graph: Graph, context: Context) -> None:
        self.graph = graph
        self.context = context
        self._shapes = context.get(Shapes)
        # Exporters name several open dimensions of an input alike ("?"); such a name proves nothing.
        count = Counter(d for t in graph.inputs for d in t.shape or () if isinstance(d, str))
        self._ambiguous = {symbol for symbol, times in count.items() if times > 1}

    def dims(self, tensor: Tensor) -> Shape | None:
        """Dimensions; None for one that is not known."""
        shape = self._shapes.shape(tensor)
        if shape is None:
            return None
        known = (d if isinstance(d, str) or (d is not None and d >= 0) else None for d in shape)
        return tuple(None if d in self._ambiguous else d for d in known)

    def same_shape(self, a: Tensor, b: Tensor, *, same_count: bool = False) -> bool:
        """Whether two tensors surely have one shape; tensors of as many elements may differ in one unknown."""
        first, second = self.dims(a), self.dims(b)
        if first is None or second is None or len(first) != len(second):
            return False
        unlike = [(x, y) for x, y in zip(first, second, strict=True) if x is None or y is None or x != y]
        if same_count and len(unlike) == 1 and 0 not in first:
            return None in unlike[0] or any(isinstance(d, str) for d in unlike[0])
        return not unlike

    def dtype(self, tensor: Tensor) -> Any:
        """Element type, or None."""
        return self._shapes.dtype(tensor)

    def constant(self, node: Node, place: int) -> Array | None:
        """Value of an input; None where it is absent or not constant."""
        present = place < len(node.inputs) and node.inputs[place].name
        return self.graph.constant(node.inputs[place]) if present else None

    def numbers(self, node: Node, name: str, place: int) -> list[Any] | None:
        """A list that is an attribute in old operator sets and an input in new ones."""
        if name in node.attrs:
            return list(node.attrs[name])
        value = self.constant(node, place)
        return None if value is None else list(value.ravel().tolist())

    def absent(self, node: Node, place: int) -> bool:
        """Whether an optional input is not given."""
        return place >= len(node.inputs) or not node.inputs[place].name

    def feeds_only(self, tensor: Tensor, node: Node) -> bool:
        """Whether a tensor has one reader, which is this node, and is no graph output."""
        return not self.graph.is_output(tensor) and all(c is node for c in tensor.outputs)

    def before(self, node: Node, *ops: str) -> Node | None:
        """The node that computes input 0, if it is one of the given ops."""
        producer = self.graph.producer(node.inputs[0])
        return producer if producer is not None and producer.op in ops and is_standard(producer) else None


def _source(node: Node, facts: _Facts) -> Tensor | None:
    """The tensor that a node's first output always equals, or None."""
    if any(t.name and (t.outputs or facts.graph.is_output(t)) for t in node.outputs[1:]):
        return None  # mask of Dropout, indices of MaxPool
    rule = RULES.get(node.op)
    return rule(node, facts) if rule is not None else None


def _only_input(node: Node, facts: _Facts) -> Tensor | None:
    return node.inputs[0] if all(facts.absent(node, place) for place in range(1, len(node.inputs))) else None


def _dropout(node: Node, facts: _Facts) -> Tensor | None:
    if facts.absent(node, 2):
        trains = facts.graph.opset < 7 and not node.attrs.get("is_test", 0)
    else:
        mode = facts.constant(node, 2)
        trains = mode is None or bool(mode)
    return None if trains else node.inputs[0]


def _split(node: Node, facts: _Facts) -> Tensor | None:
    return node.inputs[0] if len(node.outputs) == 1 and facts.same_shape(node.inputs[0], node.outputs[0]) else None


def _transpose(node: Node, facts: _Facts) -> Tensor | None:
    perm = _perm(node, facts)
    return node.inputs[0] if perm is not None and perm == sorted(perm) else None


def _perm(node: Node, facts: _Facts) -> list[int] | None:
    if "perm" in node.attrs:
        return list(node.attrs["perm"])
    dims = facts.dims(node.inputs[0])
    return None if dims is None else list(range(len(dims)))[::-1]


def _cast(node: Node, facts: _Facts) -> Tensor | None:
    given = facts.dtype(node.inputs[0])
    wanted = facts.dtype(node.inputs[1]) if node.op == "CastLike" else _numpy(node.attrs["to"])
    return node.inputs[0] if given is not None and given == wanted else None


def _numpy(kind: int) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(kind)


def _pad(node: Node, facts: _Facts) -> Tensor | None:
    pads = facts.numbers(node, "pads", 1)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _slice(node: Node, facts: _Facts) -> Tensor | None:
    starts, ends = facts.numbers(node, "starts", 1), facts.numbers(node, "ends", 2)
    steps = [1] if facts.absent(node, 4) else facts.numbers(node, "steps", 4)
    if steps is None or any(step != 1 for step in steps):
        return None
    everything = starts is not None and ends is not None and not any(starts) and min(ends) >= TO_THE_END
    return node.inputs[0] if everything or facts.same_shape(node.inputs[0], node.outputs[0]) else None


def _tile(node: Node, facts: _Facts) -> Tensor | None:
    repeats = facts.constant(node, 1)
    return node.inputs[0] if repeats is not None and (repeats == 1).all() else None


def _resize(node: Node, facts: _Facts) -> Tensor | None:
    cropped = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if cropped or node.attrs.get("mode", "nearest") not in {"nearest", "linear"}:
        return None
    old = node.op == "Upsample" or facts.graph.opset < 11
    scales = facts.numbers(node, "scales", 1 if old else 2)
    by_one = bool(scales) and all(scale == 1 for scale in scales or ())
    sized = not old and not facts.absent(node, 3) and facts.same_shape(node.inputs[0], node.outputs[0])
    return node.inputs[0] if by_one or sized else None


def _pool(node: Node, facts: _Facts) -> Tensor | None:  # noqa: ARG001  (rules share a signature)
    ones = [*node.attrs.get("kernel_shape", [0]), *node.attrs.get("strides", [])]
    return node.inputs[0] if set(ones) == {1} and not any(node.attrs.get("pads", [])) else None


def _view(node: Node, facts: _Facts) -> Tensor | None:
    return node.inputs[0] if facts.same_shape(node.inputs[0], node.outputs[0], same_count=True) else None


def _expand(node: Node, facts: _Facts) -> Tensor | None:
    target, dims = facts.constant(node, 1), facts.dims(node.inputs[0])
    ones = target is not None and dims is not None and target.size <= len(dims) and (target == 1).all()
    return node.inputs[0] if ones or facts.same_shape(node.inputs[0], node.outputs[0]) else None


def _neutral(node: Node, facts: _Facts) -> Tensor | None:
    """X * 1, 1 * x, x / 1, x - 0, where the constant does not widen x."""
    for place in (1, 0) if node.op in {"Mul", "Add"} else (1,):
        value = facts.constant(node, place)
        other = node.inputs[1 - place]
        if value is None or not value.size or not _is_neutral(node, value, facts):
            continue
        dims = facts.dims(other)
        if facts.same_shape(other, node.outputs[0]) or (
            value.size == 1 and dims is not None and value.ndim <= len(dims)
        ):
            return other
    return None


def _is_neutral(node: Node, value: Array, facts: _Facts) -> bool:
    if node.op in {"Mul", "Div"}:
        return bool((value == 1).all())
    if not (value == 0).all():
        return False
    if node.op == "Sub" or value.dtype.kind in "iu":
        return not np.signbit(value).any() if value.dtype.kind == "f" else True
    negative = bool(np.signbit(value).all())
    if not negative:
        facts.context.note(node, "adding 0 turns -0 into +0, which is not exact")
    return negative


RULES: dict[str, Callable[[Node, _Facts], Tensor | None]] = {
    "Identity": _only_input,
    "Concat": _only_input,
    "Sum": _only_input,
    "Max": _only_input,
    "Min": _only_input,
    "Mean": _only_input,
    "Dropout": _dropout,
    "Split": _split,
    "Transpose": _transpose,
    "Cast": _cast,
    "CastLike": _cast,
    "Pad": _pad,
    "Slice": _slice,
    "Tile": _tile,
    "Resize": _resize,
    "Upsample": _resize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Reshape": _view,
    "Flatten": _view,
    "Squeeze": _view,
    "Unsqueeze": _view,
    "Expand": _expand,
    "Mul": _neutral,
    "Div": _neutral,
    "Sub": _neutral,
    "Add": _neutral,
}


def _merge_transposes(node: Node, facts: _Facts) -> bool:
    inner = facts.before(node, "Transpose")
    perm = _perm(node, facts)
    first = None if inner is None else _perm(inner, facts)
    if inner is None or perm is None or first is None:
        return False
    node.inputs[0] = inner.inputs[0]
    node.attrs["perm"] = [first[axis] for axis in perm]
    _drop_unread(inner, facts)
    return True


def _merge_views(node: Node, facts: _Facts) -> bool:
    """The second of two Reshape-like nodes reads the first one's input, as a Reshape to a constant target."""
    inner = facts.before(node, *VIEWS)
    if inner is None:
        return False
    source = inner.inputs[0]
    undone = facts.same_shape(source, node.outputs[0], same_count=True)
    if undone:
        node.op, node.attrs, node.inputs = "Identity", {}, [source]
        _drop_unread(inner, facts)
        return True
    if not facts.feeds_only(inner.outputs[0], node):
        return False
    target = _target(source, node.outputs[0], facts)
    if target is None:
        facts.context.note(node, "follows a Reshape, but more than one size of its output is not known beforehand")
        return False
    node.op, node.attrs = "Reshape", {}
    node.inputs = [source, facts.graph.add_constant(f"{node.name or 'Reshape'}_shape", np.array(target, np.int64))]
    _drop_unread(inner, facts)
    return True


def _target(source: Tensor, output: Tensor, facts: _Facts) -> list[int] | None:
    """Target of a Reshape from `source` to the shape of `output`: -1 for one unknown, 0 for a dimension kept."""
    dims, given = facts.dims(output), facts.dims(source) or ()
    if dims is None or 0 in dims:
        return None
    target: list[int] = []
    for place, dim in enumerate(dims):
        kept = isinstance(dim, str) and given[place : place + 1] == (dim,)
        target.append(dim if isinstance(dim, int) else 0 if kept else -1)
    return target if target.count(-1) <= 1 else None


def _merge_casts(node: Node, facts: _Facts) -> bool:
    inner = facts.before(node, "Cast")
    given = None if inner is None else facts.dtype(inner.inputs[0])
    if inner is None or given is None:
        return False
    middle, last = _numpy(inner.attrs["to"]), _numpy(node.attrs["to"])
    plain = all(kind.kind in "biuf" for kind in (given, middle, last))
    rounded = given.kind in "iu" and given.itemsize == 8 and middle.kind == "f"  # numpy calls this safe
    if not plain or rounded or not np.can_cast(given, middle, "safe"):
        return False
    node.inputs[0] = inner.inputs[0]
    _drop_unread(inner, facts)
    return True


def _merge_slices(node: Node, facts: _Facts) -> bool:
    inner = facts.before(node, "Slice")
    if inner is None or facts.graph.opset < 10 or not facts.feeds_only(inner.outputs[0], node):
        return False
    parts = [_slice_arguments(n, facts) for n in (inner, node)]
    if parts[0] is None or parts[1] is None:
        return False
    both = [first + second for first, second in zip(*parts, strict=True)]
    dims = facts.dims(inner.inputs[0])
    axes = [axis % len(dims) if dims else axis for axis in both[2]]
    if len(set(axes)) < len(axes) or min(axes) < 0:
        return False
    named = zip(("starts", "ends", "axes", "steps"), (both[0], both[1], axes, both[3]), strict=True)
    arrays = [facts.graph.add_constant(f"{node.name}_{name}", np.array(v, np.int64)) for name, v in named]
    node.inputs = [inner.inputs[0], *arrays]
    _drop_unread(inner, facts)
    return True


def _slice_arguments(node: Node, facts: _Facts) -> list[list[int]] | None:
    """Starts, ends, axes, steps; None where one is not constant."""
    starts, ends = facts.numbers(node, "starts", 1), facts.numbers(node, "ends", 2)
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if facts.absent(node, 3) else facts.numbers(node, "axes", 3)
    steps = [1] * len(starts) if facts.absent(node, 4) else facts.numbers(node, "steps", 4)
    return None if axes is None or steps is None else [starts, ends, axes, steps]


def _merge_concats(node: Node, facts: _Facts) -> bool:
    inner = next((p for t in node.inputs if (p := _same_concat(t, node, facts)) is not None), None)
    if inner is not None:
        place = next(i for i, t in enumerate(node.inputs) if t is inner.outputs[0])
        node.inputs = [*node.inputs[:place], *inner.inputs, *node.inputs[place + 1 :]]
        _drop_unread(inner, facts)
        _merge_concats(node, facts)
        return True
    return _join_parts(node, facts)


def _join_parts(node: Node, facts: _Facts) -> bool:
    axis = node.attrs.get("axis", 1)
    for place, tensor in enumerate(node.inputs):
        split = facts.graph.producer(tensor)
        if split is None or split.op != "Split" or not is_standard(split) or split.attrs.get("axis", 0) != axis:
            continue
        end = place + len(split.outputs)
        if end - place > 1 and [id(t) for t in node.inputs[place:end]] == [id(t) for t in split.outputs]:
            node.inputs = [*node.inputs[:place], split.inputs[0], *node.inputs[end:]]
            _narrow(split, facts)
            return True
    return False


def _narrow(split: Node, facts: _Facts) -> None:
    """Take out a Split that nobody reads; make it a Slice where one part is read."""
    read = [i for i, t in enumerate(split.outputs) if t.outputs or facts.graph.is_output(t)]
    sizes = _part_sizes(split, facts)
    if not read:
        facts.graph.remove(split)
    elif len(read) == 1 and sizes is not None and facts.graph.opset >= 10:
        start = sum(sizes[: read[0]])
        limits = [start, start + sizes[read[0]], split.attrs.get("axis", 0)]
        split.inputs = [
            split.inputs[0],
            *(
                facts.graph.add_constant(f"{split.name or 'Slice'}_{name}", np.array([limit], np.int64))
                for name, limit in zip(("start", "end", "axis"), limits, strict=True)
            ),
        ]
        split.op, split.attrs, split.outputs = "Slice", {}, [split.outputs[read[0]]]


def _part_sizes(split: Node, facts: _Facts) -> list[int] | None:
    given = facts.numbers(split, "split", 1)
    dims = facts.dims(split.inputs[0])
    if given is not None or dims is None:
        return given
    whole, parts = dims[split.attrs.get("axis", 0)], len(split.outputs)
    return [whole // parts] * parts if isinstance(whole, int) and whole % parts == 0 else None


def _same_concat(tensor: Tensor, node: Node, facts: _Facts) -> Node | None:
    producer = facts.graph.producer(tensor)
    if producer is None or producer.op != "Concat" or producer.attrs.get("axis", 1) != node.attrs.get("axis", 1):
        return None
    once = sum(t is tensor for t in node.inputs) == 1
    return producer if once and facts.feeds_only(tensor, node) else None


def _drop_unread(node: Node, facts: _Facts) -> None:
    if not any(t.outputs or facts.graph.is_output(t) for t in node.outputs):
        facts.graph.remove(node)


MERGES: dict[str, Callable[[Node, _Facts], bool]] = {
    "Transpose": _merge_transposes,
    "View": _merge_views,
    "Cast": _merge_casts,
    "Slice": _merge_slices,
    "Concat": _merge_concats,
}
