"""Inputs from .npz and .npy."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError

IMAGE = InputSpec("image", (1, 2, 3), np.dtype(np.float32))
SIZES = InputSpec("a/sizes", (2,), np.dtype(np.int64))
SCALE = InputSpec("scale", (), np.dtype(np.float32))


def images(count=5, dtype=np.float32):
    return np.arange(count * 6, dtype=dtype).reshape(count, 2, 3)


def opened(path, inputs=(IMAGE,), **settings):
    return open_dataset(path, inputs, role="calibration", **settings)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return write


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_become_samples(tmp_path, save_npz, order):
    save_npz(tmp_path / "data.npz", image=np.asarray(images(), order=order), labels=np.arange(5))
    dataset = opened(tmp_path / "data.npz")
    samples = list(dataset)
    assert [sample.label for sample in samples] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.concatenate([sample.feeds["image"] for sample in samples]), images())
    assert [int(s.feeds["image"].flat[0]) for s in dataset.take(2)] == [0, 12]
    assert opened(tmp_path / "data.npz", samples=3).digest() == dataset.take(3).digest() != dataset.digest()


def test_several_inputs_of_any_rank(tmp_path):
    np.save(tmp_path / "image.npy", images(2)[:, None])  # with the batch axis
    np.save(tmp_path / "a_sizes.npy", np.array([[1, 2], [3, 4]], np.int32))
    np.save(tmp_path / "scale.npy", np.array([0.5, 2.0]))
    first, second = opened(tmp_path, [IMAGE, SIZES, SCALE])
    assert {name: array.shape for name, array in first.feeds.items()} == {
        "image": (1, 2, 3),
        "a/sizes": (2,),
        "scale": (),
    }
    assert second.feeds["a/sizes"].tolist() == [3, 4]
    assert second.feeds["a/sizes"].dtype == np.int64
    assert second.feeds["scale"] == np.float32(2.0)


def test_a_fixed_batch_is_fed_sample_by_sample(save):
    batched = InputSpec("image", (4, 2, 3), np.dtype(np.float32))
    assert next(iter(opened(save(image=images()), [batched]))).feeds["image"].shape == (1, 2, 3)


def test_unused_arrays_and_preprocess_are_said(save):
    dataset = opened(save(image=images(), other=images()), preprocess="yolo")
    assert [("other" in note, "'yolo' is not used" in note) for note in dataset.notes] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"picture": images()}, r"lacks the model's image: float32\[1, 2, 3\]; it has picture"),
        ({"image": images().reshape(5, 3, 2)}, r"has the shape \[5, 3, 2\]; .* wants \[N, 2, 3\]"),
        ({"image": images(dtype=np.uint8)}, "'image' is uint8, expected float32"),
        ({"image": images(0)}, "holds no samples"),
        ({"image": np.float32(1)}, "first axis is the samples"),
        ({"image": np.array([None, {}])}, "should be an array of numbers"),
        ({"image": np.where(images() == 20, np.nan, images())}, r"sample 3: 'image' has NaN"),
        ({"image": np.where(images() == 2, 1e300, images(dtype=np.float64))}, "sample 0: 'image' has infinite values"),
        ({"image": images(), "labels": np.arange(3)}, "should be 5 whole numbers"),
    ],
)
def test_wrong_arrays_are_named_with_what_is_expected(save, arrays, message):
    with pytest.raises(UsageError, match=message):
        list(opened(save(**arrays)))


def test_counts_must_agree_and_numbers_fit(save):
    byte = InputSpec("scale", (), np.dtype(np.int8))
    with pytest.raises(UsageError, match=r"different numbers of samples: {'image': 5, 'scale': 2}"):
        opened(save(image=images(), scale=np.zeros(2, np.int8)), [IMAGE, byte])
    with pytest.raises(UsageError, match="sample 1: 'scale' has values that do not fit int8"):
        list(opened(save(scale=np.array([1, 300])), [byte]))


@pytest.mark.parametrize("kept", [0, 40, 400])
def test_damaged_files(tmp_path, kept):
    np.savez(tmp_path / "data.npz", image=images(100))
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[:kept])
    with pytest.raises(UsageError, match=r"data.npz is not a readable .npz"):
        opened(tmp_path / "data.npz")
    np.save(tmp_path / "image.npy", images(100))
    (tmp_path / "image.npy").write_bytes((tmp_path / "image.npy").read_bytes()[:kept])
    (tmp_path / "data.npz").unlink()
    with pytest.raises(UsageError, match=r"image.npy is (not a readable array|damaged)"):
        list(opened(tmp_path))


def test_damage_inside_an_archive(tmp_path):
    np.savez(tmp_path / "data.npz", image=images(100))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[300] ^= 0xFF
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"is (damaged|not a readable array)"):
        list(opened(tmp_path / "data.npz"))
