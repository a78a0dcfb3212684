"""Raise the model to the opset that a pass or target needs, and no further.

1. A model at or above `floor` is left as it is; nothing is ever lowered. The IR version rises to the one that came
   with that opset, so that runtimes of its time still load the file.
2. An operator whose newer version only takes more types, or more attributes and inputs that may be left out, stays.
3. Attributes that became inputs (axes of Squeeze, Unsqueeze and the reductions, bounds of Slice and Clip, pads,
   sizes of Split, …) move there as initializers.
4. Softmax, LogSoftmax and Hardmax meant "flatten to a matrix at `axis`" before opset 13 and mean one axis since: where
   that is not the same, the flattening is written out.
5. Upsample and Resize keep the sampling of their day: asymmetric, rounded down (up where they make smaller).
6. Where the meaning changed in a way that cannot be kept, the error names the node. onnx's own converter is not used:
   it drops metadata and gives up on models with custom domains.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import defs, helper

from onnxopt import Context, Graph, OptimizationError, Pass, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Array, Node, Tensor, Variable, is_standard, label

OLDEST = 7  # before, operators broadcast by attributes; ONNX Runtime does not promise to run them either
NEWEST_IR = 10  # later ones add types and device notes, and older runtimes refuse them
HALF_SCALES = 19  # from here on QuantizeLinear and DequantizeLinear take float16 scales
NEWEST = 25  # the versions of all operators were compared up to here
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


class UpgradeOpset(Pass):
    """Raise the model to the opset that a pass or target needs, and no further.

    When to use it: before per-channel quantization (opset 13). The pipeline `quantize` runs it where needed.

    Example:
        before: opset 11, `y = Squeeze <axes = [1]> (x)`
        after:  opset 13, `y = Squeeze (x, [1])`

    Effect: rounding. The operators compute the same, but a runtime may have another kernel for a newer version:
    ONNX Runtime adds up an AveragePool in another order from opset 19 on. Up to opset 18 it is bit for bit the same.
    """

    name = "upgrade-opset"
    effect = "rounding"

    floor: int = option(default=13, help="Opset to raise the model to if it is below.", low=OLDEST, high=NEWEST)
    precision: str = option(
        default="fp32", help="What is to run beside int8: for fp16 the floor is 19 at least.", choices=("fp32", "fp16")
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Rewrite node by node, nested graphs included."""
        floor = max(self.floor, HALF_SCALES) if self.precision == "fp16" else self.floor
        if graph.opset >= floor:
            return False
        if graph.opset < OLDEST:
            raise OptimizationError(f"opset {graph.opset} cannot be upgraded; export the model at {OLDEST} or above")
        if graph.functions:
            raise OptimizationError(
                f"local functions cannot be raised from opset {graph.opset} to {floor}; "
                f"export the model at opset {floor} or above, or inline them"
            )
        rewriter = _Rewriter(graph, context.get(Shapes))
        for node in list(graph.walk()):
            if is_standard(node):
                rewriter.upgrade(node, floor)
        if rewriter.rewritten:
            context.count("nodes rewritten", rewriter.rewritten)
        graph.set_opset("", floor)
        came_with: int = helper.find_min_ir_version_for([helper.make_opsetid("", floor)])
        graph.set_ir_version(max(graph.ir_version, min(came_with, NEWEST_IR)))
        return True


