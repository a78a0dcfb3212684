"""The calibration sweep: run the model over the samples once and keep statistics, never activations.

The tensors to measure become outputs of a copy of the graph. What is held at any time is one sample's values of
them; where those would pass `memory` bytes, the tensors are split over several sessions, each with its own sweep.
"""

from collections.abc import Mapping, Sequence

from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.derive import Plan
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.data import Dataset
from onnxopt.errors import UsageError
from onnxopt.graph import Graph, Variable
from onnxopt.runtime.ort import OrtSession

MEMORY = 2**30  # bytes of activations held at a time


def collect(
    graph: Graph,
    plan: Plan,
    samples: Dataset,
    shapes: Shapes,
    *,
    histogram: bool,
    threads: int = 1,
    memory: int = MEMORY,
) -> dict[str, TensorStatistics]:
    """Sweep over the samples.

    Args:
        graph: The float model.
        plan: What to measure and what to derive.
        samples: Read once per session; as many images as it yields, in constant memory.
        shapes: Sizes of the tensors, to keep within `memory`.
        histogram: Whether histograms are needed.
        threads: Threads of the sessions.
        memory: Bytes of activations that may be held at a time.

    Returns:
        Statistics of every measured and derived tensor.

    Raises:
        UsageError: No samples, or a value that is NaN or infinite (names the tensor).
    """
    statistics = {
        name: TensorStatistics(name, histogram=histogram, bounds=bounds) for name, bounds in plan.measured.items()
    }
    for names in portions(list(plan.measured), shapes, memory):
        _sweep(graph, names, samples, statistics, threads)
    for derivation in plan.derived:
        statistics[derivation.name] = derivation.apply([statistics[s] for s in derivation.sources])
    return statistics


def portions(names: Sequence[str], shapes: Shapes, memory: int = MEMORY) -> list[list[str]]:
    """Names in groups whose values together, one sample's, stay below `memory` bytes; larger ones alone."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        size = shapes.nbytes(name)
        if not groups or size > room:
            groups.append([])
            room = memory
        groups[-1].append(name)
        room -= size
    return groups


def _sweep(
    graph: Graph, names: Sequence[str], samples: Dataset, statistics: Mapping[str, TensorStatistics], threads: int
) -> None:
    inputs = {t.name for t in graph.inputs}
    inner = [name for name in names if name not in inputs]
    session = OrtSession(expose(graph, inner).to_proto(), threads=threads)
    count = 0
    for sample in samples:
        values = session.run(sample.feeds, inner) if inner else {}
        for name in names:
            statistics[name].update(sample.feeds[name] if name in inputs else values[name], images=1)
        del values  # before the next run makes as many again
        count += 1
    if not count:
        raise UsageError("calibration needs at least one sample; none was given")


def expose(graph: Graph, names: Sequence[str]) -> Graph:
    """Copy of a graph with inner float tensors as further outputs, and with none of its own outputs but those."""
    copy = graph.copy()
    tensors = copy.tensors()
    own = {t.name for t in copy.outputs}
    for name in names:
        tensor = tensors[name]
        if name not in own and isinstance(tensor, Variable):
            tensor.dtype, tensor.shape = None, None
            copy.outputs.append(tensor)
    return copy
