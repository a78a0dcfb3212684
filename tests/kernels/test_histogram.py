import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxopt.kernels import Histogram, minmax
from onnxopt.kernels.histogram import BIN_COUNT, BLOCK

# Far apart in size, so that grids have to grow, but with quotients that float32 can hold.
NUMBERS = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False).map(
    lambda x: np.float32(0) if abs(x) < 2**-60 else np.float32(x)
)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=NUMBERS)


def histogram_of(*arrays):
    histogram = Histogram()
    for array in arrays:
        low, high, _ = minmax(array)
        histogram.add(array, low, high)
    return histogram


def assert_equal(a, b):
    assert (a.exponent, a.first, a.low, a.high) == (b.exponent, b.first, b.low, b.high)
    assert (a.counts == b.counts).all()


def brute_force(histogram, x):
    """Count with Python's exact arithmetic."""
    counts = np.zeros(BIN_COUNT, np.int64)
    for value in x.ravel().tolist():
        counts[int(value // histogram.width) - histogram.first] += 1
    return counts


@settings(deadline=None, max_examples=40)
@given(ARRAYS)
def test_cells_hold_what_their_edges_say(x):
    histogram = histogram_of(x)
    assert histogram.total == x.size
    assert (histogram.counts == brute_force(histogram, x)).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(ARRAYS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_order_or_splits(arrays, random):
    whole = histogram_of(np.concatenate(arrays))
    random.shuffle(arrays)
    assert_equal(histogram_of(*arrays), whole)
    middle = len(arrays) // 2
    merged = histogram_of(*arrays[:middle])
    merged.merge(histogram_of(*arrays[middle:]))
    assert_equal(merged, whole)


@settings(deadline=None, max_examples=40)
@given(ARRAYS)
def test_at_least_half_of_the_cells_lie_in_the_range(x):
    histogram = histogram_of(x)
    span = max(float(x.max()), 0.0) - min(float(x.min()), 0.0)
    assert span == 0 or span / histogram.width >= BIN_COUNT / 2 - 1


@pytest.mark.parametrize("size", [BLOCK - 1, 2 * BIN_COUNT, 2 * BIN_COUNT + 1, 3 * BIN_COUNT + 5])
def test_large_arrays_are_counted_by_blocks(size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    histogram = histogram_of(x)
    assert (histogram.counts == brute_force(histogram, x)).all()


def test_one_sided_data_use_all_cells():
    histogram = histogram_of(np.array([0.0, 7.999], np.float32))
    assert histogram.first == 0
    assert histogram.width == 8 / BIN_COUNT


def test_a_false_range_does_not_write_outside():
    histogram = Histogram()
    histogram.add(np.array([-5.0, 0.5, 1e30], np.float32), 0.0, 1.0)
    assert histogram.total == 3
    assert histogram.counts[-1] == 2


def test_all_zero_and_nothing():
    assert Histogram().total == 0
    histogram = histogram_of(np.zeros(10, np.float32))
    centres, counts = histogram.occupied()
    assert (centres.tolist(), counts.tolist()) == ([0.0], [10])


def test_largest_floats():
    limit = np.finfo(np.float32).max
    histogram = histogram_of(np.array([-limit, limit, 0], np.float32))
    assert histogram.total == 3
    assert np.isfinite(histogram.occupied()[0]).all()


@settings(deadline=None, max_examples=40)
@given(ARRAYS)
def test_weighted_values_count_like_repeated_ones(x):
    histogram = Histogram()
    values, counts = np.unique(x, return_counts=True)
    histogram.add_weighted(values.astype(np.float64), counts)
    assert_equal(histogram, histogram_of(x))


@settings(deadline=None, max_examples=40)
@given(ARRAYS, st.sampled_from([64, 2048, 4096]))
def test_magnitudes(x, limit):
    counts, width = histogram_of(x).magnitudes(limit)
    assert counts.sum() == x.size
    assert counts.size <= limit
    assert counts[-1] > 0
    expected = np.zeros_like(counts)
    for value in x.tolist():
        cell = int(abs(value) // width)
        expected[cell - (value < 0 and abs(value) % width == 0)] += 1
    assert (counts == expected).all()


def test_a_copy_is_independent():
    histogram = histogram_of(np.ones(3, np.float32))
    copied = histogram.copy()
    histogram.add(np.ones(2, np.float32), 1.0, 1.0)
    assert (copied.total, histogram.total) == (3, 5)
