"""What each candidate range of a histogram would cost: by squared error, and by TensorRT's entropy.

Both return the cost of all candidates, so that choosing (and breaking ties) stays with the caller.
"""

import numpy as np
import numpy.typing as npt

from onnxopt.kernels.compilation import kernel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EMPTY = 1e-4  # the count that stands for an empty level where a divergence would be infinite


@kernel("reassoc", "contract")
def _rounding_errors(values: FloatArray, weights: FloatArray, candidates: FloatArray, errors: FloatArray) -> None:
    for candidate in range(errors.size):
        step, low, high = candidates[0, candidate], candidates[1, candidate], candidates[2, candidate]
        inverse = 1.0 / step
        total = 0.0
        for i in range(values.size):
            difference = values[i] - min(max(np.rint(values[i] * inverse), low), high) * step
            total += weights[i] * (difference * difference)
        errors[candidate] = total


def rounding_errors(
    values: FloatArray, weights: IntArray, scales: FloatArray, lowest: FloatArray, highest: FloatArray
) -> FloatArray:
    """Return the weighted squared error of rounding `values` to each of several uniform grids.

    Candidate `c` has the levels `scales[c] * k` for the integers `k` from `lowest[c]` to `highest[c]`.

    Args:
        values: float64 of shape [n], such as the centres of histogram cells.
        weights: how often each value occurs, of shape [n].
        scales: positive steps, float64 of shape [candidates].
        lowest: first level in steps (qmin - zero point), float64 of shape [candidates].
        highest: last level in steps (qmax - zero point), float64 of shape [candidates].

    Returns:
        float64 of shape [candidates]: sum of weight * (value - rounded) ** 2.
    """
    errors = np.empty(scales.size, np.float64)
    _rounding_errors(values, weights.astype(np.float64), np.stack([scales, lowest, highest]), errors)
    return errors


@kernel()
def _merge_cells(mass: FloatArray, occupied: FloatArray, merged: FloatArray, density: FloatArray) -> None:
    levels = merged.shape[1]
    for candidate in range(merged.shape[0]):
        kept = candidate + levels
        start = 0
        remainder = 0
        for level in range(levels):  # begins at level * kept // levels, found without the slow division
            stop = start + kept // levels
            remainder += kept % levels
            if remainder >= levels:
                remainder -= levels
                stop += 1
            count = mass[stop] - mass[start]
            merged[candidate, level] = count
            density[candidate, level] = max(count, EMPTY) / max(occupied[stop] - occupied[start], 1.0)
            start = stop


def _running_sum(x: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros(1), np.cumsum(x)])


def _x_log_x(x: FloatArray) -> FloatArray:
    return x * np.log(np.maximum(x, 1.0))  # counts: 0 or at least 1


def entropy_divergences(counts: IntArray, levels: int) -> FloatArray:
    """Return the divergence of each candidate range from a histogram, as TensorRT's entropy calibration has it.

    A candidate keeps the first `kept` cells. P is the histogram of these, with the count of everything clipped
    added to the last. Q merges the kept cells (without the clipped ones) into `levels` groups of equal width and
    spreads each group evenly over those of its cells that are occupied in P. Both normalized, the divergence is
    sum P log(P / Q); a group of Q that is empty where P is not counts as `EMPTY`. It is infinite where
    nothing at all is kept.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017. Q is constant within a group, so the sum of
    P log Q needs one logarithm per level, 128 instead of up to 2048.

    Args:
        counts: histogram of |x|, int64 of shape [n], not all zero.
        levels: number of quantized levels, 128 for |x| in int8.

    Returns:
        float64 of shape [n - levels + 1], for `kept` = levels … n; empty if there are fewer cells than levels.
    """
    kept = np.arange(levels, counts.size + 1)
    cells = counts.astype(np.float64)
    mass, occupied = _running_sum(cells), _running_sum((cells > 0).astype(np.float64))
    merged, density = np.empty((kept.size, levels)), np.empty((kept.size, levels))
    _merge_cells(mass, occupied, merged, density)

    # In P the last level also holds what is clipped, in the last cell, which is occupied then.
    clipped, last_cell = mass[-1] - mass[kept], cells[kept - 1]
    last_occupied = occupied[kept] - occupied[(levels - 1) * kept // levels]
    last_occupied += (last_cell == 0) & (clipped > 0)
    density[:, -1] = np.maximum(merged[:, -1], EMPTY) / np.maximum(last_occupied, 1.0)
    merged[:, -1] += clipped

    own = _running_sum(_x_log_x(cells))[kept - 1] + _x_log_x(last_cell + clipped)
    cross = np.einsum("ij,ij->i", merged, np.log(density, out=density))
    with np.errstate(divide="ignore", invalid="ignore"):
        divergences = (own - cross) / mass[-1] - np.log(mass[-1]) + np.log(mass[kept])
    return np.where(mass[kept] > 0, divergences, np.inf)
