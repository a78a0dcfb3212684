"""The exact signed-rank test."""

from itertools import product

import numpy as np
import pytest

from onnxopt.doctor.paired import chance, doubled_ranks


def by_counting(differences):
    values = np.asarray([d for d in differences if d != 0])
    ranks = doubled_ranks(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))
    ]
    return np.mean(np.asarray(sums) >= observed)


@pytest.mark.parametrize("seed", range(6))
def test_equals_counting_all_signs(seed):
    differences = np.round(np.random.default_rng(seed).normal(0.3, 1, 9), 1)  # rounded: ties, and zeros
    assert chance(differences) == pytest.approx(by_counting(differences))


def test_known_values():
    assert chance(np.ones(5)) == 1 / 32
    assert chance(-np.ones(5)) == 1
    assert chance(np.zeros(5)) == 1
    assert chance(np.asarray([np.nan, 1.0, 1.0])) == 1 / 4
    assert chance(np.zeros(0)) == 1


def test_noise_is_called_so():
    random = np.random.default_rng(0)
    found = [chance(random.normal(size=24)) for _ in range(400)]
    assert np.mean(np.asarray(found) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_equal_values_share_their_rank():
    assert doubled_ranks(np.asarray([3.0, 1.0, 3.0])).tolist() == [5, 2, 5]
