"""Center what a Clip lets through, so that a format without zero point uses all its codes for it.

1. Clips from 0 on are found that follow a Conv and that only Conv without padding read, as in front of the last Conv
   of each block of MobileNetV2. Where the target has another format for what is never negative, there is nothing to do.
2. One sweep over the samples measures what each reaches. Half of that goes off the bias in front and off the bounds,
   and comes back in the biases behind (see `analysis.recovery.centering`), which `insert-qdq` makes anew for the
   weights in int8.
3. The graph before and after is quantized on a few samples; the change stays only where it brings held-out outputs
   closer to the float model.
"""

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery.centering import center, find_clips
from onnxopt.analysis.recovery.peaks import Peaks, channel_peaks
from onnxopt.analysis.recovery.trial import helps_int8
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.store import TableFile
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
        if self.keep is False or not context.target.activation.symmetric or context.target.positive is not None:
            return False
        if came_quantized(context):
            context.note(graph.source, "was quantized when it came; its own scales fit its activations as they are")
            return False
        places = find_clips(graph)
        if not places or context.fit is None:
            return False
        if context.has(TableFile):
            context.note(graph.source, "ranges in a table are of the activations as they came; left alone")
            return False
        peaks = channel_peaks(graph, [p.output for p in places], context.fit)
        keep = self.keep if self.keep is not None else _helps(graph, peaks, context)
        context.resolve(keep=keep)
        if not keep:
            return False
        shifts = center(graph, places, peaks)
        context.put(shifts)
        if shifts.by:
            context.count("clips centered", len(shifts.by))
        return bool(shifts.by)


def _helps(graph: Graph, peaks: Peaks, context: Context) -> bool:
    centered = graph.copy()
    shifts = center(centered, find_clips(centered), peaks)
    return bool(shifts.by) and helps_int8(graph, centered, context, shifts=shifts)
