import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxopt.calibration.elementwise import ELEMENTWISE
from onnxopt.calibration.methods import (
    METHODS,
    Range,
    Scheme,
    best_method,
    compute_range,
    mse,
    needs_histogram,
    squared_errors,
)
from onnxopt.calibration.parameters import integer_limits, quantization_parameters
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.errors import UsageError

NUMBERS = st.floats(-(2.0**20), 2.0**20, width=32).map(lambda x: 0.0 if abs(x) < 2**-40 else x)
ARRAYS = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=NUMBERS)
SCHEMES = [Scheme(), Scheme("int8"), Scheme("int8", symmetric=True)]


def statistics_of(x, **options):
    statistics = TensorStatistics("x", histogram=True, **options)
    statistics.update(np.asarray(x, np.float32))
    return statistics


def heavy_tailed(size=20_000):
    return np.random.default_rng(0).standard_t(3, (8, size)).astype(np.float32)


def error_of(x, found, scheme):
    """Rounding error of the values themselves, in plain numpy."""
    scale, zero_point = quantization_parameters(found.low, found.high, dtype=scheme.dtype, symmetric=scheme.symmetric)
    qmin, qmax = integer_limits(scheme.dtype, symmetric=scheme.symmetric)
    steps = np.clip(np.rint(x / float(scale)), qmin - zero_point, qmax - zero_point)
    return ((x - steps * float(scale)) ** 2).sum()


@settings(deadline=None, max_examples=40)
@given(ARRAYS, st.sampled_from(METHODS), st.sampled_from(SCHEMES))
def test_every_range_contains_zero_and_lies_within_what_was_seen(x, method, scheme):
    found = compute_range(statistics_of(x), method, scheme=scheme)
    assert min(x.min(), 0) <= found.low <= 0 <= found.high <= max(x.max(), 0)


@settings(deadline=None, max_examples=40)
@given(ARRAYS)
def test_minmax_contains_every_value(x):
    assert compute_range(statistics_of(x), "minmax") == Range.around_zero(float(x.min()), float(x.max()))
    assert compute_range(statistics_of(x), "percentile", percentile=100.0) == Range.around_zero(
        float(x.min()), float(x.max())
    )


def test_mean_minmax_is_the_default():
    statistics = statistics_of([[-1, 2], [-3, 6]])
    assert compute_range(statistics) == Range(-2.0, 4.0)


