"""Rewrites that only one target wants, before calibration.

For a target with `contrib_silu` (ONNX Runtime):

1. SiLU: Mul(x, Sigmoid(x)) = QuickGelu(x; alpha=1), one kernel instead of two passes over memory.

For every target whose int8 kernels know GlobalAveragePool and no ReduceMean (`ort`):

2. ReduceMean(x; axes=(2, 3), keepdims=1) = GlobalAveragePool(x). With keepdims=0 a Flatten follows.

For a target with `softmax_by_exp`:

3. The expectation over the bins of a distribution-focal-loss head, sum_i i·softmax(x)_i over axis 1, is
   (sum_i i·e^x_i) / (sum_i e^x_i): Clip, Exp, one 1x1 Conv with two rows of weights, Split, Div. Clip to ±80 keeps
   the sum finite; softmax is the same there to float rounding. ONNX Runtime's Softmax over axis 1 is slow.
"""

import numpy as np

from onnxopt import Constant, Context, Graph, Node, Pass, Tensor, Variable, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import is_standard
from onnxopt.placement.tail import is_expectation

EXP_LIMIT = 80.0  # e^80 * 1024 bins is still a finite float32


class Lower(Pass):
    """Rewrite what the target runs faster in another form.

    When to use it: before `calibrate`, so that the calibrated graph is the one that will run; the pipeline `quantize`
    does it. Nothing is rewritten for a target that gains nothing.

    Example:
        before: `s = Sigmoid (x)`, `y = Mul (x, s)`
        after:  `y = com.microsoft.QuickGelu <alpha = 1.0> (x)` for the target `ort`

    Effect: rounding. The forms are equal in exact arithmetic.
    """

    name = "lower"
    effect = "rounding"

    contrib: bool = option(default=True, help="Allow operators of the domain com.microsoft where the target has them.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Apply the rules that the target asks for."""
        rewritten = 0
        if context.target.contrib_silu and self.contrib:
            rewritten += _silu(graph, context)
        if "ReduceMean" not in context.target.rules and "GlobalAveragePool" in context.target.rules:
            rewritten += _mean(graph, context)
        if context.target.softmax_by_exp:
            rewritten += _expectation(graph, context)
        return rewritten > 0


def _silu(graph: Graph, context: Context) -> int:
    count = 0
    for mul in graph.nodes_of("Mul"):
        found = _gate(graph, mul)
        if found is None:
            continue
        x, sigmoid = found
        if len(graph.consumers(sigmoid.outputs[0])) > 1 or graph.is_output(sigmoid.outputs[0]):
            context.note(mul, "SiLU whose Sigmoid is read elsewhere too")
            continue
        output = mul.outputs[0]
        name, place = mul.name, mul
        mul.outputs.clear()
        graph.add_node(
            "QuickGelu", [x], {"alpha": 1.0}, outputs=[output], name=name, domain="com.microsoft", before=place
        )
        graph.remove(mul, sigmoid)
        count += 1
    if count:
        graph.set_opset("com.microsoft", 1)
        context.count("SiLU to QuickGelu", count)
    return count


def _gate(graph: Graph, mul: Node) -> tuple[Tensor, Node] | None:
    for x, gate in (mul.inputs, mul.inputs[::-1]):
        sigmoid = graph.producer(gate)
        if sigmoid is not None and sigmoid.op == "Sigmoid" and is_standard(sigmoid) and sigmoid.inputs[0] is x:
            return x, sigmoid
    return None


def _mean(graph: Graph, context: Context) -> int:
    count = 0
    shapes = context.get(Shapes)
    for node in graph.nodes_of("ReduceMean"):
        axes = _axes(graph, node)
        rank = shapes.rank(node.inputs[0])
        if axes is None or rank != 4 or sorted(a % 4 for a in axes) != [2, 3]:
            context.note(node, "ReduceMean over other axes than height and width")
            continue
        x, output = node.inputs[0], node.outputs[0]
        keep = node.attrs.get("keepdims", 1)
        node.outputs.clear()
        pooled = output if keep else Variable(graph.unique_name(f"{output.name}_pooled"))
        graph.add_node("GlobalAveragePool", [x], outputs=[pooled], name=node.name, before=node)
        if not keep:
            graph.add_node("Flatten", [pooled], {"axis": 1}, outputs=[output], name=f"{node.name}_flatten", before=node)
        graph.remove(node)
        count += 1
    if count:
        context.count("ReduceMean to GlobalAveragePool", count)
    return count


def _axes(graph: Graph, node: Node) -> list[int] | None:
    if "axes" in node.attrs:
        return [int(a) for a in node.attrs["axes"]]
    values = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if values is None else [int(a) for a in values]


def _expectation(graph: Graph, context: Context) -> int:
    count = 0
    for conv in graph.nodes_of("Conv"):
        softmax = graph.producer(conv.inputs[0])
        if softmax is None or softmax.op != "Softmax" or not is_expectation(graph, conv) or len(conv.inputs) > 2:
            continue
        axis = softmax.attrs.get("axis", -1)
        if axis % 4 != 1 or len(graph.consumers(softmax.outputs[0])) > 1 or graph.is_output(softmax.outputs[0]):
            context.note(softmax, "softmax of a box head over another axis, or read elsewhere too")
            continue
        _rewrite_expectation(graph, softmax, conv)
        count += 1
    if count:
        context.count("box softmax to Exp and Conv", count)
    return count


def _rewrite_expectation(graph: Graph, softmax: Node, conv: Node) -> None:
    bins = graph.constant(conv.inputs[1])
    assert bins is not None
    output = conv.outputs[0]
    conv.outputs.clear()
    limits = [np.asarray(b, np.float32) for b in (-EXP_LIMIT, EXP_LIMIT)]
    x = graph.add_node("Clip", [softmax.inputs[0], *limits], name=f"{softmax.name}_clip", before=conv).outputs[0]
    x = graph.add_node("Exp", [x], name=f"{softmax.name}_exp", before=conv).outputs[0]
    weight: Constant = graph.add_constant(f"{conv.name}_bins", np.concatenate([bins, np.ones_like(bins)]))
    sums = graph.add_node("Conv", [x, weight], {"kernel_shape": [1, 1]}, name=conv.name, before=conv).outputs[0]
    sizes = np.asarray([1, 1], np.int64)
    parts = graph.add_node("Split", [sums, sizes], {"axis": 1}, outputs=2, name=f"{conv.name}_split", before=conv)
    graph.add_node("Div", list(parts.outputs), outputs=[output], name=f"{conv.name}_mean", before=conv)
    graph.remove(conv, softmax)
