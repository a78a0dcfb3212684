"""Made-up inputs have the statistics that they promise."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, parse_preprocess, synthetic
from onnxopt.errors import UsageError


def spec(*shape, dtype=np.float32):
    return InputSpec("x", shape, np.dtype(dtype))


def arrays(dataset):
    return [sample.feeds["x"] for sample in dataset]


def test_seeded_repeatable_and_all_different():
    first, again = (arrays(synthetic([spec(1, 3, 16, 16)], 3)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], first[1])
    other = arrays(synthetic([spec(1, 3, 16, 16)], 3, seed=1))
    assert not np.array_equal(first[0], other[0])


def test_subsets_and_digests():
    dataset = synthetic([spec(1, 3, 8, 8)], 6)
    np.testing.assert_array_equal(arrays(dataset.take(3))[1], arrays(dataset)[2])
    digests = {dataset.digest(), dataset.take(3).digest(), synthetic([spec(1, 3, 8, 8)], 6, seed=1).digest()}
    assert len(digests) == 3
    assert any("unverified" in note for note in dataset.notes)


def test_values_lie_in_the_range_of_the_preprocessing():
    plain = np.concatenate(arrays(synthetic([spec(1, 3, 32, 32)], 8)))
    assert 0 <= plain.min() < 0.1
    assert 0.9 < plain.max() <= 1
    raw = np.concatenate(arrays(synthetic([spec(1, 3, 32, 32)], 8, preprocess=parse_preprocess("yolox"))))
    assert raw.max() > 200
    normal = np.concatenate(arrays(synthetic([spec(1, 3, 32, 32)], 8, preprocess=parse_preprocess("imagenet"))))
    assert normal.min() < -1
    assert normal.max() > 1


def test_colours_correlate_and_fine_detail_is_weak():
    picture = np.mean([np.abs(np.fft.rfft2(a[0, 0])) for a in arrays(synthetic([spec(1, 3, 64, 64)], 16))], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64) * 64, np.arange(33), indexing="ij"))
    low, high = (picture[(frequency >= a) & (frequency < b)].mean() for a, b in ((2, 4), (16, 32)))
    # Under 1/f the amplitude falls by 8 between these bands, under white noise by 1.
    assert 4 < low / high < 16
    pixels = np.concatenate([a.reshape(3, -1) for a in arrays(synthetic([spec(1, 3, 32, 32)], 8))], axis=1)
    assert np.corrcoef(pixels)[np.triu_indices(3, 1)].min() > 0.7


@pytest.mark.parametrize("shape", [(4, 3, 8, 6), (1, 8, 6, 3), (1, 1, 8, 8), (1, 4, 8, 8), (1, 3, 1, 1)])
def test_shapes(shape):
    (array,) = arrays(synthetic([spec(*shape)], 1))
    assert array.shape == (1, *shape[1:])
    assert np.isfinite(array).all()


def test_other_inputs():
    byte = np.concatenate(arrays(synthetic([spec(1, 3, 16, 16, dtype=np.uint8)], 4)))
    assert byte.dtype == np.uint8
    assert byte.max() > 150
    (numbers,) = arrays(synthetic([spec(1, 9, dtype=np.int64)], 1))
    assert set(numbers.ravel().tolist()) <= {1, 2}
    (flags,) = arrays(synthetic([spec(1, 99, dtype=np.bool_)], 1))
    assert set(flags.ravel().tolist()) == {True, False}
    (vector,) = arrays(synthetic([spec(7, dtype=np.float16)], 1))
    assert (vector.shape, vector.dtype) == ((7,), np.float16)


def test_refusals():
    with pytest.raises(UsageError, match="at least 1"):
        synthetic([spec(1, 3, 8, 8)], 0)
    with pytest.raises(UsageError, match="no inputs"):
        synthetic([], 1)
    with pytest.raises(UsageError, match="takes whole numbers"):
        synthetic([spec(1, 3, 8, 8, dtype=np.uint8)], 1, preprocess=parse_preprocess("yolo"))
    with pytest.raises(UsageError, match="no values can be made up"):
        synthetic([spec(1, 3, dtype=np.str_)], 1)
