"""Weights of a layer that has lost inputs: least squares on what is left, held towards the original weights.

With z the patch, t the wanted output, H = Cov(z), W and b the weights and bias, S the columns left, and
D(λ)_j = λ (½ H_jj + ½ mean H_jj):

1. What is gone is made up for by what is left: W'_S = (W H_:S + W_S D(λ)) (H_SS + D(λ))⁻¹. The ridge pulls towards
   the original weights, not towards zero, so a layer that nothing is known about is left alone.
2. What went wrong before the layer, e = t - W z - b, is made up for too: W'_S += Cov(e, z_S) (H_SS + D(μ))⁻¹ with a
   far heavier ridge μ: errors differ from picture to picture, and few pictures say little about them.
3. The mean is restored: b' = E[t] - W' E[z].
"""

import numpy as np

from onnxopt.analysis.channels.atoms import BoolArray, IntArray
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import FloatArray

RIDGE = 0.03
CORRECTION_RIDGE = 1.0


def ridge_of(covariance: FloatArray, share: float) -> FloatArray:
    """Diagonal D of the ridge, [..., length]: a share of each variance and of their mean, and never quite zero."""
    variances = np.maximum(np.einsum("...ii->...i", covariance), 0)
    mean = variances.mean(axis=-1, keepdims=True)
    floor = np.finfo(np.float32).tiny + 1e-9 * mean.max(initial=0.0)
    ridge: FloatArray = share * 0.5 * (variances + mean) + floor
    return ridge


def refit(
    moments: Moments, weight: FloatArray, bias: FloatArray | None, kept: BoolArray
) -> tuple[FloatArray, FloatArray | None]:
    """New weights, zero in columns that went, and new bias.

    Args:
        moments: Of the layer's patches, all columns; without wanted outputs the layer should give what its old
            weights give.
        weight: Old weights, [groups, columns, length].
        bias: Old bias, [groups, columns]; None: the layer has none and gets none.
        kept: Which columns are left, [groups, length].
    """
    out = np.zeros_like(weight)
    shift = None if bias is None else bias.copy()
    for group, old in enumerate(weight):
        left = np.flatnonzero(kept[group])
        covariance = moments.covariance[group]
        products = old @ covariance
        damping = ridge_of(covariance, RIDGE)[left]
        wanted = products[:, left] + old[:, left] * damping
        out[group][:, left] = _solve(covariance, left, damping, wanted)
        given = old @ moments.mean[group]
        if moments.products is not None and moments.wanted is not None:
            error = (moments.products[group] - products)[:, left]
            out[group][:, left] += _solve(covariance, left, ridge_of(covariance, CORRECTION_RIDGE)[left], error)
            given = moments.wanted[group] - (0.0 if bias is None else bias[group])
        if shift is not None:
            shift[group] += given - out[group] @ moments.mean[group]
    return out, shift


def _solve(covariance: FloatArray, left: IntArray, damping: FloatArray, wanted: FloatArray) -> FloatArray:
    """X with X (H_SS + D) = `wanted`."""
    normal = covariance[np.ix_(left, left)]
    normal[np.diag_indices_from(normal)] += damping
    try:
        found = np.linalg.solve(normal, wanted.T)
    except np.linalg.LinAlgError:  # moments of constant inputs, less their squared means, may leave noise and no rank
        found = np.linalg.lstsq(normal, wanted.T)[0]
    return np.asarray(found.T, np.float64)
