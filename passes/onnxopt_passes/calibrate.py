"""Measure the ranges of the tensors that will get a quantizer.

1. The placement for the target says which tensors those are; nothing else is measured.
2. Ranges that follow from another tensor's are derived (see `calibration.derive`).
3. One streaming sweep over the calibration samples serves all of them, in constant memory.
"""

from typing import cast

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.calibration.methods import DEFAULT_METHOD, DEFAULT_PERCENTILE, METHODS, Method
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.placement import plan


class Calibrate(Pass):
    """Measure the ranges of the tensors that will be quantized, on the calibration samples.

    When to use it: before `insert-qdq`; the pipeline `quantize` runs both. The table it makes may be used by any
    later pass.

    Example:
        calibrate{method=percentile, percentile=99.99}

    Effect: exact. The graph is not touched; the result is a `CalibrationTable` on the context.
    """

    name = "calibrate"
    effect = "exact"
    provides = (CalibrationTable, Ranging)
    needs_data = True

    method: str = option(default=DEFAULT_METHOD, help="How far a range reaches.", choices=METHODS)
    percentile: float = option(
        default=DEFAULT_PERCENTILE, help="Share of values kept, in percent, by percentile and auto.", low=50, high=100
    )
    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes that stay float, as in insert-qdq.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Sweep once and leave the table."""
        if context.fit is None:
            if context.cannot_run:
                raise UsageError(f"calibrate has to run the model, and that is not possible: {context.cannot_run}")
            raise UsageError("calibrate needs samples to run the model on; give --data")
        placement = plan(graph, context.target, context.get(Shapes), self.ignore)
        ranging = Ranging(cast("Method", self.method), self.percentile)
        names = list(placement.tensors)
        table, measured = measure_ranges(graph, names, context.fit, context.get(RunShapes), context.target, ranging)
        context.put(table)
        context.put(ranging)
        context.count("tensors measured", measured)
        context.count("tensors derived", len(table) - measured)
        return False
