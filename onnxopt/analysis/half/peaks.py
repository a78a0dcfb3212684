"""How large each tensor gets on the samples, and what of that float16 can hold.

float16 has 11 significant bits, its largest number is 65504, its smallest normal one 2^-14 ≈ 6.1e-5, and below that
it counts in steps of 2^-24 ≈ 6e-8.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.collect import expose, portions
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph
from onnxopt.runtime.ort import OrtSession

LARGEST = float(np.finfo(np.float16).max)
SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)
WORST_CONSTANT = 50.0  # dB; a constant that float16 renders worse than this stays float32


def peaks(
    graph: Graph, names: Sequence[str], samples: Iterable[Feeds], shapes: Shapes, *, threads: int = 1
) -> dict[str, float]:
    """Largest finite magnitude of each tensor over the samples; one sweep, nothing else is kept.

    Infinities are passed over: float16 has them too.

    Args:
        graph: The float32 model.
        names: Float tensors: inputs of the graph or outputs of its nodes.
        samples: Values of all inputs; read once.
        shapes: Sizes, so that no more than 1 GiB of values is fetched at a time.
        threads: Threads of the session.
    """
    given = {t.name for t in graph.inputs}
    inner = [name for name in names if name not in given]
    session = OrtSession(expose(graph, inner).to_proto(), threads=threads)
    largest = dict.fromkeys(names, 0.0)
    for feeds in samples:
        _raise(largest, {name: feeds[name] for name in names if name in given})
        for portion in portions(inner, shapes):
            _raise(largest, session.run(feeds, portion))
    return largest


def _raise(largest: dict[str, float], values: Mapping[str, Array]) -> None:
    for name, array in values.items():
        if array.size:
            high, low = float(array.max()), float(array.min())
            if not np.isfinite([high, low]).all():
                finite = array[np.isfinite(array)]
                high, low = float(finite.max(initial=0.0)), float(finite.min(initial=0.0))
            largest[name] = max(largest[name], high, -low)


def to_half(values: Array) -> Array:
    """Values as float16, finite ones that it cannot hold at its largest."""
    limited = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
    with np.errstate(under="ignore"):
        return np.asarray(limited.astype(np.float16))


def constant_obstacle(values: Array) -> str:
    """Why a constant must stay float32; "" where float16 renders it well.

    The measure is 10·log10(Σ v² / Σ (v - half(v))²), over finite values.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > LARGEST:
        return f"holds {largest:.3g}, and float16 ends at {LARGEST:.0f}"
    signal = float(finite @ finite)
    error = finite - to_half(finite).astype(np.float64)
    noise = float(error @ error)
    if noise and signal < noise * 10 ** (WORST_CONSTANT / 10):
        decibels = 10 * np.log10(signal / noise) if signal else 0.0
        return f"is too small for float16 (largest {largest:.3g}; {decibels:.0f} dB are left)"
    return ""


def vanishing(values: Array) -> int:
    """How many numbers of a constant become 0 in float16 that are not 0."""
    return int(((to_half(values) == 0) & (values != 0)).sum())
