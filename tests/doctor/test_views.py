"""The same samples, prepared otherwise."""

import numpy as np
import pytest
from PIL import Image

from onnxopt.data import InputSpec, open_dataset, parse_preprocess
from onnxopt.doctor.views import ArrayView, PictureView, border_of, from_pixels, to_pixels, view_of

SPEC = InputSpec("images", (1, 3, 32, 32), np.dtype(np.float32))


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (20, 40, 3), np.uint8)
        pixels[0, 0], pixels[0, 1] = 0, 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def as_arrays(dataset):
    return open_dataset([(sample.feeds, None) for sample in dataset], [SPEC], role="calibration")


def view(dataset):
    return view_of(dataset, [SPEC], [sample.feeds["images"] for sample in dataset])


@pytest.mark.parametrize("text", ["yolo", "yolox", "imagenet,color=bgr", "scale=1/255,mean=[0.5],std=[0.5]"])
def test_pixels_come_back(text):
    preprocess = parse_preprocess(text)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.float64)
    array = from_pixels(pixels, SPEC, preprocess)
    assert array.shape == SPEC.shape
    assert array.dtype == SPEC.dtype
    np.testing.assert_allclose(to_pixels(array, SPEC, preprocess), pixels, atol=1e-3)


def test_pictures_are_read_again(folder):
    given = open_dataset(folder, [SPEC], role="calibration", preprocess="yolo")
    found = view(given)
    assert isinstance(found, PictureView)
    other = open_dataset(folder, [SPEC], role="calibration", preprocess="yolox")
    for a, b in zip(found.samples(parse_preprocess("yolox")), other, strict=True):
        np.testing.assert_array_equal(a.feeds["images"], b.feeds["images"])


@pytest.mark.parametrize("given", ["yolo", "yolo,align=topleft", "yolo,pad=0", "yolo,scale=1"])
def test_letterboxed_arrays_are_made_anew(folder, given):
    pictures = open_dataset(folder, [SPEC], role="calibration", preprocess=given)
    found = view(as_arrays(pictures))
    assert isinstance(found, ArrayView)
    said = parse_preprocess(given)
    assert (found.given.align, found.given.pad, found.given.scale) == (said.align, said.pad, said.scale)
    assert "align" in found.known
    wanted = open_dataset(folder, [SPEC], role="calibration", preprocess="yolox")
    for a, b in zip(found.samples(parse_preprocess("yolox")), wanted, strict=True):
        np.testing.assert_allclose(a.feeds["images"], b.feeds["images"], atol=0.01)


def test_stretched_arrays_have_no_letterbox(folder):
    pictures = open_dataset(folder, [SPEC], role="calibration", preprocess="resize=stretch")
    found = view(as_arrays(pictures))
    assert found.can == {"values", "color"}


def test_of_arrays_in_no_known_range_only_channels_can_be_swapped(folder):
    pictures = open_dataset(folder, [SPEC], role="calibration", preprocess="resize=stretch,scale=7")
    assert view(as_arrays(pictures)).can == {"color"}


def test_what_is_no_picture_has_no_view():
    for shape in ((1, 8), (1, 7, 32, 32)):
        spec = InputSpec("x", shape, np.dtype(np.float32))
        data = open_dataset([({"x": np.ones(shape, np.float32)}, None)], [spec], role="calibration")
        assert view_of(data, [spec], [np.ones(shape)]) is None


@pytest.mark.parametrize(
    ("rows", "columns", "align"),
    [
        (slice(8, 24), slice(0, 32), "center"),
        (slice(0, 16), slice(0, 32), "topleft"),
        (slice(0, 32), slice(0, 20), "topleft"),
        (slice(0, 32), slice(0, 32), None),
        (slice(3, 24), slice(0, 32), None),
        (slice(4, 28), slice(4, 28), None),
        (slice(0, 30), slice(0, 32), None),
    ],
)
def test_borders(rows, columns, align):
    pixels = np.full((32, 32, 3), 114.0)
    pixels[rows, columns] = np.random.default_rng(0).integers(0, 100, (32, 32, 3))[rows, columns]
    assert border_of(pixels).align == align
