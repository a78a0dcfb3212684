import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxopt.kernels import minmax, minmax_rows

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.float32, st.integers(1, 200), elements=FINITE))
def test_equals_numpy(x):
    assert minmax(x) == (x.min(), x.max(), True)


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=FINITE),
    st.integers(0, 199),
    st.sampled_from([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0xFF800000]),
)
def test_every_kind_of_nan_and_infinity_is_seen(x, where, bits):
    x[where % x.size] = np.array(bits, np.uint32).view(np.float32)
    assert not minmax(x)[2]


def test_largest_and_smallest_floats_are_finite():
    limit = float(np.finfo(np.float32).max)
    assert minmax(np.array([-limit, limit], np.float32)) == (-limit, limit, True)


def test_rows():
    x = np.random.default_rng(0).standard_normal((5, 1003)).astype(np.float32)
    low, high, finite = minmax_rows(x)
    assert (low == x.min(1)).all()
    assert (high == x.max(1)).all()
    assert finite


def test_read_only_arrays_are_welcome():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    x.flags.writeable = False
    assert minmax(x) == (0, 5, True)


def test_empty():
    with pytest.raises(ValueError, match="empty"):
        minmax(np.empty((2, 0), np.float32))
