"""Store weights and activations in float16 where that is safe, and say why not elsewhere.

1. A sweep over the samples tells how large each tensor gets; `analysis.half.choice` says which nodes stay in float32.
2. The rounding is emulated in float32 on a few samples. Where an output falls below `sqnr` and a dB more, for other
   samples may fare worse, the nodes that cost most are found by measuring segments alone, and taken back
   (`analysis.half.search`).
3. Where the target takes them, scales of Q/DQ become numbers that float16 holds, tiny ones are raised
   (`analysis.half.scales`). From opset 19 on they turn with the rest; before, pairs and what reads them stay float32.
   So they do for ONNX Runtime, whose optimizer divides float biases by products of scales, in half if those are half.
4. Constants turn, Casts go where the precisions meet: one per tensor and direction, none back to back. Inputs and
   outputs of the model stay float32 unless `keep_io` is false. No Cast parts a DequantizeLinear from its layer.
5. ONNX Runtime must load and run the result, with and without its optimizations.
"""

import math

from onnxopt import Context, Graph, OptimizationError, Pass, option
from onnxopt.analysis.half.choice import Choice, choose
from onnxopt.analysis.half.emission import turn_half
from onnxopt.analysis.half.forms import HalfForm, half_forms, is_single
from onnxopt.analysis.half.judge import Judge, proved
from onnxopt.analysis.half.peaks import LARGEST, peaks, vanishing
from onnxopt.analysis.half.scales import fit_scales
from onnxopt.analysis.half.search import explain, repair
from onnxopt.analysis.scope import Scope, own_name
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.data import Feeds
from onnxopt.evaluation.agreement import decibels
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.graph import label
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.runtime.host import cores
from onnxopt.runtime.ort import OrtSession

JUDGED = 4  # samples; rounding errors average out over the many values of each
HEADROOM = 1.0  # dB; by about so much samples differ
HALF_SCALES = 19  # the opset from which Q/DQ take float16


