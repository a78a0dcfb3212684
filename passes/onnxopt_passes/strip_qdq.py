"""Take Q/DQ pairs out of a model that is quantized already, and keep what they say.

1. `placement.retarget` says how: constants become floats again, pairs on activations go, a Relu that only a saturating
   quantizer stood for comes back.
2. The ranges go to `calibrate`, which measures only what is missing; how weights were stored goes to `insert-qdq`.
   Where the target's number format is the same, scales and zero points stay as they are, bit for bit.
3. What computes with integers itself (QOperator format, dynamic quantization) is refused: its ranges cannot be told
   from its arithmetic.
"""

import numpy as np

from onnxopt import Context, Graph, Pass, option
from onnxopt.calibration.given import GivenRanges
from onnxopt.errors import UsageError
from onnxopt.graph import Node, label
from onnxopt.placement.retarget import integer_operator, is_pair, take_apart


class StripQDQ(Pass):
    """Take the Q/DQ pairs out of a quantized model, and keep their ranges for another target.

    When to use it: on a model that comes quantized (by training, or for another runtime), before the passes that place
    pairs anew; the pipeline `quantize` does it first. A float model is left as it is. Alone it turns a quantized model
    back into a float one.

    Example:
        before: `y = Conv (DQ(Q(x)), DQ(w_int8))`
        after:  `y = Conv (x, w)`, and the range of x

    Effect: lossy. The rounding of activations goes away.
    """

    name = "strip-qdq"
    effect = "lossy"
    provides = (GivenRanges,)

    reuse: bool = option(default=True, help="Keep scales for calibrate and insert-qdq; false: all are found anew.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Take apart what can be, and say what cannot."""
        _refuse(graph)
        done = take_apart(graph)
        for node, reason in done.left:
            context.note(node, f"stays quantized: {reason}")
        for name in done.coarse:
            context.note(name, "came in 8 bits although it is no weight: what that lost stays lost")
        if not done.pairs and not done.constants and not done.unread:
            if not context.has(GivenRanges):
                context.put(GivenRanges())
            return False
        context.put(done.given if self.reuse else GivenRanges())
        context.count("activation pairs taken out", done.pairs)
        context.count("constants to float", done.constants)
        if done.restored:
            context.count("Relu and Clip put back", done.restored)
        return True


def _refuse(graph: Graph) -> None:
    """Raise for what cannot be taken apart."""
    node = integer_operator(graph)
    if node is not None:
        raise UsageError(
            f"{graph.source}: {label(node)} computes with integers itself; "
            "export the model in QDQ format (QuantFormat.QDQ, static), or give the float model"
        )
    half = next((n for n in graph.nodes if is_pair(n) and _is_half(graph, n)), None)
    if half is not None:
        raise UsageError(f"{graph.source}: {label(half)} computes in half precision; give the float32 export")


def _is_half(graph: Graph, node: Node) -> bool:
    scale = graph.constant(node.inputs[1])
    return scale is not None and scale.dtype != np.float32
