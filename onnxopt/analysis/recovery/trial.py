"""Whether a change to the float graph makes its int8 form better, for passes that come before `calibrate`."""

from onnxopt.analysis.recovery.judge import GAIN, Closeness, closeness
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.graph import Graph
from onnxopt.pass_api import Context
from onnxopt.placement import emit, plan
from onnxopt.placement.shifts import Shifts
from onnxopt.runtime.host import cores

FITTED_ON, JUDGED_ON = 8, 8  # samples


def helps_int8(
    graph: Graph, changed: Graph, context: Context, *, gain: float = GAIN, shifts: Shifts | None = None
) -> bool:
    """Quantize a graph and its changed form, each by ranges of its own, and compare both with the graph.

    Args:
        graph: The float graph; it stays as it is.
        changed: The form that might be better.
        context: Holds target, sizes and samples. A note says why the answer is no.
        gain: How much closer it has to be, in dB.
        shifts: What was added to tensors of the changed form.

    Returns:
        Whether held-out outputs of the changed form are closer to the float model's.
    """
    if context.fit is None or context.holdout is None or graph.opset < context.target.opset_floor:
        context.note(graph.source, "cannot be quantized here to see whether it helps; left alone")
        return False
    if not plan(graph, context.target, context.get(Shapes)).weights:
        return False
    before, after = (_quality(each, graph, context, added) for each, added in ((graph, None), (changed, shifts)))
    helps = after.improves(before, gain)
    if not helps:
        context.note(graph.source, f"taken back: {after} against {before} before it, and {gain:g} dB have to be gained")
    return helps


def _quality(graph: Graph, reference: Graph, context: Context, shifts: Shifts | None) -> Closeness:
    """How close the quantized form of a graph is to the float model."""
    assert context.fit is not None
    assert context.holdout is not None
    copy = graph.copy()
    placement = plan(copy, context.target, context.get(Shapes))
    names, samples = list(placement.tensors), context.fit.take(FITTED_ON)
    table, _ = measure_ranges(copy, names, samples, context.get(RunShapes), context.target, Ranging())
    emit(copy, context.target, placement, table, shifts=shifts)
    return closeness(copy, reference, context.holdout.take(JUDGED_ON), threads=cores())
