"""Rewrites that only one target wants, before calibration.

For a target with `contrib_silu` (ONNX Runtime):

1. SiLU: Mul(x, Sigmoid(x)) = QuickGelu(x; alpha=1), one float kernel: everywhere, or, where the two int8 kernels that
   Sigmoid and Mul become are faster on this machine (see `analysis.silu_probe`), only where SiLU stays in float.

For every target whose int8 kernels know GlobalAveragePool and no ReduceMean (`ort`):

2. ReduceMean(x; axes=(2, 3), keepdims=1) = GlobalAveragePool(x). With keepdims=0 a Flatten follows.

For a target with `softmax_by_exp`:

3. The expectation over the bins of a distribution-focal-loss head, sum_i i·softmax(x)_i over axis 1, is
   (sum_i i·e^x_i) / (sum_i e^x_i): Exp, one 1x1 Conv with two rows of weights, Split, Div. ONNX Runtime's Softmax
   over axis 1 is slow. What keeps the sum finite: where the samples show logits within ±40, a Clip to ±80, which
   changes nothing up to twice of what was seen; else the maximum is subtracted first, as softmax itself does.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt import Constant, Context, Graph, Node, Pass, Tensor, Variable, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.analysis.silu_probe import faster_form
from onnxopt.calibration.collect import expose
from onnxopt.graph import is_standard
from onnxopt.placement import plan
from onnxopt.placement.tail import is_expectation
from onnxopt.runtime.adapter import load_runtime
from onnxopt.runtime.ort import OrtSession

EXP_LIMIT = 80.0  # e^80 * 1024 bins is still a finite float32
SEEN_LIMIT = EXP_LIMIT / 2
LOOKS = 4  # samples looked at to see how large the logits get


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

    silu: str = option(
        default="auto",
        help="Form of SiLU: quickgelu (an operator of com.microsoft), mixed (that where it stays in float, Sigmoid and "
        "Mul in int8 elsewhere), sigmoid (kept as it is), auto (quickgelu or mixed, as measured here).",
        choices=("auto", "quickgelu", "mixed", "sigmoid"),
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Apply the rules that the target asks for."""
        rewritten = 0
        if context.target.contrib_silu:
            rewritten += _silu(graph, context, self._form(graph, context))
        if "ReduceMean" not in context.target.rules and "GlobalAveragePool" in context.target.rules:
            rewritten += _mean(graph, context)
        if context.target.softmax_by_exp:
            rewritten += _expectation(graph, context)
        return rewritten > 0

    def _form(self, graph: Graph, context: Context) -> str:
        if self.silu != "auto":
            return self.silu
        runtime = load_runtime(context.target)
        form = "quickgelu"
        if runtime is not None and any(_gate(graph, mul) for mul in graph.nodes_of("Mul")):
            fastest, comparison = faster_form(runtime)
            form = "mixed" if fastest == "sigmoid" else fastest
            context.record.details["silu"] = str(comparison["sigmoid"])
        context.resolve(silu=form)
        return form


def _silu(graph: Graph, context: Context, form: str) -> int:
    if form == "sigmoid":
        return 0
    # With Sigmoid and Mul in place the plan tells which of them would run in int8.
    int8 = plan(graph, context.target, context.get(Shapes)).tensors if form == "mixed" else {}
    count = 0
    for mul in graph.nodes_of("Mul"):
        found = _gate(graph, mul)
        if found is None or mul.outputs[0].name in int8:
            continue
        x, sigmoid = found
        if len(graph.consumers(sigmoid.outputs[0])) > 1 or graph.is_output(sigmoid.outputs[0]):
            context.note(mul, "SiLU whose Sigmoid is read elsewhere too")
            continue
        output = mul.outputs[0]
        mul.outputs.clear()
        graph.add_node(
            "QuickGelu", [x], {"alpha": 1.0}, outputs=[output], name=mul.name, domain="com.microsoft", before=mul
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
    if graph.opset < 13:
        context.note(graph.source, "box softmax is rewritten from opset 13 on; run upgrade-opset before")
        return 0
    found = list(_box_heads(graph, context))
    largest = _largest(graph, [softmax.inputs[0].name for softmax, _ in found], context)
    for softmax, conv in found:
        _rewrite_expectation(graph, softmax, conv, small=largest[softmax.inputs[0].name] <= SEEN_LIMIT)
    if found:
        context.count("box softmax to Exp and Conv", len(found))
    return len(found)


def _largest(graph: Graph, names: list[str], context: Context) -> dict[str, float]:
    """Largest magnitude of some tensors on a few samples; infinite where there are no samples."""
    if not names or context.fit is None:
        return dict.fromkeys(names, np.inf)
    session = OrtSession(expose(graph, names).to_proto())
    largest = dict.fromkeys(names, 0.0)
    for sample in context.fit.take(LOOKS):
        for name, values in session.run(sample.feeds, names).items():
            largest[name] = max(largest[name], float(np.abs(values).max()))
    return largest


def _box_heads(graph: Graph, context: Context) -> Iterator[tuple[Node, Node]]:
    for conv in graph.nodes_of("Conv"):
        softmax = graph.producer(conv.inputs[0])
        if softmax is None or softmax.op != "Softmax" or not is_expectation(graph, conv) or len(conv.inputs) > 2:
            continue
        axis = softmax.attrs.get("axis", -1)
        if axis % 4 != 1 or len(graph.consumers(softmax.outputs[0])) > 1 or graph.is_output(softmax.outputs[0]):
            context.note(softmax, "softmax of a box head over another axis, or read elsewhere too")
            continue
        yield softmax, conv


def _rewrite_expectation(graph: Graph, softmax: Node, conv: Node, *, small: bool) -> None:
    bins = graph.constant(conv.inputs[1])
    assert bins is not None
    output = conv.outputs[0]
    conv.outputs.clear()
    x = softmax.inputs[0]
    if small:
        limits = [np.asarray(b, np.float32) for b in (-EXP_LIMIT, EXP_LIMIT)]
        x = graph.add_node("Clip", [x, *limits], name=f"{softmax.name}_clip", before=conv).outputs[0]
    else:
        as_input = graph.opset >= 18
        peak = graph.add_node(
            "ReduceMax",
            [x, np.asarray([1], np.int64)] if as_input else [x],
            {} if as_input else {"axes": [1]},
            name=f"{softmax.name}_peak",
            before=conv,
        ).outputs[0]
        x = graph.add_node("Sub", [x, peak], name=f"{softmax.name}_shift", before=conv).outputs[0]
    x = graph.add_node("Exp", [x], name=f"{softmax.name}_exp", before=conv).outputs[0]
    weight: Constant = graph.add_constant(f"{conv.name}_bins", np.concatenate([bins, np.ones_like(bins)]))
    sums = graph.add_node("Conv", [x, weight], {"kernel_shape": [1, 1]}, name=conv.name, before=conv).outputs[0]
    sizes = np.asarray([1, 1], np.int64)
    parts = graph.add_node("Split", [sums, sizes], {"axis": 1}, outputs=2, name=f"{conv.name}_split", before=conv)
    graph.add_node("Div", list(parts.outputs), outputs=[output], name=f"{conv.name}_mean", before=conv)
    graph.remove(conv, softmax)
