"""Make the channels between two convolutions alike, so that one scale serves them all.

1. Pairs of Conv joined by nothing, a Relu or a LeakyRelu are found; depthwise ones too. SiLU and Clip are not
   homogeneous: their networks are left alone.
2. Scale is moved between the two, by powers of two (see `analysis.recovery.equalization`). Not in a model that came
   quantized: its own ranges and codes would no longer fit.
3. The graph before and after is quantized on a few samples; equalization stays only where held-out outputs are closer
   to the float model with it.
"""

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery import Closeness, closeness
from onnxopt.analysis.recovery.equalization import equalize, find_pairs
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.placement import emit, plan
from onnxopt.runtime.host import cores

FITTED_ON, JUDGED_ON = 8, 8  # samples


class Equalize(Pass):
    """Equalize the ranges of channels between convolutions (cross-layer equalization).

    When to use it: after `simplify` and before `calibrate`, for networks with Relu or LeakyRelu; the pipeline
    `quantize` does it. It stays only where it helps.

    Example:
        before: `a = Conv (x, w1, b1)`, `b = Relu (a)`, `y = Conv (b, w2)`
        after:  `a = Conv (x, w1 / s, b1 / s)`, `b = Relu (a)`, `y = Conv (b, w2 * s)`

    Effect: exact. Powers of two change no digit of any product.
    """

    name = "equalize"
    effect = "exact"
    needs_data = True

    keep: bool | None = option(default=None, help="Equalize or do not; default: where it helps the int8 model.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Equalize a copy, judge it, and keep it or not."""
        if came_quantized(context):
            context.note(graph.source, "was quantized when it came; its own scales fit its weights as they are")
            return False
        pairs = find_pairs(graph)
        if not pairs or self.keep is False:
            if not pairs:
                context.note(graph.source, "no two Conv joined by nothing, Relu or LeakyRelu: nothing to equalize")
            return False
        keep = self.keep if self.keep is not None else self._helps(graph, context)
        context.resolve(keep=keep)
        count = equalize(graph, pairs) if keep else 0
        if count:
            context.count("channels scaled", count)
        return count > 0

    def _helps(self, graph: Graph, context: Context) -> bool:
        if context.fit is None or context.holdout is None or graph.opset < context.target.opset_floor:
            context.note(graph.source, "cannot be quantized here to see whether it helps; left alone")
            return False
        if not plan(graph, context.target, context.get(Shapes)).weights:
            return False
        equalized = graph.copy()
        if not equalize(equalized, find_pairs(equalized)):
            return False
        before, after = (_quantized(g, graph, context) for g in (graph, equalized))
        helps = after.improves(before)
        if not helps:
            context.note(graph.source, f"equalization was taken back: {after} against {before} before it")
        return helps


def _quantized(graph: Graph, reference: Graph, context: Context) -> Closeness:
    """How close the quantized form of a graph is to the float model."""
    assert context.fit is not None
    assert context.holdout is not None
    copy = graph.copy()
    placement = plan(copy, context.target, context.get(Shapes))
    names, samples = list(placement.tensors), context.fit.take(FITTED_ON)
    table, _ = measure_ranges(copy, names, samples, context.get(RunShapes), context.target, Ranging())
    emit(copy, context.target, placement, table)
    return closeness(copy, reference, context.holdout.take(JUDGED_ON), threads=cores())
