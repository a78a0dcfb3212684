import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxopt.kernels import entropy_divergences, rounding_errors
from onnxopt.kernels.search import EMPTY


def slow_divergence(counts, kept, levels):
    """The definition, cell by cell."""
    clipped = sum(counts[kept:])
    p = list(counts[:kept])
    p[-1] += clipped
    if sum(counts[:kept]) == 0:
        return math.inf
    q = [0.0] * kept
    for level in range(levels):
        cells = range(level * kept // levels, (level + 1) * kept // levels)
        occupied = [cell for cell in cells if p[cell] > 0]
        merged = sum(counts[cell] for cell in cells)
        for cell in occupied:
            q[cell] = max(merged, EMPTY) / len(occupied)
    mass_p, mass_q = sum(p), sum(counts[:kept])
    return sum(a / mass_p * math.log((a / mass_p) / (b / mass_q)) for a, b in zip(p, q, strict=True) if a > 0)


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 50)), st.integers(1, 12))
def test_entropy_equals_the_definition(counts, levels):
    assume(counts.sum() > 0)
    expected = [slow_divergence(counts.tolist(), kept, levels) for kept in range(levels, counts.size + 1)]
    np.testing.assert_allclose(entropy_divergences(counts, levels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_entropy_equals_the_definition_at_full_size():
    counts = np.random.default_rng(0).poisson(1e4 * np.exp(-np.arange(2048) / 200))
    expected = [slow_divergence(counts.tolist(), kept, 128) for kept in range(128, 2049)]
    np.testing.assert_allclose(entropy_divergences(counts, 128), expected, rtol=1e-9, atol=1e-12)


def test_fewer_cells_than_levels_leave_no_candidate():
    assert entropy_divergences(np.ones(5, np.int64), 128).size == 0


def test_clipping_a_lone_outlier_diverges_less_than_keeping_it():
    counts = np.zeros(2048, np.int64)
    counts[:256] = np.random.default_rng(0).poisson(1000, 256)  # merging sixteen uneven cells costs more than a clip
    counts[2047] = 1
    divergences = entropy_divergences(counts, 128)
    assert divergences[256 - 128] < divergences[-1]


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float64, 30, elements=st.floats(-10, 10)),
    hnp.arrays(np.int64, 30, elements=st.integers(0, 1000)),
    hnp.arrays(np.float64, 4, elements=st.floats(0.01, 1)),
    st.integers(-128, 0),
)
def test_rounding_errors(values, weights, scales, lowest):
    highest = lowest + 255
    errors = rounding_errors(values, weights, scales, np.full(4, float(lowest)), np.full(4, float(highest)))
    for scale, error in zip(scales, errors, strict=True):
        levels = np.arange(lowest, highest + 1) * scale
        nearest = np.abs(values[:, None] - levels).min(axis=1)  # rounding finds the nearest level
        assert error == pytest.approx((weights * nearest**2).sum(), rel=1e-9, abs=1e-9)
