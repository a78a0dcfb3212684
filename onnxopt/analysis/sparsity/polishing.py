"""The best weights for zeros that are settled: least squares by conjugate gradients, all rows at once.

Elimination fixes a weight when it has passed it; here all that are left move together. For every row, with m its mask,
w the wanted and v the new weights and H the damped covariance, the cost (v - w) H (v - w)ᵀ is least where
m ∘ ((v - w) H) = 0; the diagonal of H is the preconditioner (Saad, "Iterative methods for sparse linear systems",
2003, algorithm 9.1). A step needs one matrix product, so it is affordable where a solution per row is not.
"""

import numpy as np

from onnxopt.analysis.compensation.fitting import ridge_of
from onnxopt.analysis.sparsity.elimination import RIDGE
from onnxopt.analysis.sparsity.rule import BoolArray, FloatArray

STEPS = 16
TINY = 1e-300


def polish(start: FloatArray, wanted: FloatArray, covariance: FloatArray, left: BoolArray) -> FloatArray:
    """New weights with the same zeros, never worse on this covariance than those at the start.

    Args:
        start: Weights to begin with, [rows, length].
        wanted: Weights without zeros, [rows, length].
        covariance: Of the inputs, [length, length].
        left: Which weights are not 0, [rows, length].
    """
    damped = covariance + np.diag(ridge_of(covariance, RIDGE))
    scale = 1 / np.diag(damped)
    found = np.where(left, start, 0.0)
    residual = np.where(left, (wanted - found) @ damped, 0.0)
    direction = residual * scale
    size = np.einsum("rl,rl->r", residual, direction)
    for _ in range(STEPS):
        ahead = np.where(left, direction @ damped, 0.0)
        step = size / np.maximum(np.einsum("rl,rl->r", direction, ahead), TINY)
        found += step[:, None] * direction
        residual -= step[:, None] * ahead
        following = residual * scale
        grown = np.einsum("rl,rl->r", residual, following)
        direction = following + (grown / np.maximum(size, TINY))[:, None] * direction
        size = grown
    return found
