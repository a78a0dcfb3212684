"""Rounding of weights so that what the rounded ones leave over is made up for by those still to be rounded."""

import numpy as np
import numpy.typing as npt

from onnxopt.kernels.compilation import kernel

Float32Array = npt.NDArray[np.float32]


@kernel("reassoc", "contract")
def _round_rows(
    weights: Float32Array, scales: Float32Array, factor: Float32Array, limits: Float32Array, codes: npt.NDArray[np.int8]
) -> None:
    length = weights.shape[2]
    row = np.empty(length, np.float32)
    for group in range(weights.shape[0]):
        for channel in range(weights.shape[1]):
            step = scales[group, channel]
            row[:] = weights[group, channel]
            for i in range(length):
                code = min(max(np.rint(row[i] / step), limits[0]), limits[1])
                codes[group, channel, i] = np.int8(code)
                error = (row[i] - code * step) / factor[group, i, i]
                for j in range(i + 1, length):
                    row[j] -= error * factor[group, i, j]


def round_rows(
    weights: Float32Array, scales: Float32Array, factor: Float32Array, *, qmin: int, qmax: int
) -> npt.NDArray[np.int8]:
    """Round rows of weights one by one from the left; each rounding error is spread over the weights to its right.

    With H the second moments of the inputs and U the upper Cholesky factor of its inverse (H^-1 = Uᵀ U), the best
    place for the error e of weight i is  w_j -= e / U_ii · U_ij  for j > i.

    Source: Frantar et al., "GPTQ", arXiv 2210.17323, section 3, algorithm 1.

    Args:
        weights: float32[groups, rows, length].
        scales: positive steps, float32[groups, rows].
        factor: U per group, float32[groups, length, length], with a positive diagonal.
        qmin: smallest code.
        qmax: largest code.

    Returns:
        int8[groups, rows, length].
    """
    codes = np.empty(weights.shape, np.int8)
    limits = np.asarray([qmin, qmax], np.float32)
    values, steps, upper = (np.ascontiguousarray(a, np.float32) for a in (weights, scales, factor))
    _round_rows(values, steps, upper, limits, codes)
    return codes
