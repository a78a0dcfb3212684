"""Weights of a layer that has lost inputs: least squares on what is left, held towards the original weights.

With z the patch, t the wanted output, H = Cov(z), C = Cov(t, z), W and b the weights and bias, S the columns left:

1. Only a share α of what went wrong before the layer is made up for, for that part overfits:
   C ← α C + (1 - α) W H, and likewise the mean of t.
2. Ridge: d_j = λ (½ H_jj + ½ mean H_jj); W'_S = (C_S + W_S D_S) (H_SS + D_S)^-1. A ridge towards the original
   weights, not towards zero, leaves a layer alone that nothing is known about.
3. b' = E[t] - W'_S E[z_S].
"""

import numpy as np

from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import FloatArray
from onnxopt.analysis.channels.atoms import BoolArray

RIDGE = 0.03
SHARE = 0.5  # of the error carried into a layer that is corrected


def ridge_of(covariance: FloatArray, share: float) -> FloatArray:
    """Diagonal D of the ridge, [..., length]: a share of each variance and of their mean, and never quite zero."""
    variances = np.maximum(np.einsum("...ii->...i", covariance), 0)
    mean = variances.mean(axis=-1, keepdims=True)
    floor = np.finfo(np.float32).tiny + 1e-9 * mean.max(initial=0.0)
    ridge: FloatArray = share * 0.5 * (variances + mean) + floor
    return ridge


def refit(
    moments: Moments,
    weight: FloatArray,
    bias: FloatArray | None,
    kept: BoolArray,
    *,
    ridge: float = RIDGE,
    share: float = SHARE,
) -> tuple[FloatArray, FloatArray | None]:
    """New weights, zero in columns that went, and new bias.

    Args:
        moments: Of the layer's patches, all columns; without wanted outputs the layer should give what its old
            weights give.
        weight: Old weights, [groups, columns, length].
        bias: Old bias, [groups, columns]; None: the layer has none and gets none.
        kept: Which columns are left, [groups, length].
        ridge: λ above.
        share: α above.
    """
    out = np.zeros_like(weight)
    shift = None if bias is None else bias.copy()
    for group in range(len(weight)):
        left = np.flatnonzero(kept[group])
        covariance, old = moments.covariance[group], weight[group]
        products, given = old @ covariance, old @ moments.mean[group]
        if moments.products is not None and moments.wanted is not None:
            products += share * (moments.products[group] - products)
            offset = 0.0 if bias is None else bias[group]
            given += share * (moments.wanted[group] - offset - given)
        damping = ridge_of(covariance, ridge)[left]
        normal = covariance[np.ix_(left, left)]
        normal[np.diag_indices_from(normal)] += damping
        wanted = products[:, left] + old[:, left] * damping
        out[group][:, left] = np.linalg.solve(normal, wanted.T).T
        if shift is not None:
            shift[group] += given - out[group] @ moments.mean[group]
    return out, shift