class _Rewriter:
    """Takes nodes from one version of their operator to the next."""

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.graph = graph
        self.shapes = shapes
        self.rewritten = 0
        self._top = {id(n) for n in graph.nodes}
        self._opset = graph.opset

    def upgrade(self, node: Node, floor: int) -> None:
        """Rewrite a node for an opset.

        Raises:
            OptimizationError: Its meaning cannot be kept.
        """
        version = self._opset
        while (step := _next_version(node.op, version, floor)) is not None:
            adapt = ADAPTERS.get((node.op, step))
            if adapt is not None:
                adapt(node, self)
                self.rewritten += 1
            elif (node.op, step) in CHANGED or not _compatible(node.op, step):
                self.fail(node, f"{node.op} means something else since opset {step}")
            version = step

    def fail(self, node: Node, reason: str) -> None:
        """Raise an error that names the node."""
        raise OptimizationError(f"{label(node)} cannot be taken to a newer opset: {reason}; export the model anew")

    def to_input(self, node: Node, attribute: str, place: int, dtype: Any = np.int64) -> None:
        """Make an attribute an input."""
        if attribute in node.attrs:
            self.set_input(node, place, np.array(node.attrs.pop(attribute), dtype), attribute)

    def set_input(self, node: Node, place: int, values: Array, name: str) -> None:
        """Give a node a constant input; optional ones before it are left out."""
        left_out = [Variable.empty() for _ in range(place - len(node.inputs))]
        constant = self.graph.add_constant(f"{node.name or node.outputs[0].name}_{name}", values)
        node.inputs = [*node.inputs[:place], *left_out, constant, *node.inputs[place + 1 :]]

    def dtype(self, node: Node) -> Any:
        """Element type of a node's first input; float where it is not known."""
        return self.shapes.dtype(node.inputs[0]) or np.dtype(np.float32)

    def reads(self, tensor: Tensor) -> bool:
        """Whether anything reads a tensor."""
        return bool(tensor.outputs) or self.graph.is_output(tensor)

    def flatten_around(self, node: Node, axis: int) -> None:
        """Let a node work on its input flattened to a matrix at `axis`, and give its output the shape of its input."""
        if id(node) not in self._top:
            self.fail(node, "it stands in a nested graph, where nodes are not added")
        source, output = node.inputs[0], node.outputs[0]
        static = self.shapes.static(source)
        known = None if static is None else np.array(static, np.int64)
        target: Any = self.graph.add_node("Shape", [source]).outputs[0] if known is None else known
        flat = self.graph.add_node("Flatten", [source], {"axis": axis}, name=f"{node.name}_flatten").outputs[0]
        node.inputs = [flat]
        node.outputs = [Variable(self.graph.unique_name(f"{output.name}_flat"))]
        self.graph.add_node("Reshape", [node.outputs[0], target], outputs=[output], name=f"{node.name}_shape")


def _next_version(op: str, version: int, floor: int) -> int | None:
    """The next opset above `version` that brought a new version of an operator; None where none up to `floor` did."""
    for opset in range(version + 1, floor + 1):
        if defs.has(op, opset) and defs.get_schema(op, opset).since_version == opset:
            return opset
    return None


def _compatible(op: str, step: int) -> bool:
    """Whether the version of an operator that came at `step` runs nodes of the one before and means the same."""
    if not defs.has(op, step - 1):
        return True
    old, new = defs.get_schema(op, step - 1), defs.get_schema(op, step)
    if new.deprecated or len(new.inputs) < len(old.inputs) or len(new.outputs) < len(old.outputs):
        return False
    kept = all(name in new.attributes and _same(a, new.attributes[name]) for name, a in old.attributes.items())
    added = [a for name, a in new.attributes.items() if name not in old.attributes]
    more = (*new.inputs[len(old.inputs) :], *new.outputs[len(old.outputs) :])
    optional = all(value.option == defs.OpSchema.FormalParameterOption.Optional for value in more)
    return kept and optional and not any(a.required for a in added)


def _same(old: defs.OpSchema.Attribute, new: defs.OpSchema.Attribute) -> bool:
    """Whether an attribute kept type and default, and is not asked for where it could be left out."""
    defaults = (a.default_value.SerializeToString(deterministic=True) for a in (old, new))
    return old.type == new.type and len(set(defaults)) == 1 and (old.required or not new.required)


def _batch_normalization_9(node: Node, rewriter: _Rewriter) -> None:
    if not node.attrs.pop("spatial", 1):
        rewriter.fail(node, "it normalizes each place by itself (spatial = 0)")


def _batch_normalization_14(node: Node, rewriter: _Rewriter) -> None:
    if any(t.name for t in node.outputs[1:]):
        rewriter.fail(node, "it is in training mode")


def _dropout_10(node: Node, rewriter: _Rewriter) -> None:
    if any(rewriter.reads(t) for t in node.outputs[1:]):
        rewriter.fail(node, "its mask is read, which was no truth value then")


def _dropout_12(node: Node, rewriter: _Rewriter) -> None:
    rewriter.to_input(node, "ratio", 1, np.float32)


def _slice_10(node: Node, rewriter: _Rewriter) -> None:
    for place, name in enumerate(("starts", "ends", "axes"), 1):
        rewriter.to_input(node, name, place)


