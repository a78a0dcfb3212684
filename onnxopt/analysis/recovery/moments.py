"""What a weighted layer sees: second moments of its input patches, and their products with what it should give.

A layer computes y = W p + b, where p is a patch (im2col) of its input. Fitting W and b by least squares needs the
means and covariances of p and of the wanted y. A few places where the quantized model goes badly wrong (a value far
outside its calibrated range) would decide the fit for all others: so each row has a weight, 1 up to twice the median
error and falling with the error beyond (Huber's, one step of iterated reweighting).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.recovery.patches import Patches

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

USUAL = 2.0  # median errors that a row may have at full weight


@dataclass(frozen=True)
class Moments:
    """Weighted means and covariances of the rows that a layer's samples give.

    Attributes:
        rows: How many.
        inputs: Mean patch, [groups, length].
        wanted: Mean wanted output, [groups, columns].
        covariance: Of p with itself, [groups, length, length].
        shared: Of y with p, [groups, columns, length].
    """

    rows: int
    inputs: FloatArray
    wanted: FloatArray
    covariance: FloatArray
    shared: FloatArray

    @property
    def squares(self) -> FloatArray:
        """Mean of p pᵀ, [groups, length, length]."""
        return self.covariance + self.inputs[:, :, None] * self.inputs[:, None, :]

    @property
    def products(self) -> FloatArray:
        """Mean of y pᵀ, [groups, columns, length]."""
        return self.shared + self.wanted[:, :, None] * self.inputs[:, None, :]


def measure_moments(
    patches: Patches,
    pairs: Iterable[tuple[Float32Array, Float32Array]],
    weight: Float32Array,
    bias: Float32Array,
    *,
    means_alone: bool = False,
) -> Moments:
    """Take the moments over some rows of each sample.

    Args:
        patches: How the layer reads and writes.
        pairs: Per sample the layer's input in the quantized model, and its output in the float model.
        weight: The layer's weights as they are now, [groups, columns, length].
        bias: Its bias, [groups, columns].
        means_alone: Leave the covariances out, which take the time and the memory; they are empty then.
    """
    taken = [patches.rows(values, wanted) for values, wanted in pairs]
    rows, targets = (np.concatenate([t[i] for t in taken], axis=1) for i in (0, 1))
    shares = _shares(rows, targets, weight, bias)
    inputs, wanted = (np.einsum("grc,gr->gc", values, shares) for values in (rows, targets))
    if means_alone:
        return Moments(rows.shape[1], inputs, wanted, np.zeros((len(rows), 0, 0)), np.zeros((*wanted.shape, 0)))
    # Products of float32 about zero would drown the variance of an input that hardly moves far from zero.
    rows, targets = ((v - mean[:, None]).astype(np.float32) for v, mean in ((rows, inputs), (targets, wanted)))
    weighted = (rows * shares[..., None]).astype(np.float32)
    return Moments(
        rows=rows.shape[1],
        inputs=inputs,
        wanted=wanted,
        covariance=np.matmul(weighted.transpose(0, 2, 1), rows).astype(np.float64),
        shared=np.matmul(targets.transpose(0, 2, 1), weighted).astype(np.float64),
    )


def _shares(rows: Float32Array, targets: Float32Array, weight: Float32Array, bias: Float32Array) -> FloatArray:
    """Weight of each row, [groups, rows]; they sum to 1 in each group."""
    given = np.matmul(rows, weight.transpose(0, 2, 1)) + bias[:, None, :]
    error = np.sqrt(np.square(targets - given).sum(axis=-1, dtype=np.float64))
    usual = USUAL * np.median(error, axis=1, keepdims=True)
    shares = np.where(error > usual, usual / np.maximum(error, 1e-30), 1.0)
    shares = np.where(usual > 0, shares, 1.0)
    normal: FloatArray = shares / shares.sum(axis=1, keepdims=True)
    return normal
