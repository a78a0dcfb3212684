"""Inputs that look like photographs to a network, for when there is no data.

Photographs have three properties that matter to activation ranges and that plain noise lacks:

1. Amplitude falls with spatial frequency f as 1/f (Field 1987, "Relations between the statistics of natural
   images and the response properties of cortical cells").
2. Colour channels are strongly correlated: most of the variance is in brightness.
3. Objects occlude one another, which makes edges ("dead leaves": Lee, Mumford and Huang 2001).

A few words stand on each, as they do in many photographs; text detectors answer nothing without.

Everything follows from the seed. Accuracy measured on such inputs means nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from onnxopt.data.dataset import Dataset, Digest
from onnxopt.data.images import PictureInput, image_layout
from onnxopt.data.preprocess import Preprocess
from onnxopt.data.sample import Array, InputSpec, Sample
from onnxopt.errors import UsageError

FloatArray: TypeAlias = npt.NDArray[np.float32]
# Share of the other textures in a channel, against the brightness that all channels have in common.
CHROMA = 0.2
SHAPES = 6
WORDS = 4


def synthetic(inputs: Sequence[InputSpec], count: int, seed: int = 0, preprocess: Preprocess | None = None) -> Dataset:
    """Return `count` made-up samples.

    Float inputs of an image's shape get pictures, normalized as `preprocess` says or else in 0..1; 8-bit ones get
    0..255. Other float inputs get values in 0..1, other whole numbers 1 or 2, booleans both values.

    Raises:
        UsageError: `count` is not positive, there are no inputs, or the preprocessing does not fit them.
    """
    if count < 1:
        raise UsageError(f"{count} synthetic samples were asked for; at least 1 is needed")
    if not inputs:
        raise UsageError("the model has no inputs, so there is nothing to make samples for")
    source = SyntheticSource(tuple(inputs), count, seed, preprocess)
    source.sample(0)  # so that a preprocessing that does not fit is refused here
    remark = "the inputs are made up: accuracy is unverified"
    return Dataset(source, f"{count} synthetic samples (seed {seed})", (remark,), preprocess)


@dataclass
class SyntheticSource:
    """Made-up samples, each from its own generator, so that any of them can be made alone."""

    inputs: tuple[InputSpec, ...]
    count: int
    seed: int
    preprocess: Preprocess | None
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples."""
        return map(self.sample, range(self.count) if indices is None else indices)

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add all that the samples follow from."""
        positions = list(range(self.count) if indices is None else indices)
        inputs = [str(spec) for spec in self.inputs]
        digest.update(f"synthetic 1 {inputs} {positions} {self.seed} {self.preprocess}".encode())

    def sample(self, index: int) -> Sample:
        """Return the sample at an index."""
        random = np.random.default_rng([self.seed, index])
        # `asarray`, because NumPy makes scalars of what has no axes, and ONNX Runtime takes arrays alone.
        return Sample({spec.name: np.asarray(self._values(spec, random)) for spec in self.inputs})

    def _values(self, spec: InputSpec, random: np.random.Generator) -> Array:
        shape = spec.sample_shape
        if spec.dtype.kind == "b":
            return random.random(shape) < 0.5
        if spec.dtype.kind == "f" or spec.dtype == np.uint8:
            layout = _layout(spec)
            if layout is not None:
                channels_last, channels, height, width = layout
                picture = make_picture(random, height, width, channels)
                return self._picture(picture, spec, channels_last)
        if spec.dtype.kind == "f":
            return random.random(shape).astype(spec.dtype)
        if spec.dtype.kind in "iu":
            return random.integers(1, 3, shape).astype(spec.dtype)
        raise UsageError(f"no values can be made up for input {spec}; give --data")

    def _picture(self, picture: FloatArray, spec: InputSpec, channels_last: bool) -> Array:
        if self.preprocess is not None:
            return PictureInput(spec, self.preprocess).normalize(np.round(picture * 255))
        values = np.round(picture * 255) if spec.dtype == np.uint8 else picture
        return np.ascontiguousarray((values if channels_last else values.transpose(2, 0, 1))[None], spec.dtype)


def make_picture(random: np.random.Generator, height: int, width: int, channels: int) -> FloatArray:
    """Return a made-up picture, float32[height, width, channels] in 0..1."""
    texture = _texture(random, height, width, channels)
    picture = texture.copy()
    for _ in range(SHAPES):
        rows, columns, inside = _ellipse(random, height, width)
        # An object has its own contrast, brightness and colour; the texture is reused from elsewhere in the picture.
        surface = texture[::-1, ::-1][rows, columns] * np.float32(random.uniform(0.3, 1.0))
        surface += np.float32(random.normal(0.0, 1.0) + random.normal(0.0, CHROMA, channels))
        picture[rows, columns][inside] = surface[inside]
    picture -= picture.mean()
    picture *= random.uniform(0.15, 0.3) / max(float(picture.std()), 1e-12)
    picture += random.uniform(0.3, 0.6)
    picture.clip(0.0, 1.0, out=picture)
    return _with_text(random, picture)


def _with_text(random: np.random.Generator, picture: FloatArray) -> FloatArray:
    """Return the picture with some words on it: text detectors give nothing to judge on pictures without."""
    height, width, channels = picture.shape
    image = Image.fromarray(np.zeros((height, width), np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(WORDS):
        letters = "".join(chr(c) for c in random.integers(ord("A"), ord("Z") + 1, random.integers(3, 9)))
        size = max(8.0, min(height, width) * random.uniform(0.05, 0.15))
        place = random.uniform(0.0, 0.8) * width, random.uniform(0.05, 0.9) * height
        draw.text(place, letters, fill=255, font=ImageFont.load_default(size))
    ink = np.asarray(image, np.float32)[:, :, None] / 255
    colour = np.float32(random.integers(0, 2)) * np.ones(channels, np.float32)
    lettered: FloatArray = (picture * (1 - ink) + ink * colour).astype(np.float32)
    return lettered


def _texture(random: np.random.Generator, height: int, width: int, channels: int) -> FloatArray:
    """Return noise whose amplitude falls as 1/f, correlated between channels, with unit variance."""
    vertical = np.fft.fftfreq(height)[:, None] * height
    horizontal = np.fft.rfftfreq(width)[None, :] * width
    frequency = np.hypot(vertical, horizontal).astype(np.float32)
    frequency[0, 0] = np.inf  # no constant part; brightness is chosen later
    spectrum = np.fft.rfft2(random.standard_normal((height, width), np.float32))
    plane = np.fft.irfft2(spectrum / frequency, s=(height, width)).astype(np.float32)
    plane /= max(float(plane.std()), 1e-12)
    texture = np.empty((height, width, channels), np.float32)
    for channel in range(channels):
        # A shifted copy is as good as an independent field, and far cheaper.
        shift = random.integers(1, max(2, height)), random.integers(1, max(2, width))
        texture[:, :, channel] = plane + CHROMA * np.roll(plane, shift, axis=(0, 1))
    return texture / np.float32(math.hypot(1.0, CHROMA))


def _ellipse(random: np.random.Generator, height: int, width: int) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
    """Return the rows and columns around a random, turned ellipse, and which points there lie in it."""
    angle = random.uniform(0.0, np.pi)
    center_y, center_x = random.uniform(0.0, 1.0, 2)
    radius_u, radius_v = random.uniform(0.05, 0.35, 2)
    reach = max(radius_u, radius_v)
    rows, columns = _around(center_y, reach, height), _around(center_x, reach, width)
    y = (np.arange(rows.start, rows.stop) / height - center_y)[:, None]
    x = (np.arange(columns.start, columns.stop) / width - center_x)[None, :]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    return rows, columns, (u / radius_u) ** 2 + (v / radius_v) ** 2 < 1.0


def _around(center: float, reach: float, size: int) -> slice:
    """Return the positions among `size` within reach of a center, both in shares of the size."""
    return slice(max(0, math.floor((center - reach) * size)), min(size, math.ceil((center + reach) * size)))


def _layout(spec: InputSpec) -> tuple[bool, int, int, int] | None:
    """Return the layout of an input that takes pictures, or None for any other input."""
    if len(spec.shape) != 4 or not {spec.shape[1], spec.shape[3]} & {1, 3, 4}:
        return None
    return image_layout(spec)
