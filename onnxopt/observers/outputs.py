"""Whether two graphs compute the same, by the rule of a pass's `effect`.

1. `exact`: equal bit for bit (a NaN equals a NaN).
2. `rounding`: max|a-b| <= max(1e-5, 10 r) max|a| for each output, where r is how far rounding carries in the graph
   before: the most that ONNX Runtime's own optimizations change, max|off-on| / max|off|, or inputs that are one unit in
   the last place larger or smaller, on any of the samples. A deep network with a Softmax makes much of such a unit.
   Where that makes outputs jump (by more than 1e-4, as behind a Floor), it says nothing and does not count.
3. `lossy`: finite wherever the graph before was.

Both graphs run with all of ONNX Runtime's optimizations off, in one thread.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.data import Feeds
from onnxopt.errors import OptimizationError
from onnxopt.graph import Array, Graph
from onnxopt.runtime.ort import OrtSession

ROUNDING = 1e-5  # of an output's largest value
SLACK = 10.0  # times what rounding changes by itself
JUMP = 1e-4  # more than this of an output is no rounding

Outputs = list[dict[str, Array]]

# A MatMul whose weights are an initializer is packed for another kernel than one that reads the same weights through a
# node, and sums in another order.
SAME_KERNELS = {"session.disable_prepacking": "1"}


def run(model: bytes, feeds: Sequence[Feeds], *, optimized: bool = False) -> Outputs:
    """Outputs for each of the feeds.

    Raises:
        OptimizationError: ONNX Runtime cannot load or run the model.
    """
    session = OrtSession(model, optimized=optimized, config=SAME_KERNELS)
    return [session.run(feed) for feed in feeds]


def serialised(graph: Graph) -> bytes:
    """A graph as the bytes of a file; for models under 2 GB."""
    return graph.to_proto().SerializeToString(deterministic=True)


def same_bits(wanted: Array, got: Array) -> bool:
    """Whether two arrays are equal bit for bit, a NaN being equal to any NaN."""
    if (wanted.dtype, wanted.shape) != (got.dtype, got.shape):
        return False
    if wanted.tobytes() == got.tobytes():
        return True
    if wanted.dtype.kind != "f":
        return False
    nans = np.isnan(wanted) & np.isnan(got)
    return bool(((wanted == got) & (np.signbit(wanted) == np.signbit(got)) | nans).all())


def deviation(wanted: Array, got: Array) -> float:
    """max|a-b| / max|a|; 0 for empty arrays; infinite where shapes differ or values that are not finite do."""
    if wanted.shape != got.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    a, b = (x.astype(np.float64) for x in (wanted, got))
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    high = float(np.abs(a[finite]).max(initial=0.0))
    if np.isnan(error):
        return float("inf")
    return error / high if high else (float("inf") if error else 0.0)


def rounding_bounds(model: bytes, feeds: Sequence[Feeds], plain: Outputs) -> list[dict[str, float]]:
    """Allowed deviation of each output; the same for all samples.

    Args:
        model: The graph before.
        feeds: Its inputs.
        plain: Its outputs with optimizations off.
    """
    optimized = _deviations(plain, run(model, feeds, optimized=True))
    try:
        nudged = _deviations(plain, run(model, [_nudged(feed) for feed in feeds]))
    except OptimizationError:  # an input that is a size, say
        nudged = {}
    usual = {name: size if (size := max(nudged.get(name, [0.0]))) <= JUMP else 0.0 for name in optimized}
    bounds = {name: max(ROUNDING, SLACK * max(*sizes, usual[name])) for name, sizes in optimized.items()}
    return [bounds] * len(plain)


def _deviations(plain: Outputs, others: Outputs) -> dict[str, list[float]]:
    """Per output, of each sample."""
    names = plain[0] if plain else ()
    return {n: [deviation(wanted[n], got[n]) for wanted, got in zip(plain, others, strict=True)] for n in names}


def _nudged(feed: Feeds) -> Feeds:
    """The same inputs, float ones larger or smaller by one unit in the last place; zeros stay."""
    generator = np.random.default_rng(0)
    return {
        name: np.asarray(v * (1 + generator.choice([-1, 1], v.shape) * np.finfo(v.dtype).eps), v.dtype)
        if v.dtype.kind == "f"
        else v
        for name, v in feed.items()
    }


def newly_infinite(wanted: Array, got: Array) -> bool:
    """Whether values stopped being finite. Arrays of different shape are judged as a whole."""
    if got.dtype.kind != "f":
        return False
    if wanted.shape == got.shape and wanted.dtype.kind == "f":
        return bool((np.isfinite(wanted) & ~np.isfinite(got)).any())
    return not np.isfinite(got).all()
