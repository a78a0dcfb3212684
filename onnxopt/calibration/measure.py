"""From a graph, tensor names and samples to ranges: plan, sweep once, choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.collect import collect
from onnxopt.calibration.derive import plan_statistics
from onnxopt.calibration.methods import (
    DEFAULT_METHOD,
    DEFAULT_PERCENTILE,
    Method,
    Scheme,
    best_method,
    compute_range,
    needs_histogram,
)
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.calibration.useful import useful_part
from onnxopt.data import Dataset
from onnxopt.graph import Graph
from onnxopt.runtime.host import cores
from onnxopt.targets import Target


@dataclass(frozen=True)
class Ranging:
    """How ranges are chosen: see `calibration.methods`.

    Attributes:
        method: The method.
        percentile: Its share of values kept, in percent.
        histogram: Whether to gather histograms where this method needs none, for another to be tried.
    """

    method: Method = DEFAULT_METHOD
    percentile: float = DEFAULT_PERCENTILE
    histogram: bool = field(default=False, compare=False)


def measure_ranges(
    graph: Graph, names: Sequence[str], samples: Dataset, shapes: Shapes, target: Target, ranging: Ranging
) -> tuple[CalibrationTable, int]:
    """Ranges of tensors, from one streaming sweep over the samples.

    Args:
        graph: The float model.
        names: Tensors that need a range.
        samples: What to run the model on.
        shapes: Sizes at which it is run, to bound memory.
        target: Whose number format the ranges are for.
        ranging: Method and its options.

    Returns:
        The table, and how many of its tensors were measured; the others follow from those.

    Raises:
        UsageError: No samples, or values that are NaN or infinite (names the tensor).
    """
    graph.sort()
    plan = plan_statistics(graph, names)
    histogram = ranging.histogram or needs_histogram(ranging.method)
    statistics = collect(graph, plan, samples, shapes, histogram=histogram, threads=cores())
    sources = {d.name: d.sources for d in plan.derived}
    return choose_ranges(graph, statistics, target, ranging, sources), len(plan.measured)


def choose_ranges(
    graph: Graph,
    statistics: dict[str, TensorStatistics],
    target: Target,
    ranging: Ranging,
    sources: Mapping[str, tuple[str, ...]],
) -> CalibrationTable:
    """Ranges of tensors that have been measured.

    Args:
        graph: The float model.
        statistics: Of each tensor.
        target: Whose number format the ranges are for.
        ranging: Method and its options.
        sources: Tensors that others' statistics follow from.
    """
    table = CalibrationTable()
    table.statistics = statistics
    tensors = graph.tensors()
    for name, seen in statistics.items():
        kind = target.format_from(min(0.0, seen.minimum))
        scheme = Scheme(kind.dtype, kind.symmetric)
        method = ranging.method
        if method == "auto":
            method, chosen = best_method(seen, percentile=ranging.percentile, scheme=scheme)
        else:
            chosen = compute_range(seen, method, percentile=ranging.percentile, scheme=scheme)
        chosen = useful_part(graph, tensors[name], chosen)
        table[name] = CalibrationEntry(chosen.low, chosen.high, method, seen.images, sources.get(name, ()))
    return table
