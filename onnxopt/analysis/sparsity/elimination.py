"""Zeros in one layer, column by column, the columns to the right making up for each.

With H the covariance of the inputs plus a ridge and U the upper Cholesky factor of its inverse (H⁻¹ = Uᵀ U), weight i
of a row costs  w_i² / U_ii²  when it goes, what comes before it being fixed, and the rest then changes by

    w_j -= w_i / U_ii · U_ij    for j >= i.

Which go is decided for `rule.width` columns at a time, when the first of them is reached (Frantar and Alistarh,
"SparseGPT", arXiv 2301.00774, section 3 and algorithm 1; N:M as in its section 3.4).
"""

import numpy as np

from onnxopt.analysis.compensation.fitting import ridge_of
from onnxopt.analysis.sparsity.rule import WIDTH, BoolArray, FloatArray, IntArray, Rule

RIDGE = 0.05


def eliminate(weight: FloatArray, covariance: FloatArray, rule: Rule, order: IntArray) -> tuple[FloatArray, BoolArray]:
    """New weights and which are left, both [rows, length].

    Args:
        weight: Wanted weights, [rows, length].
        covariance: Of the inputs, [length, length].
        rule: What is wanted.
        order: Of the columns.
    """
    work = np.ascontiguousarray(weight[:, order])
    factor = _factor(covariance, order)
    gone = np.zeros(work.shape, np.bool_)
    step = rule.width * max(1, WIDTH // rule.width)
    for start in range(0, work.shape[1], step):
        stop = min(start + step, work.shape[1])
        errors = _columns(work[:, start:stop], factor[start:stop, start:stop], rule, gone[:, start:stop])
        work[:, stop:] -= errors @ factor[start:stop, stop:]
    found, left = np.empty_like(work), np.empty_like(gone)
    found[:, order], left[:, order] = work, ~gone
    return found, left


def smallest(weight: FloatArray, rule: Rule, order: IntArray) -> BoolArray:
    """Which weights are left when the smallest go, [rows, length]."""
    left = np.empty(weight.shape, np.bool_)
    left[:, order] = ~rule.removed(np.abs(weight[:, order]))
    return left


def _factor(covariance: FloatArray, order: IntArray) -> FloatArray:
    ridge = ridge_of(covariance, RIDGE)
    damped = (covariance + np.diag(ridge))[np.ix_(order, order)]
    try:
        inverse = np.linalg.inv(damped)
        return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float64)
    except np.linalg.LinAlgError:
        # Inputs that do not vary: what there is of a covariance is rounding, and none makes up for another.
        variances = np.maximum(np.diag(covariance), 0) + ridge
        return np.diag(1 / np.sqrt(variances[order]))


def _columns(work: FloatArray, factor: FloatArray, rule: Rule, gone: BoolArray) -> FloatArray:
    """Go through some columns in place; what each leaves over for columns further right, [rows, columns]."""
    errors = np.zeros_like(work)
    diagonal = np.diag(factor)
    for i in range(work.shape[1]):
        if i % rule.width == 0:
            part = slice(i, i + rule.width)
            gone[:, part] = rule.removed(np.square(work[:, part] / diagonal[part]))
        errors[:, i] = np.where(gone[:, i], work[:, i], 0.0) / diagonal[i]
        work[:, i:] -= errors[:, i, None] * factor[i, i:]
        work[gone[:, i], i] = 0.0
    return errors
