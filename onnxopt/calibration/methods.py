"""How far a range should reach: the methods, each from `TensorStatistics` to a `Range`.

* `minmax`: everything seen. Grows with outliers and with the number of images.
* `mean-minmax`: the mean over images of each one's extremes (NNCF's default; ours where no samples can choose).
* `percentile`: clips a share of all values, half of it at each end; at one end for a one-sided tensor.
* `entropy`: TensorRT's threshold on |x|, see `kernels.entropy_divergences`.
* `mse`: the least squared rounding error over a grid of lower and upper ends.
* `auto`: per tensor, whichever of the first four has the least squared rounding error. (`mse` is not among them:
  it would win that contest by construction and leave nothing to choose.)

Activations with bounds of their own, such as a Relu6 or a sigmoid, are where `entropy` and `auto` go wrong: many
values sit at the bound, which a histogram takes for a tail. Both keep the full range there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from onnxopt.calibration.parameters import IntegerType, channel_parameters, integer_limits
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.errors import UsageError, nearest
from onnxopt.kernels import Histogram, entropy_divergences, rounding_errors

Method: TypeAlias = Literal["minmax", "mean-minmax", "percentile", "entropy", "mse", "auto"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_METHOD: Method = "mean-minmax"
DEFAULT_PERCENTILE = 99.99

ENTROPY_CELLS = 2048
ENTROPY_LEVELS = 128  # of |x| in int8

# Candidates of `mse`: the observed ends times these, from all of it down to a sixteenth.
FINE = np.exp2(-np.arange(33) / 8)
COARSE = np.exp2(-np.arange(17) / 4)


@dataclass(frozen=True)
class Range:
    """An interval that contains 0, as every quantized range must.

    Attributes:
        low: lower end, <= 0.
        high: upper end, >= 0.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0.0 <= self.high:
            raise ValueError(f"the range [{self.low}, {self.high}] does not contain 0")

    @classmethod
    def around_zero(cls, low: float, high: float) -> "Range":
        """Return the smallest range that contains `low`, `high` and 0."""
        return cls(min(low, 0.0) + 0.0, max(high, 0.0) + 0.0)  # the sums turn -0.0 into 0.0


@dataclass(frozen=True)
class Scheme:
    """The integers a range will be divided into; see `parameters`."""

    dtype: IntegerType = "uint8"
    symmetric: bool = False


def needs_histogram(method: str) -> bool:
    """Return whether a method needs statistics with a histogram."""
    return method not in {"minmax", "mean-minmax"}


def compute_range(
    statistics: TensorStatistics,
    method: Method = DEFAULT_METHOD,
    *,
    percentile: float = DEFAULT_PERCENTILE,
    scheme: Scheme = Scheme(),
) -> Range:
    """Return the range of a tensor by one of the methods.

    Args:
        statistics: what was seen of the tensor, with a histogram if `needs_histogram(method)`.
        method: one of `METHODS`.
        percentile: for `percentile` and `auto`: the share of values to keep, in percent.
        scheme: for `mse` and `auto`: the integers to come.

    Raises:
        UsageError: nothing was seen of the tensor; unknown method; percentile not in (50, 100].
        ValueError: a histogram is needed and not there.
    """
    if method == "auto":
        return best_method(statistics, percentile=percentile, scheme=scheme)[1]
    if method == "mse":
        return mse(statistics, scheme)
    if method == "percentile":
        return by_percentile(statistics, percentile)
    simple: dict[str, Callable[[TensorStatistics], Range]] = {
        "minmax": minmax,
        "mean-minmax": mean_minmax,
        "entropy": entropy,
    }
    if method not in simple:
        raise UsageError(f"unknown calibration method '{method}'{nearest(method, METHODS)}")
    return simple[method](statistics)


def minmax(statistics: TensorStatistics) -> Range:
    """Return the range of everything seen."""
    statistics.require_images()
    return Range.around_zero(statistics.minimum, statistics.maximum)


def mean_minmax(statistics: TensorStatistics) -> Range:
    """Return the mean over the images of each one's extremes."""
    statistics.require_images()
    return Range.around_zero(statistics.mean_minimum, statistics.mean_maximum)


