"""New codes and bias of one layer, from what it reads in the quantized model and what it gave in the float one.

1. `refit`: the weights by least squares, with a ridge that holds them where they were:
   W' = W + (E[y pᵀ] - W E[p pᵀ]) (E[p pᵀ] + λ I)^-1, moments about the means. What quantizers before the layer have
   done to its input is made up for as far as it is linear. How heavy a ridge is right differs from layer to layer: a
   layer with more unknowns than places to fit to learns these by heart. Of several, and of no refit, those samples
   choose that nothing is fitted to in any layer.
2. `scales`: of a few shares of the largest weight the one with the least error in the output, by rounding to nearest
   and the variance of each input value (Σ h_i (w_i - ŵ_i)²).
3. `rounding`: weights are rounded one after the other, errors made up for by the rest (see `kernels.rounding`).
   Zeros of a layer that was made sparse stay zeros throughout: some runtimes skip them.
4. `bias`: the bias that makes the mean output what it was (arXiv 1906.04721, section 4.2, with measured means).
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.recovery.moments import FloatArray, Moments
from onnxopt.kernels import round_rows

Float32Array = npt.NDArray[np.float32]

SHARES = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7)
RIDGE = 0.1  # of the mean variance of an input value, where nothing can choose
RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1)  # beside none; each plus the inputs per row: few rows say little
SPARSE = 0.2  # share of zeros from which on a layer counts as sparse; dense ones have next to none
DAMPING = 0.01  # of the same, for rounding, as in GPTQ; and this share of the inputs per row


@dataclass(frozen=True)
class Choices:
    """Which steps are taken; none leaves a layer as it is."""

    refit: bool = False
    scales: bool = False
    rounding: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Fitted:
    """A layer's new numbers.

    Attributes:
        codes: int8[groups, columns, length].
        scale: float32[groups, columns].
        bias: float32[groups * columns]; None where it has none and gets none.
    """

    codes: npt.NDArray[np.int8]
    scale: Float32Array
    bias: Float32Array | None


@dataclass(frozen=True)
class Problem:
    """One layer to fit.

    Attributes:
        moments: What it reads and should give.
        weight: Its float weights, [groups, columns, length].
        start: What it has now.
        limit: Largest code.
        least: Smallest scale allowed per column, [groups, columns], where a bias must fit into 32 bits.
    """

    moments: Moments
    weight: Float32Array
    start: Fitted
    limit: int
    least: Float32Array | None = None


def refit(problem: Problem, choices: Choices, judged: Moments | None = None) -> Fitted:
    """Fit one layer.

    Args:
        problem: The layer.
        choices: The steps to take.
        judged: Its moments on other samples, which choose the ridge, and whether rounding to nearest is better.
    """
    if judged is None:
        return _fitted(problem, choices, RIDGE if choices.refit else None)
    # Rounding to nearest tells which ridge is best, in no time.
    ridges = (*RIDGES, None) if choices.refit else (None,)
    quick = replace(choices, rounding=False)
    nearest = {ridge: _fitted(problem, quick, ridge) for ridge in ridges}
    best = min(ridges, key=lambda ridge: _error(nearest[ridge], judged))
    found: list[Fitted] = [nearest[best], *([_fitted(problem, choices, best)] if choices.rounding else ())]
    return min(found, key=partial(_error, judged=judged))


def _fitted(problem: Problem, choices: Choices, ridge: float | None) -> Fitted:
    """One layer with one ridge; None: its weights stay what they were before they are rounded."""
    moments, start = problem.moments, problem.start
    moved = ridge is not None or choices.scales or choices.rounding
    codes, scale = _weights(problem, choices, ridge) if moved else (start.codes, start.scale)
    bias = start.bias
    if choices.bias and bias is not None:
        given = np.einsum("gcl,gl->gc", codes * scale[..., None].astype(np.float64), moments.inputs)
        bias = (moments.wanted - given).reshape(-1).astype(np.float32)
    return Fitted(codes, scale, bias)


def _weights(problem: Problem, choices: Choices, ridge: float | None) -> tuple[npt.NDArray[np.int8], Float32Array]:
    moments, start, limit = problem.moments, problem.start, problem.limit
    # A bias will account for the means.
    centred = start.bias is not None
    squares, products = (moments.covariance, moments.shared) if centred else (moments.squares, moments.products)
    few = problem.weight.shape[-1] / moments.rows  # unknowns per row
    wanted = problem.weight.astype(np.float64)
    if ridge is not None:
        wanted = wanted + _correction(wanted, squares, products, ridge + few)
    zeros = _zeros(problem.weight)
    wanted[zeros] = 0
    codes, scale = start.codes, start.scale
    if ridge is not None or choices.scales:
        shares = SHARES if choices.scales else (1.0,)
        scale = _scales(wanted, np.einsum("gii->gi", squares), shares, limit)
        scale = np.maximum(scale, problem.least) if problem.least is not None else scale
        codes = _nearest(wanted, scale, limit).astype(np.int8)
    if choices.rounding:
        codes = _rounded(wanted, scale, squares, limit, DAMPING * (1 + few))
        codes[zeros] = 0
    return codes, scale


def _zeros(weight: Float32Array) -> npt.NDArray[np.bool_]:
    """Where weights that were made sparse are zero; nowhere in dense ones."""
    zeros = weight == 0
    return zeros if np.mean(zeros) >= SPARSE else np.zeros_like(zeros)


def _error(fitted: Fitted, judged: Moments) -> float:
    """Mean squared error of a layer, less what does not depend on it: E|y|²."""
    weight = fitted.codes * fitted.scale[..., None].astype(np.float64)
    bias = np.zeros(judged.wanted.shape) if fitted.bias is None else fitted.bias.reshape(judged.wanted.shape)
    given = np.einsum("gcl,gl->gc", weight, judged.inputs)
    quadratic = np.einsum("gcl,gcl->", np.matmul(weight, judged.squares), weight)
    linear = np.einsum("gcl,gcl->", weight, judged.products)
    return float(quadratic - 2 * linear + (bias * (bias + 2 * (given - judged.wanted))).sum())


def _correction(weight: FloatArray, squares: FloatArray, products: FloatArray, ridge: float) -> FloatArray:
    residual = products - np.matmul(weight, squares)
    damped = _damped(squares, ridge)
    change: FloatArray = np.linalg.solve(damped, residual.transpose(0, 2, 1)).transpose(0, 2, 1)
    return change


def _damped(squares: FloatArray, share: float) -> FloatArray:
    """Moments with a share of their mean diagonal added, so that they can be inverted whatever they are."""
    length = squares.shape[-1]
    mean = np.einsum("gii->g", squares) / length
    damped: FloatArray = squares + (share * mean + 1e-12 + 1e-6 * mean.max())[:, None, None] * np.eye(length)
    return damped


def _nearest(weight: FloatArray, scale: Float32Array, limit: int) -> FloatArray:
    steps = scale.astype(np.float64)[..., None]
    codes: FloatArray = np.clip(np.rint(weight / steps), -limit, limit)
    return codes


def _scales(weight: FloatArray, variance: FloatArray, shares: tuple[float, ...], limit: int) -> Float32Array:
    largest = np.abs(weight).max(axis=-1) / limit
    largest = np.where(largest > np.finfo(np.float32).tiny, largest, 1.0)
    best, least = largest, np.full(largest.shape, np.inf)
    for share in shares:
        scale = (largest * share).astype(np.float32)
        error = weight - _nearest(weight, scale, limit) * scale[..., None]
        cost = np.einsum("gcl,gl->gc", error * error, variance)
        best, least = np.where(cost < least, scale, best), np.minimum(cost, least)
    return best.astype(np.float32)


def _rounded(
    weight: FloatArray, scale: Float32Array, squares: FloatArray, limit: int, damping: float
) -> npt.NDArray[np.int8]:
    """Codes, weights with the largest input variance first."""
    order = np.argsort(-np.einsum("gii->gi", squares), axis=-1, kind="stable")
    sorted_squares = np.take_along_axis(np.take_along_axis(squares, order[:, :, None], 1), order[:, None, :], 2)
    inverse = np.linalg.inv(_damped(sorted_squares, damping))
    factor = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    permuted = np.take_along_axis(weight, order[:, None, :], 2)
    codes = round_rows(permuted.astype(np.float32), scale, factor.astype(np.float32), qmin=-limit, qmax=limit)
    found = np.empty_like(codes)
    np.put_along_axis(found, np.broadcast_to(order[:, None, :], codes.shape), codes, 2)
    return found