class ConvertFp16(Pass):
    """Turn float32 into float16 where nothing overflows or gets lost; the rest stays, each with its reason.

    When to use it: for GPUs and NPUs, as the last pass. The file is half as large. ONNX Runtime's CPU provider runs
    such a model in float32, and no faster. With Q/DQ from opset 19 on, their scales turn too, as TensorRT's strongly
    typed networks want it.

    Example:
        before: `float y = Conv (x, w)`
        after:  `h = Cast <to = FLOAT16> (x)`, `c = Conv (h, w_half)`, `y = Cast <to = FLOAT> (c)`

    Effect: lossy. Numbers keep 11 bits. Outputs are held above `sqnr`, as emulated on the samples. Of a quantized
    model the noise may double at most: next to a border between two integers, any rounding falls to the other side.
    """

    name = "convert-fp16"
    effect = "lossy"
    needs_data = True

    precision: str = option(
        default="fp16", help="fp32 leaves the model as it is, for pipelines that ask.", choices=("fp32", "fp16")
    )
    limit: float = option(
        default=LARGEST / 8, help="Largest magnitude seen on the samples that may turn half.", low=1, high=LARGEST
    )
    sqnr: float = option(default=50.0, help="Signal to noise that outputs keep, in dB.", low=0, high=100)
    block: tuple[str, ...] = option(default=(), help="Name patterns of nodes that stay float32.")
    qdq_scales: bool = option(default=True, help="Give Q/DQ half scales, where the opset is 19 or above.")
    keep_io: bool = option(default=True, help="Leave the model's inputs and outputs in float32.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Choose, repair, emit, prove.

        Raises:
            UsageError: A pattern matches nothing.
            OptimizationError: What came out does not run.
        """
        if self.precision == "fp32":
            if not self.keep_io:
                context.note(
                    graph.source, "inputs and outputs stay float32, for keep_io=false goes with precision fp16"
                )
            return False
        Scope(ignore=self.block).check(self.name, {own_name(node) for node in graph.nodes}, "node")
        graph.sort()
        quantized = any(n.op == "QuantizeLinear" for n in graph.nodes)
        half_pairs = quantized and self.qdq_scales and graph.opset >= HALF_SCALES
        if half_pairs and context.target.requantizes_float:
            half_pairs = False
            context.note(graph.source, "Q/DQ keep float32 scales: ONNX Runtime's optimizer overflows on half ones")
        before = graph.copy()
        fitted = half_pairs and _fit_scales(graph, context)
        forms = half_forms(graph, context.get(Shapes))
        obstacle = _unmeasured(graph, context)
        if obstacle:
            context.note(graph.source, f"{obstacle}: only weights are checked, activations may overflow")
        choice = choose(
            graph,
            forms,
            context.get(RunShapes),
            {} if obstacle else _peaks(graph, forms, context),
            limit=self.limit,
            block=self.block,
            qdq_scales=half_pairs,
            keep_io=self.keep_io,
        )
        _explain(graph, choice, context)
        samples = [] if obstacle else _to_judge_on(context)
        half = self._repaired(graph, forms, choice.half, samples, context)
        if not half:
            context.note(graph.source, "nothing turns half")
            return fitted
        _note_vanishing(graph, forms, half, context)
        context.count("nodes in float16", len(half))
        context.count("Casts added", turn_half(graph, half, forms, keep_io=self.keep_io))
        if samples:
            _prove(before, graph, samples, context, self.sqnr, optimized=not half_pairs)
        return True

    def _repaired(
        self, graph: Graph, forms: list[HalfForm], half: frozenset[int], samples: list[Feeds], context: Context
    ) -> frozenset[int]:
        if not samples or not half:
            return half
        judge = Judge(graph, forms, context.get(Shapes), samples, cores())
        goal = judge.goal(self.sqnr)
        found = repair(half, judge.noise, judge.goal(self.sqnr + HEADROOM))
        for segment in found.taken:
            first, last = (label(graph.nodes[segment.nodes[i]]) for i in (0, -1))
            context.note(first if first == last else f"{first} to {last}", f"stays float32: {explain(segment)}")
        if not math.isfinite(found.noise):
            context.note(
                graph.source, "outputs overflow in half, and it takes more than half of the nodes to prevent it"
            )
            return frozenset()
        reached = decibels(found.noise + judge.baseline)
        if found.noise > goal:
            context.note(
                graph.source,
                f"outputs keep {reached:.1f} dB, less than the {decibels(goal):.3g} asked for: the error comes from "
                "everywhere, and half of the nodes do not make up for it (the inputs alone, rounded to half, leave "
                f"{decibels(judge.inputs_alone()):.1f} dB)",
            )
        context.record.details["emulated_sqnr_db"] = round(reached, 2) if math.isfinite(reached) else None
        if judge.baseline:
            context.record.details["sqnr_db_before"] = round(decibels(judge.baseline), 2)
        context.record.details["judged"] = judge.names
        return found.half


def _fit_scales(graph: Graph, context: Context) -> bool:
    changed, raised = fit_scales(graph)
    for tensor, count in raised:
        context.note(tensor, f"{count} scales are too small for float16 and were raised to the next that it holds")
    return changed > 0


def _unmeasured(graph: Graph, context: Context) -> str:
    """Why the model cannot be run on samples; "" where it can."""
    if context.fit is None:
        return "there are no samples"
    if graph.nbytes() > PROTOBUF_LIMIT:
        return "the model is larger than 2 GB"
    try:
        OrtSession(graph.to_proto(), optimized=False)
    except OptimizationError as error:
        return str(error)
    return ""


def _peaks(graph: Graph, forms: list[HalfForm], context: Context) -> dict[str, float]:
    """Largest magnitudes of all tensors that may turn half, in one sweep over the samples."""
    assert context.fit is not None
    shapes = context.get(RunShapes)
    tensors = [
        t
        for node, form in zip(graph.nodes, forms, strict=True)
        for t in [*(node.inputs[i] for i in form.inputs), *(node.outputs[i] for i in form.outputs)]
        if is_single(t, shapes) and graph.constant(t) is None and t.name not in graph.overridable
    ]
    names = list(dict.fromkeys(t.name for t in tensors))
    samples = (fill_batch(sample.feeds, context.inputs) for sample in context.fit)
    return peaks(graph, names, samples, shapes, threads=cores()) if names else {}


def _to_judge_on(context: Context) -> list[Feeds]:
    """Inputs of a few held-out samples, or of others where none are held out."""
    samples = context.holdout if context.holdout is not None and len(context.holdout) else context.fit
    return [] if samples is None else [fill_batch(s.feeds, context.inputs) for s in samples.take(JUDGED)]


def _explain(graph: Graph, choice: Choice, context: Context) -> None:
    for position, reason in choice.reasons.items():
        context.note(graph.nodes[position], f"stays float32: {reason}")
    if choice.quantized:
        context.note(graph.source, f"{len(choice.quantized)} nodes at Q/DQ stay float32, for the scales do")
    if choice.sizes:
        context.count("nodes left in float32 that compute sizes", len(choice.sizes))
    if choice.followers:
        context.count("nodes left in float32 with their neighbours", len(choice.followers))


def _note_vanishing(graph: Graph, forms: list[HalfForm], half: frozenset[int], context: Context) -> None:
    seen = set()
    for i in sorted(half):
        for place in forms[i].inputs:
            tensor = graph.nodes[i].inputs[place]
            values = graph.constant(tensor)
            if values is None or tensor.name in seen:
                continue
            seen.add(tensor.name)
            count = vanishing(values)
            if count:
                context.note(tensor, f"{count} of {values.size} numbers are too small for float16 and become 0")


def _prove(
    before: Graph, after: Graph, samples: list[Feeds], context: Context, sqnr: float, *, optimized: bool
) -> None:
    try:
        found = proved(before, after, samples, optimized=optimized)
    except OptimizationError as error:
        raise OptimizationError(f"convert-fp16 made a model that does not run: {error}") from error
    details = context.record.details
    worst = min((found[name] for name in details["judged"] if name in found), default=math.inf)
    emulated = math.inf if details["emulated_sqnr_db"] is None else details["emulated_sqnr_db"]
    if worst < sqnr <= emulated:
        context.note(
            after.source,
            f"outputs keep {worst:.1f} dB, less than the {sqnr:.3g} asked for: ONNX Runtime rounds more often, or "
            "elsewhere, than was emulated",
        )
    details["sqnr_db"] = {k: round(v, 2) for k, v in found.items() if abs(v) < float("inf")}
