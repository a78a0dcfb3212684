from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxopt.calibration.elementwise import ELEMENTWISE, silu
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.errors import UsageError

# Sixteenths add up exactly in float64, whatever the order.
SIXTEENTHS = st.integers(-800, 800).map(lambda k: np.float32(k / 16))
BATCHES = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=SIXTEENTHS)


def statistics_of(*batches, histogram=True):
    statistics = TensorStatistics("x", histogram=histogram)
    for batch in batches:
        statistics.update(batch)
    return statistics


def state(statistics):
    histogram = statistics.histogram
    return (
        statistics.images,
        statistics.minimum,
        statistics.maximum,
        statistics.sum_of_minima,
        statistics.sum_of_maxima,
        histogram and (histogram.exponent, histogram.first, histogram.counts.tolist()),
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(BATCHES, min_size=1, max_size=5))
def test_extremes_means_and_total(batches):
    statistics = statistics_of(*batches)
    assert statistics.images == sum(len(batch) for batch in batches)
    assert statistics.minimum == min(batch.min() for batch in batches)
    assert statistics.maximum == max(batch.max() for batch in batches)
    assert statistics.mean_minimum == np.concatenate([batch.min(1).astype(float) for batch in batches]).mean()
    assert statistics.mean_maximum == np.concatenate([batch.max(1).astype(float) for batch in batches]).mean()
    assert statistics.histogram.total == sum(batch.size for batch in batches)


@settings(deadline=None, max_examples=40)
@given(st.lists(BATCHES, max_size=4), st.lists(BATCHES, max_size=4), st.booleans())
def test_two_merged_streams_equal_one(first, second, histogram):
    merged = statistics_of(*first, histogram=histogram)
    merged.merge(statistics_of(*second, histogram=histogram))
    assert state(merged) == state(statistics_of(*first, *second, histogram=histogram))


def test_batches_of_images_equal_single_images():
    images = np.random.default_rng(0).integers(-9, 9, (6, 3, 4, 4)).astype(np.float32)
    assert state(statistics_of(images)) == state(statistics_of(*(image[None] for image in images)))


def test_heads_within_images_are_not_images():
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    statistics = TensorStatistics("x")
    statistics.update(x, images=2)
    assert (statistics.images, statistics.mean_minimum, statistics.mean_maximum) == (2, 3.0, 8.0)


def test_an_axis_that_does_not_divide_is_one_whole():
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    statistics = TensorStatistics("x")
    statistics.update(x, images=2)
    assert (statistics.images, statistics.mean_minimum, statistics.mean_maximum) == (2, 0.0, 9.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_types_and_strides(dtype):
    x = np.arange(24).astype(dtype).reshape(2, 3, 4)
    assert state(statistics_of(x.transpose(0, 2, 1))) == state(statistics_of(x.astype(np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_name_the_tensor(bad):
    with pytest.raises(UsageError, match="'x' holds NaN or infinite"):
        statistics_of(np.array([[1.0, bad]]))


def test_empty_arrays_leave_no_trace():
    statistics = statistics_of(np.empty((0, 4), np.float32))
    assert statistics.images == 0
    with pytest.raises(UsageError, match="no calibration sample gave tensor 'x' a value"):
        statistics.require_images()


def test_memory_is_constant():
    statistics = statistics_of(*np.random.default_rng(0).standard_normal((50, 2, 1000)) * 1e6)
    assert statistics.histogram.counts.nbytes == 32 * 1024


@pytest.mark.parametrize("op_type", sorted(ELEMENTWISE))
@settings(deadline=None, max_examples=25)
@given(batches=st.lists(BATCHES, min_size=1, max_size=3))
def test_mapped_encloses_what_would_be_measured(op_type, batches):
    function = ELEMENTWISE[op_type]()
    mapped = statistics_of(*batches).mapped(function, "y")
    values = [function(batch.astype(np.float64)) for batch in batches]
    assert mapped.name == "y"
    assert mapped.images == sum(len(batch) for batch in batches)
    # Both sides round their float64 values in their own order.
    assert mapped.minimum <= min(value.min() for value in values) + 1e-12
    assert mapped.maximum >= max(value.max() for value in values) - 1e-12
    ends = (mapped.minimum, mapped.mean_minimum, mapped.mean_maximum, mapped.maximum)
    assert all(low <= high + 1e-12 for low, high in pairwise(ends))
    assert mapped.histogram.total == sum(batch.size for batch in batches)
    centres, width = mapped.histogram.occupied()[0], mapped.histogram.width
    assert mapped.minimum - width / 2 <= centres.min()
    assert centres.max() <= mapped.maximum + width / 2


def test_mapped_silu_equals_measured_silu_but_for_the_width_of_cells():
    x = np.random.default_rng(0).standard_normal((4, 20_000)).astype(np.float32) * 3
    derived = statistics_of(x).mapped(silu(), "y")
    measured = statistics_of((x / (1 + np.exp(-x))).astype(np.float32))
    assert derived.minimum == pytest.approx(measured.minimum, abs=1e-6)
    assert derived.mean_maximum == pytest.approx(measured.mean_maximum, rel=1e-3)
    width = derived.histogram.width
    assert width == measured.histogram.width
    running = np.abs(np.cumsum(derived.histogram.counts - measured.histogram.counts))
    assert running.max() < 0.02 * x.size  # the two distributions lie within a cell or two of each other


def test_relu_puts_all_that_is_negative_at_zero():
    mapped = statistics_of(np.array([[-3.0, -1.0, 0.5, 2.0]])).mapped(ELEMENTWISE["Relu"](), "y")
    assert (mapped.minimum, mapped.maximum, mapped.bounds) == (0.0, 2.0, None)
    assert mapped.histogram.counts[0] == 2


def test_bounds_come_from_the_function():
    relu6 = ELEMENTWISE["Clip"](min=0.0, max=6.0)
    assert statistics_of(np.array([[-3.0, 9.0]])).mapped(relu6, "y").bounds == (0.0, 6.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(BATCHES, min_size=1, max_size=4))
def test_union_equals_the_statistics_of_the_concatenation(arrays):
    arrays = [array[:1] for array in arrays]
    union = TensorStatistics.union("y", [statistics_of(array) for array in arrays])
    assert state(union) == state(statistics_of(np.concatenate(arrays, axis=1)))


def test_union_of_one_without_a_histogram_has_none():
    x = np.ones((1, 2))
    assert TensorStatistics.union("y", [statistics_of(x), statistics_of(x, histogram=False)]).histogram is None


def test_a_renamed_copy_is_independent():
    statistics = statistics_of(np.ones((1, 2)))
    renamed = statistics.renamed("y")
    statistics.update(np.ones((1, 3)))
    assert (renamed.name, renamed.images, renamed.histogram.total) == ("y", 1, 2)


def test_merging_unlike_statistics():
    with pytest.raises(ValueError, match="with and without a histogram"):
        statistics_of().merge(statistics_of(histogram=False))
