"""A quantized copy of a graph, for passes that try a placement before they decide."""

from collections.abc import Sequence

from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.given import GivenRanges
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.store import complete
from onnxopt.calibration.table import CalibrationTable
from onnxopt.graph import Graph
from onnxopt.pass_api import Context
from onnxopt.placement.emit import emit
from onnxopt.placement.plan import Placement, plan
from onnxopt.placement.shifts import Shifts


def quantized(graph: Graph, context: Context, names: Sequence[str]) -> Graph:
    """Quantize a copy as `insert-qdq` would; measures the ranges that this placement needs and no earlier one did.

    Args:
        graph: The float graph; it stays as it is.
        context: Holds the calibration table and how ranges are measured.
        names: First outputs of the nodes that stay float.
    """
    trial = graph.copy()
    placement = plan(trial, context.target, context.get(Shapes), names)
    table = context.get(CalibrationTable)
    complete(graph, list(placement.tensors), table, context.get(Ranging), context)
    emit_with(context, trial, placement, table)
    return trial


def emit_with(context: Context, graph: Graph, placement: Placement, table: CalibrationTable) -> None:
    """Quantize a graph in place, with what earlier passes found out (see `emit`)."""
    given = context.get(GivenRanges) if context.has(GivenRanges) else None
    shifts = context.get(Shifts) if context.has(Shifts) else None
    emit(graph, context.target, placement, table, given, shifts)