def _top_k_10(node: Node, rewriter: _Rewriter) -> None:
    rewriter.set_input(node, 1, np.array([node.attrs.pop("k")], np.int64), "k")


def _clip_11(node: Node, rewriter: _Rewriter) -> None:
    for place, name in enumerate(("min", "max"), 1):
        rewriter.to_input(node, name, place, rewriter.dtype(node))


def _pad_11(node: Node, rewriter: _Rewriter) -> None:
    rewriter.to_input(node, "pads", 1)
    rewriter.to_input(node, "value", 2, rewriter.dtype(node))


def _upsample_9(node: Node, rewriter: _Rewriter) -> None:
    rewriter.to_input(node, "scales", 1, np.float32)


def _upsample_10(node: Node, _: _Rewriter) -> None:
    node.op = "Resize"


def _resize_11(node: Node, rewriter: _Rewriter) -> None:
    scales = rewriter.graph.constant(node.inputs[1])
    node.attrs["coordinate_transformation_mode"] = "asymmetric"
    if node.attrs.get("mode", "nearest") == "nearest":
        if scales is None or ((scales > 1).any() and (scales < 1).any()):
            rewriter.fail(node, "whether it makes larger or smaller is not known beforehand")
            return
        node.attrs["nearest_mode"] = "ceil" if (scales < 1).any() else "floor"
    sizes = node.inputs[1]
    rewriter.set_input(node, 1, np.empty(0, np.float32), "roi")
    node.inputs = [*node.inputs, sizes]


def _scatter_11(node: Node, _: _Rewriter) -> None:
    node.op = "ScatterElements"


def _softmax_13(node: Node, rewriter: _Rewriter) -> None:
    axis = node.attrs.get("axis", 1)
    shape = rewriter.shapes.shape(node.inputs[0])
    behind = () if axis == -1 else None if shape is None else shape[axis % len(shape) + 1 :]
    if behind is not None and all(size == 1 for size in behind):
        node.attrs["axis"] = axis
        return
    node.attrs["axis"] = -1
    rewriter.flatten_around(node, axis)


def _axes_to_input(node: Node, rewriter: _Rewriter) -> None:
    rewriter.to_input(node, "axes", 1)


def _split_13(node: Node, rewriter: _Rewriter) -> None:
    rewriter.to_input(node, "split", 1)


def _split_18(node: Node, _: _Rewriter) -> None:
    if len(node.inputs) < 2 or not node.inputs[1].name:
        node.attrs["num_outputs"] = len(node.outputs)


def _roi_align_16(node: Node, _: _Rewriter) -> None:
    node.attrs.setdefault("coordinate_transformation_mode", "output_half_pixel")


def _grid_sample_20(node: Node, _: _Rewriter) -> None:
    new_names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = node.attrs.get("mode", "bilinear")
    node.attrs["mode"] = new_names.get(mode, mode)


ADAPTERS: dict[tuple[str, int], Callable[[Node, _Rewriter], None]] = {
    ("BatchNormalization", 9): _batch_normalization_9,
    ("BatchNormalization", 14): _batch_normalization_14,
    ("Clip", 11): _clip_11,
    ("Dropout", 10): _dropout_10,
    ("Dropout", 12): _dropout_12,
    ("GridSample", 20): _grid_sample_20,
    ("Hardmax", 13): _softmax_13,
    ("LogSoftmax", 13): _softmax_13,
    ("Pad", 11): _pad_11,
    ("ReduceSum", 13): _axes_to_input,
    **{(f"Reduce{kind}", 18): _axes_to_input for kind in REDUCTIONS},
    ("Resize", 11): _resize_11,
    ("RoiAlign", 16): _roi_align_16,
    ("Scatter", 11): _scatter_11,
    ("Slice", 10): _slice_10,
    ("Softmax", 13): _softmax_13,
    ("Split", 13): _split_13,
    ("Split", 18): _split_18,
    ("Squeeze", 13): _axes_to_input,
    ("TopK", 10): _top_k_10,
    ("Unsqueeze", 13): _axes_to_input,
    ("Upsample", 9): _upsample_9,
    ("Upsample", 10): _upsample_10,
}

# A new meaning under the same signature.
CHANGED = frozenset({("GroupNormalization", 21)})
