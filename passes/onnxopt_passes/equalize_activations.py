"""Scale up weak channels in front of depthwise convolutions, so that one scale serves all channels.

1. Pairs of Conv and depthwise Conv are found, joined by nothing, a Relu, a LeakyRelu or a Clip that starts at 0, as in
   MobileNets. Either Conv has a scale for each channel's weights, so the channel between them may have any size.
2. One sweep over the samples measures what each channel reaches. It is scaled up to what the strongest one reaches (see
   `analysis.recovery.equalization`), so that it uses as many codes.
3. The graph before and after is quantized on a few samples; the change stays only where it brings held-out outputs
   clearly closer to the float model. It does where activations are symmetric and a Relu leaves half the codes unused.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery.equalization import find_depthwise, strengthen
from onnxopt.analysis.recovery.trial import helps_int8
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.store import TableFile
from onnxopt.data import Dataset
from onnxopt.graph import Node
from onnxopt.runtime.host import cores
from onnxopt.runtime.ort import OrtSession

LEAST = 8  # samples
GAIN = 1.0  # dB that it has to be worth, for it is not exact

Peaks: TypeAlias = dict[str, npt.NDArray[np.float64]]


class EqualizeActivations(Pass):
    """Equalize the activations of channels that a depthwise convolution reads.

    When to use it: after `equalize` and before `calibrate`; the pipeline `quantize` does it. It stays only where it
    helps, and needs real samples.

    Example:
        before: `a = Conv (x, w1, b1)`, `b = Clip (a, 0, 6)`, `y = Conv <group = 16> (b, w2)`
        after:  `a = Conv (x, w1 * s, b1 * s)`, `b = Clip (a, 0, 6)`, `y = Conv <group = 16> (b, w2 / s)`

    Effect: lossy. Behind a Clip each channel is cut off a quarter above what it reached on the samples, so these have
    to show what the model will see. Behind a Relu only the last digits of products change.
    """

    name = "equalize-activations"
    effect = "lossy"
    needs_data = True

    keep: bool | None = option(default=None, help="Equalize or do not; default: where it helps the int8 model.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Equalize a copy, judge it, and keep it or not."""
        if came_quantized(context):
            context.note(graph.source, "was quantized when it came; its own scales fit its activations as they are")
            return False
        pairs = find_depthwise(graph)
        if not pairs or self.keep is False:
            return False
        if context.synthetic or context.fit is None or len(context.fit) < LEAST:
            context.note(graph.source, f"what its channels reach only {LEAST} real samples and more tell; left alone")
            return False
        if context.has(TableFile):
            context.note(graph.source, "ranges in a table are of the weights as they came; left alone")
            return False
        peaks = _peaks(graph, pairs, context.fit)
        keep = self.keep if self.keep is not None else _helps(graph, peaks, context)
        context.resolve(keep=keep)
        count = strengthen(graph, pairs, peaks) if keep else 0
        if count:
            context.count("channels scaled", count)
        return count > 0


def _helps(graph: Graph, peaks: Peaks, context: Context) -> bool:
    equalized = graph.copy()
    scaled = strengthen(equalized, find_depthwise(equalized), peaks) > 0
    return scaled and helps_int8(graph, equalized, context, gain=GAIN)


def _peaks(graph: Graph, pairs: list[tuple[Node, Node]], samples: Dataset) -> Peaks:
    """Largest magnitude of each channel that the second Conv of a pair reads; found in the graph, to move no tensor."""
    copy = graph.copy()
    tensors = copy.tensors()
    names = [second.inputs[0].name for _, second in pairs]
    found = {}
    for name in names:
        magnitude = copy.add_node("Abs", [tensors[name]]).outputs[0]
        peak = copy.add_node("GlobalMaxPool", [magnitude]).outputs[0]
        peak.dtype = np.float32
        copy.outputs.append(peak)
        found[name] = peak.name
    session = OrtSession(copy.to_proto(), threads=cores())
    peaks: Peaks = {}
    for sample in samples:
        values = session.run(sample.feeds, list(found.values()))
        for name in names:
            reached = values[found[name]].max(axis=0).astype(np.float64).ravel()
            peaks[name] = np.maximum(peaks.get(name, reached), reached)
    return peaks
