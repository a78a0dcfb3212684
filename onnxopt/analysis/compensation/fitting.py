"""Weights of a layer that has lost inputs: least squares on what is left, held towards the original weights.

With z the patch, t the wanted output, H = Cov(z), W and b the weights and bias, S the columns left, and
D(λ)_j = λ (½ H_jj + ½ mean H_jj):

1. What is gone is made up for by what is left: W'_S = (W H_:S + W_S D(λ)) (H_SS + D(λ))⁻¹. The ridge pulls towards
   the original weights, not towards zero, so a layer that nothing is known about is left alone.
2. What went wrong before the layer, e = t - W z - b, is made up for too: W'_S += Cov(e, z_S) (H_SS + D(μ))⁻¹. Errors
   differ from picture to picture, and few pictures say little about them; how little differs from layer to layer.
   Where thousands of places of each picture are fitted to, a light ridge μ helps; in a layer with more unknowns than
   pictures any correction learns the pictures by heart (μ = ∞: none). So several are offered, and samples that
   nothing was fitted on choose (see `refitting`).
3. The mean is restored: b' = E[t] - W' E[z].
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.analysis.channels.atoms import BoolArray, IntArray
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import FloatArray

RIDGE = 0.03
CORRECTION_RIDGE = 1.0  # where nothing can choose
CORRECTION_RIDGES = (np.inf, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


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
    return refits(moments, weight, bias, kept, (CORRECTION_RIDGE,))[0]


def refits(
    moments: Moments,
    weight: FloatArray,
    bias: FloatArray | None,
    kept: BoolArray,
    ridges: Sequence[float] = CORRECTION_RIDGES,
) -> list[tuple[FloatArray, FloatArray | None]]:
    """As `refit`, once for each ridge μ of the correction; infinite: errors from before are left as they are."""
    found = []
    steady = _made_up_for(moments, weight, kept)
    for ridge in ridges:
        matrix = steady if np.isinf(ridge) else steady + _corrections(moments, weight, kept, ridge)
        found.append((matrix, None if bias is None else _shifted(moments, weight, bias, matrix)))
    return found


def _made_up_for(moments: Moments, weight: FloatArray, kept: BoolArray) -> FloatArray:
    """Weights with which what is left stands in for what is gone."""
    out = np.zeros_like(weight)
    for group, old in enumerate(weight):
        left, covariance = np.flatnonzero(kept[group]), moments.covariance[group]
        damping = ridge_of(covariance, RIDGE)[left]
        out[group][:, left] = _solve(covariance, left, damping, old @ covariance[:, left] + old[:, left] * damping)
    return out


def _corrections(moments: Moments, weight: FloatArray, kept: BoolArray, ridge: float) -> FloatArray:
    """What to add to weights for the errors from before the layer; zeros where no outputs are wanted."""
    out = np.zeros_like(weight)
    if moments.products is None:
        return out
    for group, old in enumerate(weight):
        left, covariance = np.flatnonzero(kept[group]), moments.covariance[group]
        error = moments.products[group][:, left] - old @ covariance[:, left]
        out[group][:, left] = _solve(covariance, left, ridge_of(covariance, ridge)[left], error)
    return out


def _shifted(moments: Moments, weight: FloatArray, bias: FloatArray, matrix: FloatArray) -> FloatArray:
    """The bias with which new weights give the mean that is wanted."""
    wanted = moments.wanted if moments.wanted is not None else bias + np.einsum("gcl,gl->gc", weight, moments.mean)
    shifted: FloatArray = wanted - np.einsum("gcl,gl->gc", matrix, moments.mean)
    return shifted


def _solve(covariance: FloatArray, left: IntArray, damping: FloatArray, wanted: FloatArray) -> FloatArray:
    """X with X (H_SS + D) = `wanted`."""
    normal = covariance[np.ix_(left, left)]
    normal[np.diag_indices_from(normal)] += damping
    try:
        found = np.linalg.solve(normal, wanted.T)
    except np.linalg.LinAlgError:  # moments of constant inputs, less their squared means, may leave noise and no rank
        found = np.linalg.lstsq(normal, wanted.T)[0]
    return np.asarray(found.T, np.float64)
