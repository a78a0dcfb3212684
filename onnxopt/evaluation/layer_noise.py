"""Where in a model the optimized one goes astray: every tensor that both have, compared on a few samples.

Both graphs run as they are written, without a runtime's own optimizations, for what is fused has no tensor to look at.
A quantized tensor is read behind its DequantizeLinear, so that its own rounding counts. An error is that of everything
up to the tensor, not of its own quantizer alone.

A name may stay while what it means changes. Where a BatchNormalization went into the layer before it, that layer's
output is compared with what the normalization gave. Where a pass scaled or mixed channels and the layers behind take
that back (equalization, another basis), a tensor differs that nothing behind it shows: it is not compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.analysis.cost import WEIGHTED
from onnxopt.analysis.shapes import Shape, Shapes, infer
from onnxopt.calibration.collect import portions
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.data import Dataset, InputSpec
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.graph import Graph, Node, Tensor
from onnxopt.report.document import Spectrum
from onnxopt.runtime.ort import OrtSession

MEMORY = 2**29  # bytes of activations of both models that are held at a time
BINS = 96
RUINED, UNSEEN = 6.0, 10.0  # dB: half of the amplitude is wrong; and what a layer never takes back by chance
Inferred = tuple[Mapping[str, Shape], Mapping[str, Any]]
LINEAR = frozenset(
    {*WEIGHTED, "Add", "Sub", "Mul", "Div", "BatchNormalization", "Concat", "Relu", "LeakyRelu", "MaxPool"}
)
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Quantizer:
    """How one tensor is quantized.

    Attributes:
        scale: Of one step, of the whole tensor.
        low: Smallest value that has a code.
        high: Largest.
    """

    scale: float
    low: float
    high: float


@dataclass(frozen=True)
class LayerNoise:
    """What was found.

    Attributes:
        sqnr_db: Tensor of the optimized model to dB, for float tensors that both models have in one shape.
        quantizers: Tensor to how the optimized model quantizes it.
        counterparts: Tensor to the one of the model as given that it was compared with.
    """

    sqnr_db: dict[str, float]
    quantizers: dict[str, Quantizer]
    counterparts: dict[str, str]


def quantizers(graph: Graph) -> dict[str, Quantizer]:
    """Activations that are quantized as a whole: tensor name to how."""
    found = {}
    for node in graph.nodes_of(QUANTIZE):
        scale, zero = (graph.constant(t) if t.name else None for t in (node.inputs[1], *node.inputs[2:3]))
        if scale is None or zero is None or scale.size != 1 or graph.constant(node.inputs[0]) is not None:
            continue
        if zero.dtype.kind not in "iu":
            continue
        limits, step = np.iinfo(zero.dtype), float(scale.reshape(-1)[0])
        ends = ((limit - int(zero.reshape(-1)[0])) * step for limit in (limits.min, limits.max))
        found[node.inputs[0].name] = Quantizer(step, *ends)
    return found


def measure_noise(before: Graph, after: Graph, inputs: Sequence[InputSpec], samples: Dataset) -> LayerNoise:
    """Compare the tensors of two models.

    Args:
        before: The model as it came.
        after: The optimized one.
        inputs: Sizes to run at.
        samples: What to run both on; a few suffice.

    Raises:
        OptimizationError: One of them does not run.
    """
    kinds = [infer(graph, tuple(inputs)) for graph in (before, after)]
    places = _places(after)
    pairs = {name: own for name, own in _counterparts(before, places).items() if _alike(own, places[name], *kinds)}
    sums = {name: DistanceSums() for name in pairs}
    shapes = Shapes(*kinds[1])
    for names in portions(list(pairs), shapes, MEMORY // 2):
        asked = ([pairs[name] for name in names], [places[name] for name in names])
        wanted, got = (
            OrtSession(_exposed(graph, tensors, kind[1]).to_proto(), optimized=False)
            for graph, tensors, kind in zip((before, after), asked, kinds, strict=True)
        )
        for sample in samples:
            a, b = wanted.run(sample.feeds, asked[0]), got.run(sample.feeds, asked[1])
            for name in names:
                sums[name].update(a[pairs[name]], b[places[name]])
    found = {name: total.result().sqnr_db for name, total in sums.items()}
    sqnr = {name: value for name, value in found.items() if not np.isnan(value)}
    for name in _in_other_terms(after, sqnr):
        del sqnr[name]
    return LayerNoise(sqnr, quantizers(after), pairs)


def worst_spectra(
    graph: Graph, noise: LayerNoise, inputs: Sequence[InputSpec], samples: Dataset, *, most: int = 10
) -> tuple[Spectrum, ...]:
    """How the values of the quantized tensors with the lowest SQNR are spread, worst first.

    Args:
        graph: The model as it came.
        noise: Of the optimized one.
        inputs: Sizes to run at.
        samples: What to run it on.
        most: How many tensors.

    Raises:
        OptimizationError: It does not run.
    """
    _, dtypes = infer(graph, tuple(inputs))
    judged = [name for name in noise.quantizers if np.isfinite(noise.sqnr_db.get(name, np.inf))]
    names = sorted(judged, key=lambda name: noise.sqnr_db[name])[:most]
    if not names:
        return ()
    statistics = {name: TensorStatistics(name, histogram=True) for name in names}
    own = noise.counterparts
    session = OrtSession(_exposed(graph, [own[name] for name in names], dtypes).to_proto())
    for sample in samples:
        values = session.run(sample.feeds, [own[name] for name in names])
        for name in names:
            statistics[name].update(values[own[name]], images=1)
    return tuple(_spectrum(statistics[name], noise.quantizers[name], noise.sqnr_db[name]) for name in names)


def _spectrum(seen: TensorStatistics, quantizer: Quantizer, sqnr_db: float) -> Spectrum:
    assert seen.histogram is not None
    centres, counts = seen.histogram.occupied()
    centres = np.clip(centres, seen.minimum, seen.maximum)  # those of the outer cells lie outside
    binned, edges = np.histogram(centres, BINS, (seen.minimum, max(seen.maximum, seen.minimum + 1e-9)), weights=counts)
    outside = (centres < quantizer.low - quantizer.scale / 2) | (centres > quantizer.high + quantizer.scale / 2)
    return Spectrum(
        tensor=seen.name,
        edges=tuple(edges.tolist()),
        counts=tuple(int(count) for count in binned),
        low=quantizer.low,
        high=quantizer.high,
        sqnr_db=sqnr_db,
        clipped=float(counts[outside].sum() / max(1, counts.sum())),
    )


def _places(graph: Graph) -> dict[str, str]:
    """Name of a tensor to that of the tensor that holds what its readers see: itself, or what a pair makes of it."""
    return {t.name: _behind_pair(graph, t) for n in graph.nodes for t in n.outputs if t.name and not _in_pair(n)}


def _counterparts(before: Graph, places: Mapping[str, str]) -> dict[str, str]:
    """Tensor of the optimized model to the one of the model as given that it stands for."""
    found = {}
    for tensor in (t for n in before.nodes for t in n.outputs):
        if tensor.name not in places:
            continue
        readers = before.consumers(tensor)
        absorbed = len(readers) == 1 and readers[0].op == "BatchNormalization"
        behind = readers[0].outputs[0].name if absorbed else ""
        found[tensor.name] = behind if absorbed and behind not in places else tensor.name
    return found


def _in_other_terms(graph: Graph, sqnr_db: Mapping[str, float]) -> set[str]:
    """Tensors whose error is large, and that layers behind take back: linear ones, for others may hide an error."""
    odd: set[str] = set()
    for tensor in (t for n in reversed(graph.nodes) for t in n.outputs if sqnr_db.get(t.name, RUINED) < RUINED):
        readers = list(_readers(graph, tensor))
        behind = [t.name for n in readers for t in n.outputs if t.name in sqnr_db]
        if not behind or any(n.op not in LINEAR for n in readers):
            continue
        if all(name in odd or sqnr_db[name] > sqnr_db[tensor.name] + UNSEEN for name in behind):
            odd.add(tensor.name)
    return odd


def _readers(graph: Graph, tensor: Tensor) -> Iterator[Node]:
    """Nodes that read a tensor, itself or behind its pair."""
    for node in graph.consumers(tensor):
        if _in_pair(node):
            yield from _readers(graph, node.outputs[0])
        else:
            yield node


def _in_pair(node: Node) -> bool:
    return node.op in {QUANTIZE, DEQUANTIZE}


def _behind_pair(graph: Graph, tensor: Tensor) -> str:
    current = tensor
    for op in (QUANTIZE, DEQUANTIZE):
        reader = next((n for n in graph.consumers(current) if n.op == op), None)
        if reader is None:
            return str(tensor.name)
        current = reader.outputs[0]
    return str(current.name)


def _alike(name: str, place: str, before: Inferred, after: Inferred) -> bool:
    """Whether a tensor is float in both models and has one shape, as far as that is known."""
    kinds = [types.get(key) for key, (_, types) in ((name, before), (place, after))]
    if any(kind is None or np.dtype(kind).kind != "f" for kind in kinds):
        return False
    return before[0].get(name) == after[0].get(place)


def _exposed(graph: Graph, names: Sequence[str], dtypes: Mapping[str, Any]) -> Graph:
    """Copy of a graph with these tensors as further outputs."""
    copy = graph.copy()
    own = {t.name for t in copy.outputs}
    tensors = copy.tensors()
    for name in (name for name in dict.fromkeys(names) if name not in own):
        tensors[name].dtype, tensors[name].shape = dtypes[name], None
        copy.outputs.append(tensors[name])
    return copy
