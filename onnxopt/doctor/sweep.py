"""One pass over the samples as they came: what can be said of them without the model."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxopt.data import Array, ImageInfo, InputSpec, Sample
from onnxopt.data.dataset import hash_feeds
from onnxopt.data.images import image_layout
from onnxopt.errors import UsageError

THUMB = 16  # pixels a side
KEPT = 32  # samples whose arrays are kept, to see what is known of them


@dataclass(frozen=True, eq=False)
class Glance:
    """What is kept of one sample.

    Attributes:
        name: Its file, or its number.
        digest: SHA-256 of its arrays.
        low: Smallest value of each channel of each input, by input.
        high: Largest value.
        thumb: The first picture input, shrunk, float64[THUMB, THUMB, c]; None without one.
        label: Its label.
        image: The picture behind it.
    """

    name: str
    digest: str
    low: Mapping[str, Array]
    high: Mapping[str, Array]
    thumb: Array | None
    label: Any
    image: ImageInfo | None


@dataclass
class Sweep:
    """What is kept of all samples.

    Attributes:
        glances: One per sample.
        arrays: First input of the first samples.
        broken: Why reading ended early; None if it did not.
    """

    glances: list[Glance] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    broken: str | None = None


def sweep(samples: Iterable[Sample], inputs: Sequence[InputSpec]) -> Sweep:
    """Look at each sample once."""
    found = Sweep()
    try:
        for number, sample in enumerate(samples):
            found.glances.append(_glance(number, sample, inputs))
            if number < KEPT:
                found.arrays.append(sample.feeds[inputs[0].name])
    except UsageError as error:
        found.broken = str(error)
    return found


def _glance(number: int, sample: Sample, inputs: Sequence[InputSpec]) -> Glance:
    digest = hashlib.sha256()
    hash_feeds(digest, sample.feeds)
    extremes = {spec.name: _extremes(sample.feeds[spec.name], spec) for spec in inputs}
    return Glance(
        name=str(sample.image.path) if sample.image is not None else f"sample {number}",
        digest=digest.hexdigest(),
        low={name: low for name, (low, _) in extremes.items()},
        high={name: high for name, (_, high) in extremes.items()},
        thumb=_thumb(sample.feeds[inputs[0].name], inputs[0]),
        label=sample.label,
        image=sample.image,
    )


def is_picture(spec: InputSpec) -> bool:
    """Whether an input takes pictures."""
    try:
        image_layout(spec)
    except UsageError:
        return False
    return True


def _extremes(array: Array, spec: InputSpec) -> tuple[Array, Array]:
    """Smallest and largest value per channel of a picture, or of the whole array."""
    if not is_picture(spec):
        return np.asarray([array.min()]), np.asarray([array.max()])
    axes = (0, 1, 2) if image_layout(spec)[0] else (0, 2, 3)
    return array.min(axis=axes), array.max(axis=axes)


def _thumb(array: Array, spec: InputSpec) -> Array | None:
    """Means over blocks of the first picture; those of a block that is cut off by the edge are left out."""
    if not is_picture(spec):
        return None
    channels_last, channels, height, width = image_layout(spec)
    picture = np.asarray(array[0] if channels_last else array[0].transpose(1, 2, 0), np.float64)
    down, across = max(1, height // THUMB), max(1, width // THUMB)
    rows, columns = height // down, width // across
    blocks = picture[: rows * down, : columns * across].reshape(rows, down, columns, across, channels)
    return np.asarray(blocks.mean(axis=(1, 3)))
