"""Insert Q/DQ pairs where the target's runtime turns them into int8 kernels.

1. `placement.plan` says where, from the target's table.
2. What `keep-float` found to hurt stays float, like what `ignore` names.
3. `placement.emit` writes the pairs.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery.reference import FloatModel
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.placement import FloatNodes, check_ignored, plan
from onnxopt.placement.reference import fake_quantized
from onnxopt.placement.retarget import refuse_pairs
from onnxopt.placement.tail import FEATURE_OPS
from onnxopt.placement.trial import emit_with


class InsertQDQ(Pass):
    """Insert Q/DQ pairs so that the target's runtime runs the graph in int8.

    When to use it: after `calibrate`; the pipeline `quantize` runs both. Where pairs go depends on the target: see
    `onnxopt targets show`.

    Example:
        before: `y = Conv (x, w, b)`
        after:  `y = Conv (DQ(Q(x)), DQ(w_int8), DQ(b_int32))`, followed by Q and DQ

    Effect: lossy. Activations and weights have 256 values; checked against the same arithmetic spelled out in float.
    """

    name = "insert-qdq"
    effect = "lossy"
    requires = (CalibrationTable,)
    provides = (FloatModel,)

    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes that stay float.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Place and emit.

        Raises:
            UsageError: There are pairs already, the opset is too low, or a pattern matches nothing.
        """
        refuse_pairs(graph, "run strip-qdq before")
        if graph.opset < context.target.opset_floor:
            raise UsageError(f"insert-qdq needs opset {context.target.opset_floor}; run upgrade-opset before")
        check_ignored(self.name, graph, self.ignore)
        kept = context.get(FloatNodes).names if context.has(FloatNodes) else ()
        placement = plan(graph, context.target, context.get(Shapes), (*self.ignore, *kept))
        for where, reason in placement.notes:
            context.note(where, reason)
        context.put(FloatModel(graph.copy()))
        if not placement.weights:
            context.note(graph.source, f"nothing to quantize: {_why_nothing(graph, kept)}")
            return False
        emit_with(context, graph, placement, context.get(CalibrationTable))
        context.count("activations quantized", len(placement.tensors))
        context.count("weights quantized", len(placement.weights))
        return True

    def reference(self, before: Graph, after: Graph) -> Graph | None:  # noqa: ARG002
        """The same rounding spelled out in float operators."""
        return fake_quantized(after)


def _why_nothing(graph: Graph, kept: Sequence[str]) -> str:
    if kept:
        return "all that the target runs in int8 was kept float"
    weights = [graph.constant(t) for n in graph.nodes_of(*FEATURE_OPS) for t in n.inputs[1:2]]
    if any(w is not None and w.dtype == np.float16 for w in weights):
        return "its weights are float16; give the float32 export"
    return "no weighted operator that the target runs in int8"
