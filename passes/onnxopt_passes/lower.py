"""Rewrites that only one target wants, before calibration.

For a target with `contrib_silu` (ONNX Runtime):

1. SiLU: Mul(x, Sigmoid(x)) = QuickGelu(x; alpha=1), one float kernel: everywhere, or, where the two int8 kernels that
   Sigmoid and Mul become are faster on this machine (see `analysis.silu_probe`), only where SiLU stays in float.

For every target whose int8 kernels know GlobalAveragePool and no ReduceMean (`ort`):

2. ReduceMean(x; axes=(2, 3), keepdims=1) = GlobalAveragePool(x). With keepdims=0 a Flatten follows.

For a target with `softmax_by_exp`:

3. The expectation over the bins of a distribution-focal-loss head, sum_i i·softmax(x)_i over axis 1, is
   (sum_i i·e^x_i) / (sum_i e^x_i): Exp, one MatMul by two rows of weights, Split, Div, in the order of axes that the
   head comes in. ONNX Runtime's Softmax over axis 1 is slow. What keeps the sum finite: where the samples show logits
   within ±40, a Clip to ±80, which changes nothing up to twice of what was seen; else the maximum is subtracted
   first, as softmax itself does.

For a target with `resize_by_tile`:

4. Nearest-neighbour up-sampling by whole factors that will run in int8 is a Tile of pixels in channels-last layout:
   ONNX Runtime keeps int8 in that layout, where its Resize is ten times slower than copying.

For a target with `slow_subnormals`:

5. Softmax makes numbers so small that x86 multiplies them ten times slower (below 2^-126). Where the samples show more
   than one in a thousand of them in a Softmax that a MatMul reads, a Clip raises them to 2^-126.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from onnxopt import Context, Graph, Node, Pass, Tensor, Variable, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.analysis.silu_probe import faster_form
from onnxopt.analysis.upsampling import repeats
from onnxopt.calibration.collect import expose
from onnxopt.data import Sample
from onnxopt.graph import Array, is_standard
from onnxopt.placement import plan
from onnxopt.placement.tail import is_expectation
from onnxopt.runtime.adapter import load_runtime
from onnxopt.runtime.ort import OrtSession

EXP_LIMIT = 80.0  # e^80 * 1024 bins is still a finite float32
SEEN_LIMIT = EXP_LIMIT / 2
BINS = 2  # axis of the bins in the logits of a box head: picture, side, bin, place
SWAP = [0, 2, 1, 3]
SMALLEST = np.finfo(np.float32).smallest_normal
SUBNORMAL_SHARE = 1e-3
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
        if context.target.resize_by_tile:
            rewritten += _tile(graph, context)
        if context.target.slow_subnormals:
            rewritten += _raise_subnormals(graph, context)
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
    found = list(_box_heads(graph, context))
    if found and graph.opset < 13:
        context.note(graph.source, "box softmax is rewritten from opset 13 on; run upgrade-opset before")
        return 0
    largest = _largest(graph, [softmax.inputs[0].name for softmax, _ in found], context)
    for softmax, conv in found:
        _rewrite_expectation(graph, softmax, conv, small=largest[softmax.inputs[0].name] <= SEEN_LIMIT)
    if found:
        context.count("box softmax to Exp and MatMul", len(found))
    return len(found)


def _largest(graph: Graph, names: list[str], context: Context) -> dict[str, float]:
    """Largest magnitude of some tensors on a few samples; infinite where there are no samples."""
    if not names or context.fit is None:
        return dict.fromkeys(names, np.inf)
    largest = dict.fromkeys(names, 0.0)
    for seen in _seen(graph, names, context.fit.take(LOOKS)):
        for name, values in seen.items():
            largest[name] = max(largest[name], float(np.abs(values).max()))
    return largest


def _seen(graph: Graph, names: list[str], samples: Iterable[Sample]) -> Iterator[dict[str, Array]]:
    """Values of some tensors, sample by sample."""
    session = OrtSession(expose(graph, names).to_proto())
    return (session.run(sample.feeds, names) for sample in samples)


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
    name, output = conv.name, conv.outputs[0]
    conv.outputs.clear()

    def add(op: str, inputs: list[Tensor | Array], attrs: dict[str, Any] | None = None, outputs: int = 1) -> Node:
        return graph.add_node(op, inputs, attrs, outputs=outputs, name=f"{name}_{op.lower()}", before=conv)

    transpose = graph.producer(softmax.inputs[0])
    x = _sides_first(graph, softmax, conv)
    if small:
        x = add("Clip", [x, *(np.asarray(b, np.float32) for b in (-EXP_LIMIT, EXP_LIMIT))]).outputs[0]
    else:
        axis = np.asarray([BINS], np.int64)
        peak = add("ReduceMax", [x, axis]) if graph.opset >= 18 else add("ReduceMax", [x], {"axes": [BINS]})
        x = add("Sub", [x, peak.outputs[0]]).outputs[0]
    powers = add("Exp", [x]).outputs[0]
    rows = bins.reshape(1, -1)
    sums = add("MatMul", [np.concatenate([rows, np.ones_like(rows)]), powers]).outputs[0]
    parts = add("Split", [sums, np.asarray([1, 1], np.int64)], {"axis": BINS}, outputs=2)
    mean = add("Div", list(parts.outputs)).outputs[0]
    graph.add_node("Transpose", [mean], {"perm": SWAP}, outputs=[output], name=name, before=conv)
    graph.remove(conv, softmax)
    if transpose is not None and transpose.op == "Transpose" and not transpose.outputs[0].outputs:
        graph.remove(transpose)


def _sides_first(graph: Graph, softmax: Node, conv: Node) -> Tensor:
    """The logits with their bins on axis 2, as heads have them before they transpose for the softmax."""
    producer = graph.producer(softmax.inputs[0])
    if producer is not None and producer.op == "Transpose" and list(producer.attrs.get("perm", ())) == SWAP:
        return producer.inputs[0]
    name = f"{softmax.name}_transpose"
    return graph.add_node("Transpose", [softmax.inputs[0]], {"perm": SWAP}, name=name, before=conv).outputs[0]


def _raise_subnormals(graph: Graph, context: Context) -> int:
    found = [n for n in graph.nodes_of("Softmax") if _matmul_reads(graph, n)]
    if not found or context.fit is None or graph.opset < 12:
        return 0
    names = [n.outputs[0].name for n in found]
    count = 0
    seen = next(_seen(graph, names, context.fit.take(1)))
    for node in found:
        values = seen[node.outputs[0].name]
        if values.dtype != np.float32 or np.mean((values > 0) & (values < SMALLEST)) <= SUBNORMAL_SHARE:
            continue
        readers = graph.consumers(node.outputs[0])
        limits = [np.asarray(limit, np.float32) for limit in (SMALLEST, 1.0)]
        clip = graph.add_node("Clip", [node.outputs[0], *limits], name=f"{node.name}_normal", before=readers[0])
        graph.replace_uses(node.outputs[0], clip.outputs[0], readers)
        count += 1
    if count:
        context.count("Softmax kept from subnormal numbers", count)
    return count


def _matmul_reads(graph: Graph, node: Node) -> bool:
    readers = graph.consumers(node.outputs[0])
    behind = [r for t in readers if t.op == "Transpose" for r in graph.consumers(t.outputs[0])]
    return any(r.op == "MatMul" for r in [*readers, *behind])


def _tile(graph: Graph, context: Context) -> int:
    shapes = context.get(Shapes)
    found = [(n, f) for n in graph.nodes_of("Resize") if (f := repeats(graph, n, shapes)) is not None]
    int8 = plan(graph, context.target, shapes).tensors if found else {}
    count = 0
    for node, factors in found:
        if node.outputs[0].name not in int8:
            continue
        shape = shapes.shape(node.inputs[0])
        if shape is None or len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
            context.note(node, "up-sampling of a picture whose size is not known before it runs")
            continue
        channels, height, width = (int(d) for d in shape[1:] if isinstance(d, int))
        _rewrite_upsampling(graph, node, (height, width, channels), factors)
        count += 1
    if count:
        context.count("up-sampling to Tile", count)
    return count


def _rewrite_upsampling(graph: Graph, resize: Node, size: tuple[int, int, int], factors: tuple[int, int]) -> None:
    (height, width, channels), (down, right) = size, factors
    x, output = resize.inputs[0], resize.outputs[0]
    resize.outputs.clear()
    steps: tuple[tuple[str, list[int]], ...] = (
        ("Reshape", [-1, height, 1, width, 1, channels]),
        ("Tile", [1, 1, down, 1, right, 1]),
        ("Reshape", [-1, height * down, width * right, channels]),
    )

    def add(op: str, inputs: list[Tensor | Array], attrs: dict[str, Any] | None = None) -> Tensor:
        name = f"{resize.name}_{op.lower()}"
        return graph.add_node(op, inputs, attrs, name=name, before=resize).outputs[0]

    x = add("Transpose", [x], {"perm": [0, 2, 3, 1]})
    for op, numbers in steps:
        x = add(op, [x, np.asarray(numbers, np.int64)])
    attrs = {"perm": [0, 3, 1, 2]}
    graph.add_node("Transpose", [x], attrs, outputs=[output], name=resize.name, before=resize)
    graph.remove(resize)
