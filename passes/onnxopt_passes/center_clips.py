"""Center what a Clip lets through, so that a format without zero point uses all its codes for it.

1. Clips from 0 on are found that follow a Conv and that only Conv without padding read, as in front of the last Conv
   of each block of MobileNetV2. Where the target has another format for what is never negative, there is nothing to do.
2. Their ranges are measured as `calibrate` does by default. Half of each goes off the bias in front and off the bounds,
   and comes back in the biases behind (see `analysis.recovery.centering`), which `insert-qdq` makes anew for the
   weights in int8.
3. The graph before and after is quantized on a few samples; the change stays only where it brings held-out outputs
   closer to the float model.
"""

from collections.abc import Mapping

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery.centering import Between, center, find_clips
from onnxopt.analysis.recovery.trial import helps_int8
from onnxopt.analysis.shapes import RunShapes
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.calibration.store import TableFile
from onnxopt.data import Dataset
from onnxopt.placement.shifts import Shifts


class CenterClips(Pass):
    """Center the activations between a Clip and convolutions without padding.

    When to use it: after `equalize-activations` and before `calibrate`; the pipeline `quantize` does it. It stays only
    where it helps: on targets whose activations are symmetric.

    Example:
        before: `a = Conv (x, w1, b1)`, `b = Clip (a, 0, 6)`, `y = Conv (b, w2, b2)`
        after:  `a = Conv (x, w1, b1 - 3)`, `b = Clip (a, -3, 3)`, `y = Conv (b, w2, b2 + 3 * sum(w2))`

    Effect: rounding. Biases are other numbers, and sums round differently.
    """

    name = "center-clips"
    effect = "rounding"
    provides = (Shifts,)
    needs_data = True

    keep: bool | None = option(default=None, help="Center or do not; default: where it helps the int8 model.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Center a copy, judge it, and keep it or not."""
        places = find_clips(graph)
        wasteful = context.target.activation.symmetric and context.target.positive is None
        if self.keep is False or not places or not wasteful or context.fit is None:
            return False
        reason = _why_not(context)
        if reason:
            context.note(graph.source, reason)
            return False
        ranges = _ranges(graph, places, context.fit, context)
        keep = self.keep if self.keep is not None else _helps(graph, ranges, context)
        context.resolve(keep=keep)
        if not keep:
            return False
        shifts = center(graph, places, ranges)
        context.put(shifts)
        if shifts.by:
            context.count("clips centered", len(shifts.by))
        return bool(shifts.by)


def _why_not(context: Context) -> str:
    if came_quantized(context):
        return "was quantized when it came; its own scales fit its activations as they are"
    return "a table of ranges has to hold for the model as it came; left alone" if context.has(TableFile) else ""


def _ranges(graph: Graph, places: list[Between], samples: Dataset, context: Context) -> dict[str, float]:
    names = [place.output for place in places]
    table, _ = measure_ranges(graph, names, samples, context.get(RunShapes), context.target, Ranging())
    return {name: table[name].high for name in names}


def _helps(graph: Graph, ranges: Mapping[str, float], context: Context) -> bool:
    centered = graph.copy()
    shifts = center(centered, find_clips(centered), ranges)
    return bool(shifts.by) and helps_int8(graph, centered, context, shifts=shifts)
