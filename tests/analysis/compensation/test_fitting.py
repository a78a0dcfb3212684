"""Least squares, and the choice of what goes, against brute force."""

import itertools

import numpy as np
import pytest

from onnxopt.analysis.compensation.elimination import Problem, energy_order, removal_order
from onnxopt.analysis.compensation.fitting import CORRECTION_RIDGES, _solve, refit, refits
from onnxopt.analysis.compensation.moments import Sums


def moments_of(rows, outputs=None, *, centred=True):
    sums = Sums((1, outputs.shape[-1] if outputs is not None else 1, rows.shape[-1]), with_outputs=outputs is not None)
    for part in np.array_split(np.arange(len(rows)), 3):
        sums.add(rows[None, part], None if outputs is None else outputs[None, part])
    return sums.result(centred=centred)


def correlated(generator, count, length, rank):
    mixing = generator.standard_normal((rank, length))
    rows = generator.standard_normal((count, rank)) @ mixing + generator.standard_normal(length)
    return rows.astype(np.float32)


def test_moments_are_those_of_all_rows():
    generator = np.random.default_rng(0)
    rows, outputs = correlated(generator, 400, 7, 4), generator.standard_normal((400, 3)).astype(np.float32)
    found = moments_of(rows, outputs)
    np.testing.assert_allclose(found.covariance[0], np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.mean[0], rows.mean(axis=0), rtol=1e-4)
    both = np.cov(outputs.T, rows.T, bias=True)[:3, 3:]
    np.testing.assert_allclose(found.products[0], both, atol=1e-4)
    about_zero = moments_of(rows, outputs, centred=False)
    np.testing.assert_allclose(about_zero.covariance[0], rows.T @ rows / 400, rtol=1e-4, atol=1e-4)
    assert not about_zero.mean.any()


def test_what_can_be_made_up_for_is():
    generator = np.random.default_rng(1)
    rows = correlated(generator, 500, 8, 4)  # any four columns say all
    weight, bias = generator.standard_normal((1, 3, 8)), generator.standard_normal((1, 3))
    kept = np.array([[True] * 6 + [False] * 2])
    matrix, shift = refit(moments_of(rows), weight, bias, kept)
    wanted = rows @ weight[0].T + bias
    given = rows @ matrix[0].T + shift
    assert not matrix[0][:, 6:].any()
    without = np.where(kept, weight, 0.0)
    left = rows @ without[0].T + bias
    assert np.square(given - wanted).mean() < 0.01 * np.square(left - wanted).mean()
    np.testing.assert_allclose(given.mean(axis=0), wanted.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_nothing_removed_and_nothing_wrong_changes_nothing():
    generator = np.random.default_rng(2)
    rows, weight, bias = correlated(generator, 50, 8, 8), generator.standard_normal((1, 3, 8)), np.zeros((1, 3))
    matrix, shift = refit(moments_of(rows), weight, bias, np.ones((1, 8), np.bool_))
    np.testing.assert_allclose(matrix, weight, atol=1e-9)
    np.testing.assert_allclose(shift, bias, atol=1e-6)


def test_errors_from_before_are_made_up_for_in_part():
    generator = np.random.default_rng(3)
    rows, weight = correlated(generator, 500, 8, 8), generator.standard_normal((1, 3, 8))
    wanted = (1.5 * rows @ weight[0].T + 2).astype(np.float32)  # the layer before gives two thirds of what it gave
    matrix, shift = refit(moments_of(rows, wanted), weight, np.zeros((1, 3)), np.ones((1, 8), np.bool_))
    given = rows @ matrix[0].T + shift
    before = rows @ weight[0].T
    np.testing.assert_allclose(given.mean(axis=0), wanted.mean(axis=0), rtol=1e-4)
    assert np.square(given - wanted).mean() < 0.3 * np.square(before - before.mean(axis=0) - wanted + 2).mean()


def test_the_lighter_the_ridge_the_more_is_made_up_for():
    generator = np.random.default_rng(10)
    rows, weight, bias = correlated(generator, 500, 8, 8), generator.standard_normal((1, 3, 8)), np.zeros((1, 3))
    wanted = (1.5 * rows @ weight[0].T + 2).astype(np.float32)
    found = refits(moments_of(rows, wanted), weight, bias, np.ones((1, 8), np.bool_))
    errors = [float(np.square(rows @ matrix[0].T + shift - wanted).sum()) for matrix, shift in found]
    assert list(CORRECTION_RIDGES) == sorted(CORRECTION_RIDGES, reverse=True)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]
    np.testing.assert_allclose(found[0][0], weight, atol=1e-9)  # without a correction only the mean is restored


