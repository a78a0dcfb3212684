"""A histogram of bounded size whose range grows with the data, exactly.

The cells are those of a binary grid: with `width = 2 ** exponent`, cell `k` holds the values with
`floor(x / width) == k`. `BIN_COUNT` cells in a row are kept, from cell `first` on. The exponent is the smallest
one for which these cover everything seen so far and zero, and `first` is the cell of the smallest value (or of
zero). Doubling the width sends cell `k` to `k >> 1`, which is exact: the final counts are a function of the values
alone, whatever their order and however they were split over several histograms.

At least half of the cells lie between the smallest and the largest value, be the tensor one-sided or not.
(Results of `x / width` below float32's smallest number, 1e-45, count as zero.)
"""

import math
from typing import Self

import numpy as np
import numpy.typing as npt

from onnxopt.kernels.compilation import kernel

BIN_COUNT = 4096
SMALLEST_EXPONENT = -126  # the width and its inverse are normal float32 numbers

# Consecutive values often fall into one cell (zeros after a Relu), and an increment that waits for the store before
# it takes four times as long. So neighbours are counted in different tables.
TABLES = 4
BLOCK = 256  # values whose cells are computed, by SIMD, before they are counted; larger ones overlap less


@kernel()
def _count(
    counts: npt.NDArray[np.int64], first: np.int32, inverse_width: np.float32, x: npt.NDArray[np.float32]
) -> None:
    # A value outside the grid lands in its last cell instead of in foreign memory. Unsigned cell numbers make a
    # negative one large, and spare the test for Python's indexing from the end.
    last = np.uint32(counts.size - 1)
    blocks = x.size // BLOCK if x.size > 2 * counts.size else 0  # tables do not pay for a small array
    tables = np.zeros((TABLES if blocks else 0, counts.size), np.int32)
    cells = np.empty(BLOCK, np.uint32)
    for block in range(blocks):
        values = x[block * BLOCK : (block + 1) * BLOCK]
        for i in range(BLOCK):
            cells[i] = min(np.uint32(np.int32(np.floor(values[i] * inverse_width)) - first), last)
        for i in range(BLOCK // TABLES):
            for table in range(TABLES):
                tables[table, cells[np.uint32(i * TABLES + table)]] += np.int32(1)
    for table in range(tables.shape[0]):
        for cell in range(counts.size):
            counts[cell] += tables[table, cell]
    for i in range(blocks * BLOCK, x.size):
        counts[min(np.uint32(np.int32(np.floor(x[i] * inverse_width)) - first), last)] += 1


def _grid(low: float, high: float) -> tuple[int, int]:
    """Return the smallest exponent whose grid covers [low, high] with `BIN_COUNT` cells, and the first cell."""
    exponent = max(math.frexp(high - low)[1] - BIN_COUNT.bit_length(), SMALLEST_EXPONENT)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BIN_COUNT:
        exponent += 1
    return exponent, math.floor(math.ldexp(low, -exponent))


class Histogram:
    """Counts of finite float32 values in `BIN_COUNT` cells; see the module for their grid.

    Attributes:
        counts: int64 of shape [BIN_COUNT]; `counts[i]` belongs to the values in
            `[(first + i) * width, (first + i + 1) * width)`.
        first: number of the first cell.
        exponent: binary logarithm of the width.
        low: smallest value counted, or zero if that is smaller.
        high: largest value counted, or zero if that is larger.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BIN_COUNT, np.int64)
        self.low = self.high = 0.0
        self.exponent, self.first = _grid(0.0, 0.0)

    @property
    def width(self) -> float:
        """Width of a cell, a power of two."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, x: npt.NDArray[np.float32], low: float, high: float) -> None:
        """Count the values of an array.

        Args:
            x: finite float32 values of any shape, C-contiguous.
            low: the smallest of them, as `minmax` gives it.
            high: the largest of them.
        """
        self._cover(low, high)
        _count(self.counts, np.int32(self.first), np.float32(math.ldexp(1.0, -self.exponent)), x.reshape(-1))

    def add_weighted(self, values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64]) -> None:
        """Count each of `values`, float64 of shape [n], as often as `weights`, int64 of shape [n], says."""
        if values.size:
            self._cover(float(values.min()), float(values.max()))
            cells = np.floor(np.ldexp(values, -self.exponent)).astype(np.int64) - self.first
            np.add.at(self.counts, cells, weights)

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram: the result is that of the values of both."""
        self._cover(other.low, other.high)
        _transfer(other, self.counts, self.exponent, self.first)

    def occupied(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return the occupied cells: their centres, cut to [low, high], and their counts, both of shape [m]."""
        cells = np.flatnonzero(self.counts)
        centres = np.ldexp(cells + (self.first + 0.5), self.exponent)
        return np.clip(centres, self.low, self.high), self.counts[cells]

    def magnitudes(self, limit: int) -> tuple[npt.NDArray[np.int64], float]:
        """Return the histogram of |x|.

        Args:
            limit: the largest number of cells wanted.

        Returns:
            `(counts, width)`: int64 of shape [n], n <= limit, the last count positive unless n = 0; cell `i`
            stands for `[i * width, (i + 1) * width)`, a negative value on an edge for the cell below it.
        """
        occupied = np.flatnonzero(self.counts)
        cells = occupied + self.first
        cells = np.where(cells < 0, -1 - cells, cells)
        shift = 0
        while cells.size and int(cells.max()) >> shift >= limit:
            shift += 1
        counts = np.zeros((int(cells.max()) >> shift) + 1 if cells.size else 0, np.int64)
        np.add.at(counts, cells >> shift, self.counts[occupied])
        return counts, math.ldexp(1.0, self.exponent + shift)

    def copy(self) -> Self:
        """Return an independent copy."""
        copied = type(self)()
        copied.merge(self)
        return copied

    def _cover(self, low: float, high: float) -> None:
        """Widen the grid so that it holds [low, high] too."""
        if self.low <= low and high <= self.high:
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        exponent, first = _grid(self.low, self.high)
        counts = np.zeros(BIN_COUNT, np.int64)
        _transfer(self, counts, exponent, first)
        self.counts, self.exponent, self.first = counts, exponent, first


def _transfer(source: Histogram, counts: npt.NDArray[np.int64], exponent: int, first: int) -> None:
    """Add the counts of `source` to those of a grid that covers its own and is no finer."""
    occupied = np.flatnonzero(source.counts)
    # An integer has no more bits to shift out than this; what is left then is 0 or -1.
    cells = (occupied + source.first) >> min(exponent - source.exponent, 62)
    np.add.at(counts, cells - first, source.counts[occupied])
