"""From picture to tensor: geometry, values, layouts."""

import numpy as np
import pytest
from PIL import Image

from onnxopt.data import InputSpec, Preprocess, parse_preprocess
from onnxopt.data.images import PictureInput, decode
from onnxopt.errors import UsageError

FLOAT = np.dtype(np.float32)


def spec(*shape, dtype=FLOAT):
    return InputSpec("images", shape, np.dtype(dtype))


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_imagenet_matches_its_definition(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=300, height=280)
    tensor, info = PictureInput(spec(1, 3, 224, 224), parse_preprocess("imagenet")).load(path)
    resized = Image.open(path).resize((274, 256), Image.Resampling.BILINEAR)
    values = np.asarray(resized.crop((25, 16, 249, 240)), np.float32) / np.float32(255)
    expected = (values - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-6)
    assert (info.width, info.height, info.offset) == (300, 280, (-25, -16))


def test_crop_scales_with_the_input_size(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=64, height=64)
    _, info = PictureInput(spec(1, 3, 28, 28), parse_preprocess("imagenet")).load(path)
    assert (info.scale, info.offset) == ((0.5, 0.5), (-2, -2))


def test_yolo_letterbox_is_centred_and_yolox_is_not(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=8, height=4)
    pixels = pixels_of(path).astype(np.float32)
    tensor, info = PictureInput(spec(1, 3, 8, 8), parse_preprocess("yolo")).load(path)
    assert info.offset == (0, 2)
    np.testing.assert_allclose(tensor[0, :, 2:6], (pixels / 255).transpose(2, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(tensor[0, :, [0, 1, 6, 7]], 114 / 255, rtol=1e-6)
    tensor, info = PictureInput(spec(1, 3, 8, 8), parse_preprocess("yolox")).load(path)
    assert info.offset == (0, 0)
    np.testing.assert_array_equal(tensor[0, :, :4], pixels[:, :, ::-1].transpose(2, 0, 1))
    assert (tensor[0, :, 4:] == 114).all()


def linear_rows(pixels, width):
    """OpenCV's default: four neighbours, pixel centres at halves, borders repeated."""
    at = (np.arange(width) + 0.5) * pixels.shape[1] / width - 0.5
    low = np.floor(at).astype(int)
    part = (at - low)[None, :, None]
    clip = lambda index: np.clip(index, 0, pixels.shape[1] - 1)  # noqa: E731
    return pixels[:, clip(low)] * (1 - part) + pixels[:, clip(low + 1)] * part


@pytest.mark.parametrize("size", [(13, 9), (40, 31)])
def test_linear_filter_looks_at_four_neighbours(tmp_path, draw, size):
    path = draw(tmp_path / "a.png", width=30, height=20)
    preprocess = parse_preprocess("resize=stretch,filter=linear,scale=1")
    tensor, _ = PictureInput(spec(1, 3, *size), preprocess).load(path)
    rows = linear_rows(pixels_of(path).astype(np.float64), size[1])
    expected = linear_rows(rows.transpose(1, 0, 2), size[0]).transpose(1, 0, 2)
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, atol=1.0)


@pytest.mark.parametrize("text", ["yolo", "yolox", "imagenet", "resize=stretch"])
def test_boxes_come_back_to_the_original(tmp_path, draw, text):
    path = draw(tmp_path / "a.png", width=90, height=50)
    _, info = PictureInput(spec(1, 3, 32, 32), parse_preprocess(text)).load(path)
    box = np.array([[40.0, 20.0, 50.0, 30.0]])
    moved = box * np.tile(info.scale, 2) + np.tile(info.offset, 2)
    np.testing.assert_allclose(info.to_original(moved), box)
    np.testing.assert_array_equal(info.to_original(np.array([[-999.0, -999, 999, 999]])), [[0, 0, 90, 50]])


def test_channels_last(tmp_path, draw):
    path = draw(tmp_path / "a.png")
    last, _ = PictureInput(spec(1, 6, 7, 3), parse_preprocess("imagenet")).load(path)
    first, _ = PictureInput(spec(1, 3, 6, 7), parse_preprocess("imagenet")).load(path)
    assert last.shape == (1, 6, 7, 3)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_grey_inputs_take_luma_with_luma_of_the_means(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=8, height=8)
    tensor, _ = PictureInput(spec(1, 1, 8, 8), parse_preprocess("imagenet,resize=stretch")).load(path)
    luma = np.asarray(Image.open(path).convert("L"), np.float32) / 255
    mean, std = (np.dot([0.299, 0.587, 0.114], v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    np.testing.assert_allclose(tensor[0, 0], (luma - mean) / std, rtol=0, atol=1e-5)
    three, _ = PictureInput(spec(1, 3, 8, 8), parse_preprocess("color=gray")).load(path)
    np.testing.assert_array_equal(three[0, 0], three[0, 2])


def test_types_are_those_of_the_input(tmp_path, draw):
    path = draw(tmp_path / "a.png", width=8, height=8)
    raw, _ = PictureInput(spec(1, 3, 8, 8, dtype=np.uint8), parse_preprocess("scale=1")).load(path)
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw[0].transpose(1, 2, 0), pixels_of(path))
    half, _ = PictureInput(spec(1, 3, 8, 8, dtype=np.float16), parse_preprocess("yolo")).load(path)
    assert half.dtype == np.float16


@pytest.mark.parametrize(
    ("shape", "dtype", "text", "message"),
    [
        ((1, 3, 8, 8), np.uint8, "yolo", "takes whole numbers.*use scale=1"),
        ((1, 9, 8, 8), np.float32, "yolo", "has 9 channels, and pictures have 1, 3 or 4"),
        ((1, 10), np.float32, "yolo", r"input images: float32\[1, 10\] does not take pictures"),
        ((1, 3, 8, 8), np.float32, "mean=[0.5,0.5]", "2 values for mean or std.* 3 channels"),
        ((1, 4, 8, 8), np.float32, "imagenet", "3 values for mean or std.* 4 channels"),
    ],
)
def test_inputs_that_cannot_take_pictures_are_refused(shape, dtype, text, message):
    with pytest.raises(UsageError, match=message):
        PictureInput(spec(*shape, dtype=dtype), parse_preprocess(text))


@pytest.mark.parametrize(("mode", "becomes"), [("L", "L"), ("RGBA", "RGBA"), ("CMYK", "RGB"), ("LA", "RGBA")])
def test_decoding_gives_eight_bit_modes(tmp_path, draw, mode, becomes):
    path = tmp_path / ("b.jpg" if mode == "CMYK" else "b.png")
    Image.open(draw(tmp_path / "a.png")).convert(mode).save(path)
    assert decode(path).mode == becomes


def test_palettes_and_sixteen_bits(tmp_path, draw):
    Image.open(draw(tmp_path / "a.png")).quantize(16).save(tmp_path / "p.png", transparency=3)
    assert decode(tmp_path / "p.png").mode == "RGBA"
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(decode(tmp_path / "deep.png")).tolist() == [[0, 1, 255]]


def test_pictures_are_turned_upright(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.open(draw(tmp_path / "a.png", width=20, height=10)).save(tmp_path / "b.png", exif=exif)
    assert decode(tmp_path / "b.png").size == (10, 20)


def test_a_line_of_text_has_the_inputs_height_and_lies_on_the_left(tmp_path):
    Image.new("RGB", (40, 10), (255, 255, 255)).save(tmp_path / "a.png")
    spec = InputSpec("x", (1, 3, 20, 100), np.dtype(np.float32))
    tensor, image = PictureInput(spec, Preprocess(resize="line", scale=1, pad=9)).load(tmp_path / "a.png")
    assert (tensor[..., :80] == 255).all()
    assert (tensor[..., 80:] == 9).all()
    assert (image.scale, image.offset) == ((2, 2), (0, 0))
    narrow = InputSpec("x", (1, 3, 20, 50), np.dtype(np.float32))
    tensor, image = PictureInput(narrow, Preprocess(resize="line", scale=1, pad=9)).load(tmp_path / "a.png")
    assert (tensor == 255).all()
    assert image.scale == (1.25, 2)
