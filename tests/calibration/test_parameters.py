import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.quant_utils import compute_scale_zp

from onnxopt.calibration.parameters import channel_parameters, integer_limits, quantization_parameters

ENDS = st.floats(-(2.0**60), 2.0**60, width=32)


@given(ENDS, ENDS, st.sampled_from(["uint8", "int8"]), st.booleans())
def test_equals_onnxruntime(a, b, dtype, symmetric):
    low, high = sorted((a, b))
    qmin, qmax = (np.array(limit, dtype) for limit in integer_limits(dtype, symmetric=symmetric))
    zero_point, scale = compute_scale_zp(np.float32(low), np.float32(high), qmin, qmax, symmetric)
    assert quantization_parameters(low, high, dtype=dtype, symmetric=symmetric) == (scale, zero_point)


@given(ENDS, ENDS, st.sampled_from(["uint8", "int8"]), st.booleans())
def test_both_ends_are_represented_within_half_a_step(a, b, dtype, symmetric):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero_point = quantization_parameters(low, high, dtype=dtype, symmetric=symmetric)
    qmin, qmax = integer_limits(dtype, symmetric=symmetric)
    assert (qmin - zero_point - 0.501) * float(scale) <= low
    assert high <= (qmax - zero_point + 0.501) * float(scale)


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(0, 6, 0), (-6, 0, 255), (-1, 1, 128), (2, 6, 0), (-6, -2, 255)]
)
def test_zero_points(low, high, zero_point):
    assert quantization_parameters(low, high, dtype="uint8")[1] == zero_point


def test_a_bounded_activation_has_a_step_that_keeps_its_clip_redundant():
    scale, zero_point = quantization_parameters(0.0, 6.0, dtype="uint8")
    assert (scale, zero_point) == (np.float32(6 / 255), 0)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_nothing_but_zero(dtype):
    assert quantization_parameters(0.0, 1e-39, dtype=dtype) == (1.0, 0)


def test_limit_of_weights_without_vnni():
    assert quantization_parameters(-1.0, 0.5, dtype="int8", symmetric=True, limit=64) == (np.float32(1 / 64), 0)


def test_channels():
    scale, zero_point = channel_parameters([-1, 0, -3], [1, 0, 2], dtype="int8", symmetric=True)
    assert scale.dtype == np.float32
    assert scale.tolist() == [np.float32(1 / 127), 1.0, np.float32(3 / 127)]
    assert (zero_point.dtype, zero_point.tolist()) == (np.int8, [0, 0, 0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_ranges_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="not finite"):
        quantization_parameters(-1.0, bad, dtype="uint8")
