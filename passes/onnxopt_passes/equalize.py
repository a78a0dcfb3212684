"""Make the channels between two convolutions alike, so that one scale serves them all.

1. Pairs of Conv joined by nothing, a Relu or a LeakyRelu are found; depthwise ones too. SiLU and Clip are not
   homogeneous: their networks are left alone.
2. Scale is moved between the two, by powers of two (see `analysis.recovery.equalization`). Not in a model that came
   quantized: its own ranges and codes would no longer fit.
3. The graph before and after is quantized on a few samples; equalization stays only where held-out outputs are closer
   to the float model with it.
"""

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery.equalization import equalize, find_pairs
from onnxopt.analysis.recovery.trial import helps_int8
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.store import TableFile


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
        if self.keep is None and context.has(TableFile):
            context.note(graph.source, "ranges in a table are of the weights as they came; left alone")
            return False
        keep = self.keep if self.keep is not None else self._helps(graph, context)
        context.resolve(keep=keep)
        count = equalize(graph, pairs) if keep else 0
        if count:
            context.count("channels scaled", count)
        return count > 0

    def _helps(self, graph: Graph, context: Context) -> bool:
        equalized = graph.copy()
        return equalize(equalized, find_pairs(equalized)) > 0 and helps_int8(graph, equalized, context)
