"""Measure the ranges of the tensors that will get a quantizer.

1. The placement for the target says which tensors those are; nothing else is measured.
2. Ranges that follow from another tensor's are derived (see `calibration.derive`).
3. One streaming sweep over the calibration samples serves all of them, in constant memory.
"""

import os

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.collect import collect
from onnxopt.calibration.derive import plan_statistics
from onnxopt.calibration.methods import (
    DEFAULT_METHOD,
    DEFAULT_PERCENTILE,
    METHODS,
    Scheme,
    compute_range,
    needs_histogram,
)
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
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
    provides = (CalibrationTable,)
    needs_data = True

    method: str = option(default=DEFAULT_METHOD, help="How far a range reaches.", choices=METHODS)
    percentile: float = option(
        default=DEFAULT_PERCENTILE, help="Share of values kept, in percent, by percentile and auto.", low=50, high=100
    )
    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes that stay float, as in insert-qdq.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Sweep once and leave the table."""
        if context.fit is None:
            raise UsageError("calibrate needs samples to run the model on; give --data")
        placement = plan(graph, context.target, context.get(Shapes), self.ignore)
        statistics_plan = plan_statistics(graph, list(placement.tensors))
        statistics = collect(
            graph,
            statistics_plan,
            context.fit,
            context.get(RunShapes),
            histogram=needs_histogram(self.method),
            threads=os.cpu_count() or 1,
        )
        table = CalibrationTable()
        table.statistics = statistics
        sources = {d.name: d.sources for d in statistics_plan.derived}
        scheme = Scheme(context.target.activation.dtype, context.target.activation.symmetric)
        for name, stats in statistics.items():
            chosen = compute_range(stats, self.method, percentile=self.percentile, scheme=scheme)  # type: ignore[arg-type]
            table[name] = CalibrationEntry(chosen.low, chosen.high, self.method, stats.images, sources.get(name, ()))
        context.put(table)
        context.count("tensors measured", len(statistics_plan.measured))
        context.count("tensors derived", len(statistics_plan.derived))
        return False
