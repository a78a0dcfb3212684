"""From a picture file to an input tensor: decode, turn upright, resize, normalize, lay out."""

import struct
import zlib
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from onnxopt.data.preprocess import Preprocess
from onnxopt.data.sample import Array, ImageInfo, InputSpec
from onnxopt.errors import UsageError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# What Pillow's decoders raise on broken files, beside OSError for most of them.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
UNREADABLE_PICTURE = (*UNREADABLE, Image.DecompressionBombError)
# Rec. 601, as Pillow's conversion to "L" has it.
LUMA = np.array([0.299, 0.587, 0.114])
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "linear": Image.Resampling.BILINEAR,
}


class PictureInput:
    """Turns pictures into one model input.

    Raises:
        UsageError: The input cannot take pictures, or the preprocessing does not fit it.
    """

    def __init__(self, spec: InputSpec, preprocess: Preprocess) -> None:
        self.spec = spec
        self.preprocess = preprocess
        self.channels_last, self.channels, self.height, self.width = image_layout(spec)
        self.mean = self._per_channel(preprocess.mean)
        self.std = self._per_channel(preprocess.std)
        if spec.dtype.kind in "iu" and (preprocess.scale != 1 or any(self.mean) or any(self.std != 1)):
            raise UsageError(
                f"input {spec} takes whole numbers, but preprocess '{preprocess}' makes fractions; "
                "use scale=1 without mean and std"
            )

    def load(self, path: Path) -> tuple[Array, ImageInfo]:
        """Return the input tensor of a picture, in the input's type and shape with a batch of 1.

        Raises:
            OSError, ValueError and others of `UNREADABLE_PICTURE`: The file is no readable picture.
        """
        picture = decode(path)
        placed, scale, offset = self._resize(picture)
        info = ImageInfo(path, picture.height, picture.width, scale, offset)
        return self.tensor(placed), info

    def tensor(self, picture: Image.Image) -> Array:
        """Return a picture of the input's size as a tensor of the input's type and layout."""
        grey = picture.convert("L") if self.preprocess.color == "gray" else picture
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[self.channels]
        return self.normalize(np.asarray(grey if grey.mode == mode else grey.convert(mode)))

    def normalize(self, pixels: npt.NDArray[np.number[Any]]) -> Array:
        """Return pixels 0..255 (height, width[, channels], RGB) as a tensor of the input's type and layout."""
        values = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.preprocess.color == "bgr" and self.channels >= 3:
            values = values[:, :, [2, 1, 0, *range(3, self.channels)]]
        if self.spec.dtype.kind == "f":
            values = (values.astype(np.float32) * np.float32(self.preprocess.scale) - self.mean) / self.std
        ordered = values if self.channels_last else values.transpose(2, 0, 1)
        return np.ascontiguousarray(ordered[None], self.spec.dtype)

    def _per_channel(self, values: tuple[float, ...]) -> npt.NDArray[np.float32]:
        if len(values) not in (1, self.channels) and not (self.channels == 1 and len(values) == 3):
            raise UsageError(
                f"preprocess has {len(values)} values for mean or std, "
                f"but input {self.spec} has {self.channels} channels"
            )
        if self.channels == 1 and len(values) == 3:
            # The mean of luma is the luma of the means; for the deviation that is close, as channels correlate.
            order = slice(None, None, -1 if self.preprocess.color == "bgr" else 1)
            return np.asarray([np.dot(LUMA[order], values)], np.float32)
        return np.asarray(values, np.float32)

    def _resize(self, picture: Image.Image) -> tuple[Image.Image, tuple[float, float], tuple[float, float]]:
        """Return the picture at the input's size, with scale and offset as `ImageInfo` has them."""
        kind = self.preprocess.resize
        if kind == "crop":
            return self._crop(picture)
        ratio = min(self.width / picture.width, self.height / picture.height)
        width, height = self.width, self.height
        if kind == "line":
            width = min(self.width, max(1, ceil(picture.width * self.height / picture.height)))
        if kind == "letterbox":
            width = min(self.width, max(1, round(picture.width * ratio)))
            height = min(self.height, max(1, round(picture.height * ratio)))
        resized = self._sample(picture, width, height)
        scale = (width / picture.width, height / picture.height)
        if (width, height) == (self.width, self.height):
            return resized, scale, (0.0, 0.0)
        centered = self.preprocess.align == "center" and kind == "letterbox"
        left = (self.width - width) // 2 if centered else 0
        top = (self.height - height) // 2 if centered else 0
        # Made of bands, because a tuple is a colour to some modes only.
        grey = Image.new("L", (self.width, self.height), self.preprocess.pad)
        canvas = Image.merge(resized.mode, [grey] * len(resized.getbands()))
        canvas.paste(resized, (left, top))
        return canvas, scale, (float(left), float(top))

    def _crop(self, picture: Image.Image) -> tuple[Image.Image, tuple[float, float], tuple[float, float]]:
        ratio = max(self.width / picture.width, self.height / picture.height) / self.preprocess.crop
        # Rounded down, as torchvision does; the sliver keeps 255.999… from becoming 255.
        width = max(self.width, int(picture.width * ratio + 1e-6))
        height = max(self.height, int(picture.height * ratio + 1e-6))
        resized = self._sample(picture, width, height)
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        cropped = resized.crop((left, top, left + self.width, top + self.height))
        scale = (width / picture.width, height / picture.height)
        return cropped, scale, (float(-left), float(-top))

    def _sample(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        if picture.size == (width, height):
            return picture
        kernel = FILTERS[self.preprocess.filter]
        if self.preprocess.filter != "linear":
            return picture.resize((width, height), kernel)
        # An affine transform looks at four neighbours only, where `resize` widens its kernel to shrink.
        matrix = (picture.width / width, 0.0, 0.0, 0.0, picture.height / height, 0.0)
        return picture.transform((width, height), Image.Transform.AFFINE, matrix, resample=kernel)


def image_layout(spec: InputSpec) -> tuple[bool, int, int, int]:
    """Return (channels last?, channels, height, width) of an input that takes pictures.

    Raises:
        UsageError: The input has no such shape.
    """
    if len(spec.shape) != 4:
        raise UsageError(f"input {spec} does not take pictures; give its arrays as .npz or module:function")
    _, first, second, third = spec.shape
    if third in (1, 3, 4) and first not in (1, 3, 4):
        return True, third, first, second
    if first not in (1, 3, 4):
        raise UsageError(
            f"input {spec} has {first} channels, and pictures have 1, 3 or 4; "
            "give its arrays as .npz or module:function"
        )
    return False, first, second, third


def decode(path: Path) -> Image.Image:
    """Return a picture file as upright 8-bit greyscale, RGB or RGBA.

    Raises:
        OSError, ValueError and others of `UNREADABLE_PICTURE`: The file is no readable picture.
    """
    with Image.open(path) as opened:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    if upright.mode in ("L", "RGB", "RGBA"):
        return upright
    if upright.mode.startswith("I"):
        # Pillow would clip 16-bit greyscale at 255.
        return Image.fromarray((np.asarray(upright).clip(0, 65535) / 257).round().astype(np.uint8))
    if upright.mode in ("P", "PA", "LA"):
        return upright.convert("RGBA")
    return upright.convert("RGB")