@pytest.mark.parametrize("case", ["dead channels", "one row", "all zero", "equal channels"])
def test_degenerate_covariances_stay_finite(case):
    generator = np.random.default_rng(4)
    rows = correlated(generator, 1 if case == "one row" else 8, 40, 3)
    if case == "dead channels":
        rows[:, ::2] = 0
    if case == "all zero":
        rows[:] = 0
    if case == "equal channels":
        rows[:] = rows[:, :1]
    weight, bias = generator.standard_normal((1, 5, 40)), np.zeros((1, 5))
    kept = np.arange(40)[None] % 4 != 1
    outputs = (rows @ weight[0].T).astype(np.float32)
    matrix, shift = refit(moments_of(rows, outputs), weight, bias, kept)
    assert np.isfinite(matrix).all()
    assert np.isfinite(shift).all()
    assert np.abs(matrix).max() < 100 * np.abs(weight).max()
    problem = Problem.of(moments_of(rows).covariance[0], weight[0], np.arange(40)[:, None])
    assert sorted(removal_order([problem], 40).tolist()) == list(range(40))


def test_normal_equations_without_rank_are_solved():
    covariance, damping = np.array([[-1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 0.0])
    found = _solve(covariance, np.arange(2), damping, np.array([[0.0, 4.0]]))
    np.testing.assert_allclose(found, [[0.0, 2.0]])


def test_layer_without_bias_gets_none():
    generator = np.random.default_rng(5)
    rows, weight = correlated(generator, 50, 6, 6), generator.standard_normal((1, 3, 6))
    _, shift = refit(moments_of(rows, centred=False), weight, None, np.arange(6)[None] != 2)
    assert shift is None


def loss(covariance, weight, kept):
    """What is left of the variance of the outputs that columns `kept` cannot explain."""
    inner, across = covariance[np.ix_(kept, kept)], weight @ covariance[:, kept]
    total = np.einsum("cl,lm,cm->", weight, covariance, weight)
    return total - np.einsum("cl,cl->", across, np.linalg.solve(inner, across.T).T)


@pytest.mark.parametrize("block", [1, 2])
def test_first_to_go_costs_least(block):
    generator = np.random.default_rng(6)
    channels = 6
    length = channels * block
    rows = correlated(generator, 300, length, length)
    covariance = moments_of(rows).covariance[0] + 1e-3 * np.eye(length)
    weight = generator.standard_normal((4, length))
    columns = np.arange(length).reshape(channels, block)
    problem = Problem(np.linalg.inv(covariance), np.diag(covariance), weight.copy(), columns, 1.0)
    costs = [loss(covariance, weight, np.delete(np.arange(length), columns[c])) for c in range(channels)]
    np.testing.assert_allclose(problem.costs(np.arange(channels)), costs, rtol=1e-6)
    order = removal_order([problem], channels)
    assert order[0] == np.argmin(costs)
    # The second is the one that costs least together with the first.
    pairs = {c: loss(covariance, weight, np.delete(np.arange(length), columns[[order[0], c]])) for c in order[1:]}
    assert order[1] == min(pairs, key=pairs.get)


def test_elimination_keeps_what_others_cannot_replace():
    generator = np.random.default_rng(7)
    rows = correlated(generator, 300, 6, 6)
    rows[:, 3] = 0.5 * (rows[:, 0] + rows[:, 1])  # large, and yet superfluous
    covariance = moments_of(100 * rows).covariance[0]
    weight = np.ones((2, 6))
    columns = np.arange(6)[:, None]
    best = [set(c) for c in itertools.combinations(range(6), 5)]
    cost = [loss(covariance + 1e-6 * np.trace(covariance) * np.eye(6), weight, sorted(c)) for c in best]
    first = removal_order([Problem.of(covariance, weight, columns)], 6)[0]
    assert first in {0, 1, 3}
    assert set(range(6)) - best[int(np.argmin(cost))] <= {0, 1, 3}


def test_readers_count_alike_whatever_their_scale():
    generator = np.random.default_rng(8)
    rows = correlated(generator, 300, 5, 5)
    covariance, columns = moments_of(rows).covariance[0], np.arange(5)[:, None]
    first, second = generator.standard_normal((2, 3, 5))

    def order(scale):
        return removal_order(
            [Problem.of(covariance, first, columns), Problem.of(covariance, scale * second, columns)], 5
        ).tolist()

    assert order(1.0) == order(1000.0)


def test_many_channels_go_several_at_a_time():
    generator = np.random.default_rng(9)
    covariance = moments_of(correlated(generator, 300, 30, 30)).covariance[0]
    problem = Problem.of(covariance, generator.standard_normal((4, 30)), np.arange(30)[:, None])
    assert sorted(removal_order([problem], 30, steps=7).tolist()) == list(range(30))


def test_energy():
    weight = np.array([[1.0, 2.0, 0.0]])
    problem = Problem.of(np.diag([9.0, 1.0, 100.0]), weight, np.arange(3)[:, None])
    assert energy_order([problem], 3).tolist() == [2, 1, 0]