@settings(deadline=None, max_examples=40)
@given(ARRAYS, st.sampled_from(SCHEMES))
def test_mse_is_never_worse_than_minmax_on_the_histogram(x, scheme):
    statistics = statistics_of(x)
    found, everything = mse(statistics, scheme), compute_range(statistics, "minmax")
    values, counts = statistics.histogram.occupied()
    repeated = np.repeat(values, counts)
    assert error_of(repeated, found, scheme) <= error_of(repeated, everything, scheme) * (1 + 1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mse_clips_a_heavy_tail_and_the_values_gain(scheme):
    x = heavy_tailed()
    statistics = statistics_of(x)
    found, everything = mse(statistics, scheme), compute_range(statistics, "minmax")
    assert error_of(x, found, scheme) < 0.8 * error_of(x, everything, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mse_is_near_the_optimum_of_a_fine_search(scheme):
    statistics = statistics_of(np.abs(heavy_tailed()))
    high = np.linspace(0.01, 1, 1000) * statistics.maximum
    best = squared_errors(statistics, np.zeros(1000), high, scheme).min()
    found = mse(statistics, scheme)
    assert squared_errors(statistics, np.zeros(1), np.array([found.high]), scheme)[0] < 1.02 * best


def test_squared_errors_of_the_histogram_are_those_of_the_values():
    x = np.random.default_rng(1).standard_normal((1, 50_000)).astype(np.float32)
    statistics = statistics_of(x)
    for low, high in ((-4.0, 4.0), (-1.0, 3.0), (-0.5, 0.5)):
        error = squared_errors(statistics, np.array([low]), np.array([high]))[0]
        assert error == pytest.approx(error_of(x, Range(low, high), Scheme()), rel=0.02)


def test_percentile_clips_half_at_each_end():
    x = np.arange(-5000, 5000, dtype=np.float32)[None]
    found = compute_range(statistics_of(x), "percentile", percentile=98.0)
    assert found.low == pytest.approx(-4900, abs=4)
    assert found.high == pytest.approx(4900, abs=4)


@pytest.mark.parametrize("sign", [1, -1])
def test_percentile_of_a_one_sided_tensor_clips_its_one_end(sign):
    x = np.arange(10_000, dtype=np.float32)[None] * sign
    found = compute_range(statistics_of(x), "percentile", percentile=99.0)
    assert max(-found.low, found.high) == pytest.approx(9900, abs=4)
    assert min(-found.low, found.high) == 0


@settings(deadline=None, max_examples=40)
@given(ARRAYS, st.floats(51, 100))
def test_percentile_clips_no_more_than_asked(x, percentile):
    found = compute_range(statistics_of(x), "percentile", percentile=percentile)
    # A cell's upper edge belongs to the next cell, so a value on it counts as clipped.
    outside = ((x < found.low) | (x > found.high)).sum()
    assert outside <= x.size * (1 - percentile / 100) + 1e-9


@pytest.mark.parametrize("percentile", [50.0, 0.9999, 100.1, float("nan")])
def test_absurd_percentiles(percentile):
    with pytest.raises(UsageError, match="is usual"):
        compute_range(statistics_of([[1]]), "percentile", percentile=percentile)


def test_entropy_clips_a_lone_outlier():
    x = np.random.default_rng(0).standard_normal((1, 100_000)).astype(np.float32)
    x[0, 0] = 40.0
    found = compute_range(statistics_of(x), "entropy")
    assert 3.0 < found.high < 6.0
    assert x.min() <= found.low < -3.0


def test_entropy_is_not_led_astray_by_the_zeros_of_a_relu():
    x = np.maximum(np.random.default_rng(0).standard_normal((1, 100_000)), 0).astype(np.float32)
    assert compute_range(statistics_of(x), "entropy").high > 2.0


@pytest.mark.parametrize("method", ["entropy", "auto"])
def test_bounded_activations_keep_their_range(method):
    x = np.random.default_rng(0).standard_normal((2, 50_000)).astype(np.float32) * 3
    relu6 = statistics_of(x).mapped(ELEMENTWISE["Clip"](min=0.0, max=6.0), "y")
    assert compute_range(relu6, method) == Range(0.0, 6.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_auto_is_the_best_of_its_candidates(scheme):
    statistics = statistics_of(heavy_tailed())
    method, found = best_method(statistics, scheme=scheme)
    ranges = {name: compute_range(statistics, name) for name in ("minmax", "mean-minmax", "percentile", "entropy")}
    low, high = (np.array([getattr(r, end) for r in ranges.values()]) for end in ("low", "high"))
    errors = dict(zip(ranges, squared_errors(statistics, low, high, scheme), strict=True))
    assert errors[method] == min(errors.values())
    assert found == ranges[method] == compute_range(statistics, "auto", scheme=scheme)
    assert errors[method] < errors["minmax"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "expected"), [(0.0, (0.0, 0.0)), (5.0, (0.0, 5.0)), (-2.0, (-2.0, 0.0))])
def test_constant_tensors(method, value, expected):
    found = compute_range(statistics_of(np.full((3, 100), value)), method)
    assert found.low >= expected[0]
    assert found.high <= expected[1]
    if method != "mse":
        assert (found.low, found.high) == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_never_seen(method):
    with pytest.raises(UsageError, match="tensor 'x'"):
        compute_range(TensorStatistics("x", histogram=True), method)


@pytest.mark.parametrize("method", [method for method in METHODS if needs_histogram(method)])
def test_a_histogram_that_is_missing(method):
    statistics = TensorStatistics("x")
    statistics.update(np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="tensor 'x' were taken without a histogram"):
        compute_range(statistics, method)


def test_needs_histogram():
    assert [needs_histogram(method) for method in METHODS] == [False, False, True, True, True, True]


def test_unknown_method():
    with pytest.raises(UsageError, match="unknown calibration method 'entorpy'; did you mean 'entropy'"):
        compute_range(statistics_of([[1]]), "entorpy")


def test_a_range_without_zero_is_refused():
    with pytest.raises(ValueError, match="does not contain 0"):
        Range(1.0, 2.0)
