"""Figures of one graph, and of two against each other, on real samples and a real runtime."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from onnxopt.analysis.cost import Cost
from onnxopt.data import InputSpec, Sample
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.agreement import Comparison as AgreementSums
from onnxopt.graph import Array, Graph
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.pass_api import Context
from onnxopt.report.record import PassRecord
from onnxopt.report.run import Measured
from onnxopt.runtime import latency
from onnxopt.runtime.adapter import Feeds, Kernels, Runtime, Session, prepared
from onnxopt.targets import Target


def runnable(graph: Graph) -> bool:
    """Whether a graph fits into one protobuf message, as sessions from memory need."""
    return graph.nbytes() < PROTOBUF_LIMIT


def cost(graph: Graph, target: Target, inputs: Sequence[InputSpec]) -> Cost:
    """MACs and parameters at the given input sizes."""
    context = Context(target, inputs=tuple(inputs))
    context.bind(graph, PassRecord("cost"))
    return context.get(Cost)


def figures(graph: Graph, costs: Cost, size: int | None = None) -> Measured:
    """What can be said without running: size, parameters, MACs."""
    if size is None:
        size = graph.to_proto().ByteSize() if runnable(graph) else graph.nbytes()
    return Measured(bytes=size, parameters=costs.parameters, macs=costs.total_macs)


def read_kernels(graph: Graph, runtime: Runtime) -> Kernels:
    """Which kernels a runtime chooses for a graph, by node name."""
    named = graph.copy()
    named.name_nodes()
    return runtime.kernels(named.to_proto())


def macs_by_name(graph: Graph, costs: Cost) -> dict[str, int]:
    """MACs of each weighted node by the name that `read_kernels` knows it under."""
    named = graph.copy()
    named.name_nodes()
    return {n.name: costs.macs[n.outputs[0].name] for n in named.nodes if n.outputs and n.outputs[0].name in costs.macs}


def int8_share(kernels: Kernels, macs: dict[str, int]) -> float:
    """Share of the MACs that run in int8, 0 to 1; see `read_kernels` and `macs_by_name`."""
    total = sum(macs.values())
    return sum(macs.get(name, 0) for name in kernels.int8) / total if total else 0.0


def time_pair(
    runtime: Runtime, before: Graph, after: Graph, feeds: Feeds, *, rounds: int, seconds: float
) -> latency.Comparison:
    """Latency of two graphs, interleaved, one thread."""
    sessions = [runtime.open(graph.to_proto()) for graph in (before, after)]
    runs = {name: prepared(s, feeds) for name, s in zip(("before", "after"), sessions, strict=True)}
    return latency.compare(runs, rounds=rounds, seconds=seconds)


def quality(
    reference: Session, other: Session, samples: Iterable[Sample], metadata: dict[str, str], *, strict: bool = True
) -> dict[str, Any]:
    """How far two models' outputs lie apart on the samples.

    Args:
        reference: The model to compare with.
        other: The model to judge.
        samples: Inputs.
        metadata: The model's, to know a detector by.
        strict: Refuse outputs that are not finite.

    Raises:
        OptimizationError: The other model gives NaN or an infinity where the reference does not.
    """
    sums = AgreementSums(metadata)
    for sample in samples:
        wanted, got = reference.run(sample.feeds), other.run(sample.feeds)
        for name, values in got.items() if strict else ():
            check_finite(name, wanted[name], values)
        sums.update(_numbers(wanted), _numbers(got), sample)
    agreement = sums.result()
    return {
        "outputs": {name: asdict(distance) for name, distance in agreement.outputs.items()},
        "samples": agreement.samples,
        "top1": agreement.top1,
        "detections": agreement.detections,
        "texts": agreement.texts,
        "worst_sqnr_db": agreement.worst_sqnr_db,
    }


def _numbers(outputs: dict[str, Array]) -> dict[str, Array]:
    return {k: v for k, v in outputs.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiub"}


def check_finite(name: str, wanted: Array, got: Array) -> None:
    """Refuse an output with NaN, and one with infinities where there were none; what is no array is not judged.

    Raises:
        OptimizationError: It is such a one.
    """
    if not isinstance(got, np.ndarray) or got.dtype.kind != "f" or np.isfinite(got).all():
        return
    if np.isfinite(wanted).all():
        raise OptimizationError(f"output '{name}' of the optimized model holds NaN or infinities; nothing is written")
    if np.isnan(got).any():
        raise OptimizationError(
            f"output '{name}' of the optimized model holds NaN, and so does that of the model before it, on the same "
            "inputs; nothing is written (if that is as it should be: --keep-anyway)"
        )
