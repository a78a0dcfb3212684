"""Ranges and codes of a given model: exact where formats agree, spread to where they are needed."""

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from onnxopt.calibration.given import GivenCodes, GivenRange, GivenRanges, entries, span, spread
from onnxopt.calibration.parameters import quantization_parameters
from onnxopt.targets import NumberFormat
from onnxopt.testing import parse_graph

UINT8 = NumberFormat("uint8", symmetric=False)
INT8 = NumberFormat("int8", symmetric=True)
SCALES = st.floats(min_value=float(np.float32(1e-30)), max_value=float(np.float32(1e30)), width=32)
RELU = "(float[4] x) => (float[4] y) { y = Relu (x) }"


def again(scale, zero, dtype, kind):
    """Scale and zero point that a pair leads to, on a tensor without bounds."""
    found = span(np.float32(scale), np.asarray(zero, dtype), dtype)
    entry = entries(parse_graph(RELU), GivenRanges({"x": found}), kind)["x"]
    return quantization_parameters(entry.low, entry.high, dtype=kind.dtype, symmetric=kind.symmetric, limit=kind.limit)


@drawn(SCALES, st.integers(0, 255))
def test_the_same_format_gives_the_same_parameters(scale, zero):
    assert again(scale, zero, "uint8", UINT8) == (np.float32(scale), zero)


@drawn(SCALES)
def test_symmetric_stays_symmetric(scale):
    assert again(scale, 0, "int8", INT8) == (np.float32(scale), 0)


@drawn(SCALES, st.integers(-128, 127))
def test_int8_is_uint8_128_further(scale, zero):
    assert again(scale, zero, "int8", UINT8) == (np.float32(scale), zero + 128)


@drawn(SCALES)
def test_uint8_about_the_middle_is_symmetric_int8(scale):
    assert again(scale, 128, "uint8", INT8) == (np.float32(scale), 0)


def test_one_sided_takes_the_larger_end():
    scale, zero = again(0.5, 0, "uint8", INT8)
    assert (scale, zero) == (np.float32(127.5 / 127), 0)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_no_numbers_are_not_ranges(scale):
    assert span(np.float32(scale), np.int8(0), "int8") is None


def test_channels_are_taken_together():
    found = span(np.float32([0.1, 0.2]), np.int8([0, 0]), "int8")
    np.testing.assert_allclose((found.low, found.high), (-25.6, 25.4), rtol=1e-6)
    assert found.dtype == ""


def test_narrow_types():
    assert span(np.float32(1), np.int8(0), "int4") == GivenRange(-8.0, 7.0, "int4", symmetric=True)


CHAIN = """(float[1,4,6,6] x) => (float[1,12,6,6] y) <float[4,4,1,1] w, int64[2] two = {2, 2}> {
  a = Conv (x, w)
  p = MaxPool <kernel_shape = [1, 1]> (a)
  r = Relu (a)
  s, t = Split <axis = 1> (r, two)
  k = Concat <axis = 1> (s, t, p)
  h = Transpose <perm = [0, 1, 3, 2]> (k)
  y = Conv (h, v)
}""".replace("float[4,4,1,1] w,", "float[4,4,1,1] w, float[12,8,1,1] v,")


def test_forward_through_functions_and_movers():
    known = spread(parse_graph(CHAIN), {"a": GivenRange(-2, 3, "uint8")})
    assert known["p"] == GivenRange(-2, 3, "uint8")
    assert known["s"] == known["t"] == GivenRange(0, 3)
    assert known["h"] == GivenRange(-2, 3)
    assert "y" not in known


def test_backward_through_movers_and_concat():
    known = spread(parse_graph(CHAIN), {"h": GivenRange(-1, 5, "int8")})
    assert known["k"] == known["s"] == known["p"] == known["a"] == known["r"] == GivenRange(-1, 5, "int8")
    assert "x" not in known


def test_what_is_given_itself_stays():
    known = spread(parse_graph(CHAIN), {"h": GivenRange(-1, 5, "int8"), "p": GivenRange(-9, 9, "int8")})
    assert known["p"] == known["a"] == GivenRange(-9, 9, "int8")


def codes(scale, dtype="int8", zero=0, axis=0, values=None):
    scale = np.float32(scale).reshape(-1)
    return GivenCodes(scale, np.full(scale.shape, zero, dtype), dtype, axis if scale.size > 1 else None, values)


WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


@pytest.mark.parametrize(
    ("stored", "axis", "wanted"),
    [
        (codes([0.1, 0.2]), 0, [0.1, 0.2]),
        (codes([0.1, 0.2]), None, None),
        (codes([0.1, 0.2]), 1, None),
        (codes(0.2), 0, [0.2, 0.2]),
        (codes(0.2), None, 0.2),
        (codes([0.1, 0.2], "uint8", 128), 0, [0.1, 0.2]),
        (codes([0.1, 0.2], "uint8", 100), 0, None),
        (codes([0.1, 0.2], "int16"), 0, None),
        (codes([0.1, 0.0]), 0, None),
    ],
)
def test_scale_of_a_weight(stored, axis, wanted):
    given = GivenRanges()
    given.add_constant(WEIGHT, stored)
    found = given.weight_scale(WEIGHT, axis, INT8)
    if wanted is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, np.float32(wanted))


def test_a_weight_that_has_changed_is_not_found():
    given = GivenRanges()
    given.add_constant(WEIGHT, codes([0.1, 0.2]))
    assert given.weight_scale(WEIGHT + 1, 0, INT8) is None


def test_codes_beyond_a_narrower_limit_are_not_kept():
    given = GivenRanges()
    given.add_constant(WEIGHT, codes([0.1, 0.2]))
    assert given.weight_scale(WEIGHT, 0, NumberFormat("int8", symmetric=True, limit=64)) is None
    assert given.weight_scale(WEIGHT, 0, NumberFormat("int8", symmetric=True, limit=126)) is not None


def test_a_matrix_is_found_when_it_was_transposed():
    given, matrix = GivenRanges(), np.arange(6, dtype=np.float32).reshape(2, 3)
    given.add_constant(matrix, codes([0.1, 0.2]))
    np.testing.assert_array_equal(given.weight_scale(matrix.T.copy(), 1, INT8), np.float32([0.1, 0.2]))


def test_bias_codes_only_for_the_same_scales():
    given, bias = GivenRanges(), np.float32([1, 2])
    given.add_constant(bias, codes([0.1, 0.2], "int32", values=np.int32([10, 10])))
    np.testing.assert_array_equal(given.bias_codes(bias, np.float32([0.1, 0.2])), [10, 10])
    assert given.bias_codes(bias, np.float32([0.1, 0.3])) is None