def by_percentile(statistics: TensorStatistics, percentile: float = DEFAULT_PERCENTILE) -> Range:
    """Return the range that keeps `percentile` percent of all values, to the outer edge of a histogram cell.

    Raises:
        UsageError: nothing was seen of the tensor, or the percentile is not in (50, 100].
    """
    if not 50.0 < percentile <= 100.0:
        raise UsageError(f"percentile {percentile:g} is not above 50 and at most 100; 99.99 is usual")
    histogram = _histogram(statistics)
    clipped = 1.0 - percentile / 100.0
    below = 0.0 if statistics.minimum >= 0 else clipped if statistics.maximum <= 0 else clipped / 2
    above = clipped - below
    running = np.cumsum(histogram.counts)
    total = int(running[-1])
    first = int(np.searchsorted(running, total * below, side="right"))
    last = int(np.searchsorted(running, total * (1.0 - above), side="left"))
    low = (histogram.first + first) * histogram.width
    high = (histogram.first + last + 1) * histogram.width
    return Range.around_zero(max(low, statistics.minimum), min(high, statistics.maximum))


def entropy(statistics: TensorStatistics) -> Range:
    """Return the observed range cut to the |x| of least divergence; see `kernels.entropy_divergences`.

    Of equal candidates the widest is taken. The first cell is given its neighbour's count, as NVIDIA's calibrators
    do: zeros are exact at any scale, and a Relu's many would drown the rest.
    """
    everything = minmax(statistics)
    counts, width = _histogram(statistics).magnitudes(ENTROPY_CELLS)
    if statistics.bounds is not None or counts.size <= ENTROPY_LEVELS:
        return everything
    counts[0] = counts[1]
    divergences = entropy_divergences(counts, ENTROPY_LEVELS)
    kept = counts.size - int(np.argmin(divergences[::-1]))
    threshold = (kept + 0.5) * width
    return Range(max(everything.low, -threshold), min(everything.high, threshold))


def mse(statistics: TensorStatistics, scheme: Scheme = Scheme()) -> Range:
    """Return the range of least squared rounding error among fractions of the observed ends."""
    everything = minmax(statistics)
    if scheme.symmetric or everything.low == 0.0 or everything.high == 0.0:
        low, high = everything.low * FINE, everything.high * FINE
        if scheme.symmetric:  # an end is cut only where the other one does not make room for it anyway
            reach = np.maximum(-low, high)
            low, high = np.maximum(everything.low, -reach), np.minimum(everything.high, reach)
    else:
        low, high = (ends.ravel() for ends in np.meshgrid(everything.low * COARSE, everything.high * FINE))
    best = int(np.argmin(squared_errors(statistics, low, high, scheme)))
    return Range.around_zero(float(low[best]), float(high[best]))


def best_method(
    statistics: TensorStatistics,
    *,
    percentile: float = DEFAULT_PERCENTILE,
    scheme: Scheme = Scheme(),
) -> tuple[Method, Range]:
    """Return the method whose range has the least squared rounding error, and the range; see the module's `auto`.

    Raises:
        UsageError: nothing was seen of the tensor, or the percentile is not in (50, 100].
    """
    candidates: dict[Method, Range] = {"minmax": minmax(statistics)}
    if statistics.bounds is None:
        candidates["mean-minmax"] = mean_minmax(statistics)
        candidates["percentile"] = by_percentile(statistics, percentile)
        candidates["entropy"] = entropy(statistics)
    low = np.array([candidate.low for candidate in candidates.values()])
    high = np.array([candidate.high for candidate in candidates.values()])
    best = int(np.argmin(squared_errors(statistics, low, high, scheme)))
    return list(candidates.items())[best]


def squared_errors(
    statistics: TensorStatistics,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    scheme: Scheme = Scheme(),
) -> npt.NDArray[np.float64]:
    """Return the squared rounding error, summed over the histogram, of several ranges.

    Args:
        statistics: what was seen of the tensor, with a histogram.
        low: lower ends, of shape [candidates].
        high: upper ends, of shape [candidates].
        scheme: the integers that a range is divided into.

    Returns:
        float64 of shape [candidates].
    """
    scale, zero_point = channel_parameters(low, high, dtype=scheme.dtype, symmetric=scheme.symmetric)
    qmin, qmax = integer_limits(scheme.dtype, symmetric=scheme.symmetric)
    zero = zero_point.astype(np.float64)
    return rounding_errors(*_histogram(statistics).occupied(), scale.astype(np.float64), qmin - zero, qmax - zero)


def _histogram(statistics: TensorStatistics) -> Histogram:
    statistics.require_images()
    if statistics.histogram is None:
        raise ValueError(f"statistics of tensor '{statistics.name}' were taken without a histogram")
    return statistics.histogram
