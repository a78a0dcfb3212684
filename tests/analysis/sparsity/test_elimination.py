"""Weights that make up for zeros: better than leaving the others alone, and after polishing the best there are."""

import numpy as np
import pytest

from onnxopt.analysis.compensation.fitting import ridge_of
from onnxopt.analysis.sparsity.elimination import RIDGE, eliminate, smallest
from onnxopt.analysis.sparsity.polishing import polish
from onnxopt.analysis.sparsity.rule import Rule, column_order

RULES = [Rule(0.5), Rule(0.8), Rule.parse("2:4"), Rule.parse("1:8"), Rule(1.0)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def problem(rows: int = 12, length: int = 144, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights and a covariance of correlated inputs."""
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((4 * length, length)) @ generator.standard_normal((length, length))
    return generator.standard_normal((rows, length)), inputs.T @ inputs / len(inputs)


def cost(weight: np.ndarray, wanted: np.ndarray, covariance: np.ndarray) -> float:
    damped = covariance + np.diag(ridge_of(covariance, RIDGE))
    return float(np.einsum("rl,lm,rm->", weight - wanted, damped, weight - wanted))


@every_rule
def test_it_costs_less_than_taking_the_smallest(rule):
    weight, covariance = problem()
    order = column_order(16, 144)
    found, left = eliminate(weight, covariance, rule, order)
    assert not found[~left].any()
    assert (~left).mean() == pytest.approx(rule.share, abs=0.01)
    plain = np.where(smallest(weight, rule, order), weight, 0)
    polished = polish(found, weight, covariance, left)
    costs = [cost(w, weight, covariance) for w in (polished, found, plain)]
    assert costs[0] <= costs[1]
    assert costs[1] < costs[2] or rule.share == 1


def test_a_pattern_is_of_channels_at_one_place_of_the_kernel():
    weight, covariance = problem()
    _, left = eliminate(weight, covariance, Rule.parse("2:4"), column_order(16, 144))
    kernel = left.reshape(12, 4, 4, 9)
    assert (kernel.sum(axis=2) == 2).all()


def test_polishing_finds_the_least_squares():
    weight, covariance = problem(3, 12)
    left = np.random.default_rng(1).random(weight.shape) < 0.5
    found = polish(np.where(left, weight, 0), weight, covariance, left)
    damped = covariance + np.diag(ridge_of(covariance, RIDGE))
    for row, wanted, kept in zip(found, weight, left, strict=True):
        best = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ wanted)
        assert row[kept] == pytest.approx(best, rel=1e-6, abs=1e-8)
        assert not row[~kept].any()


def test_inputs_that_never_vary():
    weight, covariance = problem(4, 8)
    covariance[:, 3] = covariance[3] = 0
    found, left = eliminate(weight, covariance, Rule(0.5), np.arange(8))
    assert np.isfinite(polish(found, weight, covariance, left)).all()
    found, _ = eliminate(weight, np.zeros((8, 8)), Rule(0.5), np.arange(8))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.77])
def test_parts_add_up_to_the_share(share):
    """Five columns wide parts of a layer get at least what the whole should have."""
    weight, covariance = problem(1, 640)
    found, _ = eliminate(weight, covariance, Rule(share), np.arange(640))
    assert Rule(share).follows(found)


@pytest.mark.slow
def test_a_wide_kernel():
    """256 channels, 3x3."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((3000, 2304)).astype(np.float32)
    covariance = (inputs.T @ inputs).astype(np.float64) / 3000
    weight = generator.standard_normal((64, 2304))
    found, left = eliminate(weight, covariance, Rule.parse("2:4"), column_order(256, 2304))
    assert (left.reshape(64, 64, 4, 9).sum(axis=2) == 2).all()
    assert cost(polish(found, weight, covariance, left), weight, covariance) < 0.5 * cost(
        0 * weight, weight, covariance
    )


def test_inputs_that_do_not_vary_but_for_rounding_lose_their_smallest_weights():
    weight = np.random.default_rng(3).standard_normal((4, 8))
    found, left = eliminate(weight, np.full((8, 8), -1e-17), Rule(0.5, 2, 4), np.arange(8))
    np.testing.assert_array_equal(left, smallest(weight, Rule(0.5, 2, 4), np.arange(8)))
    np.testing.assert_array_equal(found, np.where(left, weight, 0))
