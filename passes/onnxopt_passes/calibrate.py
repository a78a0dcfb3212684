"""Measure the ranges of the tensors that will get a quantizer.

1. The placement for the target says which tensors those are; nothing else is measured.
2. Ranges that the user's file has (`--calibration-table`) are taken from it (see `calibration.store`).
3. Those of Q/DQ pairs that `strip-qdq` took out are kept (see `calibration.given`).
4. Ranges that follow from another tensor's are derived (see `calibration.derive`).
5. One streaming sweep over the calibration samples serves all of them, in constant memory.
"""

from typing import cast

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.given import GivenRanges, entries
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.methods import DEFAULT_METHOD, DEFAULT_PERCENTILE, METHODS, Method
from onnxopt.calibration.store import complete, open_table
from onnxopt.calibration.table import CalibrationTable
from onnxopt.placement import plan


class Calibrate(Pass):
    """Measure the ranges of the tensors that will be quantized, on the calibration samples.

    When to use it: before `insert-qdq`; the pipeline `quantize` runs both. The table it makes may be used by any
    later pass. With `--calibration-table FILE` ranges that the file has are taken from it and only the others are
    measured; a file that is not there is written.

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
        placement = plan(graph, context.target, context.get(Shapes), self.ignore)
        ranging = Ranging(cast("Method", self.method), self.percentile)
        if self.percentile != DEFAULT_PERCENTILE and self.method not in {"percentile", "auto"}:
            context.note(graph.source, f"percentile={self.percentile:g} has no effect with method={self.method}")
        names = list(placement.tensors)
        table = open_table(graph, names, context)
        read = len(names) - len(table.missing(names))
        known = _given(graph, table, context)
        kept = sum(name in known for name in names)
        measured, derived = complete(graph, names, table, ranging, context)
        context.put(table)
        context.put(ranging)
        if read:
            context.count("ranges read", read)
        if kept:
            context.count("ranges kept from the given pairs", kept)
        context.count("tensors measured", measured)
        context.count("tensors derived", derived)
        return False


def _given(graph: Graph, table: CalibrationTable, context: Context) -> set[str]:
    """Add to the table what the pairs of the given model said and the user's file does not; returns the names."""
    if not context.has(GivenRanges):
        return set()
    graph.sort()
    known = entries(graph, context.get(GivenRanges), context.target.activation)
    names = table.missing(known)
    for name in names:
        table[name] = known[name]
    return set(names)
