"""Faults of boxes: read in another way than they were written.

The float model is the witness. Labelled boxes are read as if they had been written in another way, one way after the
other, and the one that fits best what the model is confident of is told, if that is beyond noise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxopt.data import Array, Boxes, ImageInfo
from onnxopt.doctor.finding import MOST_SURE, Finding
from onnxopt.doctor.instruments import Seen
from onnxopt.doctor.paired import chance
from onnxopt.doctor.trials import NOISE
from onnxopt.evaluation.decoding import overlap

FEWEST = 10  # pictures from which something can be told
FITS = 0.4  # mean intersection over union from which a way to read boxes is believed

Reading: TypeAlias = Callable[[Array, ImageInfo], Array]


@dataclass(frozen=True)
class Way:
    """How boxes may have been written, against how they were read.

    Attributes:
        says: What is wrong, if this fits better.
        advice: What to do.
        read: Boxes as they were read, corners in pixels of the picture, to what they would be.
    """

    says: str
    advice: str
    read: Reading


def _centred(xyxy: Array) -> Array:
    return np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _cornered(xyxy: Array) -> Array:
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _size(image: ImageInfo) -> Array:
    return np.asarray([image.width, image.height] * 2, np.float64)


_MEANT = "write centre and size (YOLO), or top left corner and size (COCO)"
WAYS: tuple[Way, ...] = (
    Way("The boxes were normalized twice.", "multiply them by the picture's size once", lambda b, i: b * _size(i)),
    Way(
        "The boxes are pixels, and shares of the picture are expected.",
        "divide them by width and height",
        lambda b, i: b / _size(i),
    ),
    Way("The boxes are two corners (xyxy), and centre and size (xywh) are expected.", _MEANT, lambda b, i: _centred(b)),
    Way(
        "The boxes are two corners (xyxy), and corner and size (xywh) are expected.", _MEANT, lambda b, i: _cornered(b)
    ),
    Way(
        "The boxes are top left corner and size, and centre and size are expected.",
        _MEANT,
        lambda b, i: b + np.tile((b[:, 2:] - b[:, :2]) / 2, 2),
    ),
    Way(
        "The boxes are centre and size, and top left corner and size are expected.",
        _MEANT,
        lambda b, i: b - np.tile((b[:, 2:] - b[:, :2]) / 2, 2),
    ),
    Way(
        "The boxes have x and y swapped.",
        "write x before y, and width before height",
        lambda b, i: (b / _size(i))[:, [1, 0, 3, 2]] * _size(i),
    ),
    Way(
        "The boxes are in pixels of the model's input, not of the picture.",
        "map them back to the picture",
        lambda b, i: i.to_original(b),
    ),
)


def boxes(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Boxes that fit what the model finds only if they are read in another way."""
    pictures = [
        (one.label.xyxy, one.image, found)
        for one in seen
        if isinstance(one.label, Boxes) and len(one.label) and one.image is not None
        if len(found := one.confident()[1])
    ]
    if len(pictures) < FEWEST:
        return
    given = np.asarray([_fit(xyxy, found) for xyxy, _, found in pictures])
    best: tuple[float, Way, Array] | None = None
    for way in WAYS:
        fits = np.asarray([_fit(way.read(xyxy, image), found) for xyxy, image, found in pictures])
        if best is None or fits.mean() > best[0]:
            best = (float(fits.mean()), way, fits)
    assert best is not None
    mean, way, fits = best
    by_chance = chance(fits - given) * len(WAYS)
    if mean < FITS or given.mean() > mean / 2 or by_chance >= NOISE:
        return
    yield Finding(
        "box-format",
        way.says,
        f"what the model finds overlaps them by {given.mean():.2f} as they are, and by {mean:.2f} if they are read so "
        f"(mean over {len(pictures)} pictures)",
        min(MOST_SURE, 1 - by_chance),
        way.advice,
    )


def outside(labels: Sequence[tuple[Boxes, ImageInfo]]) -> Iterator[Finding]:
    """Boxes that cannot be boxes: outside the picture, or without extent."""
    rows = [(boxes.xyxy, _size(image)) for boxes, image in labels if len(boxes)]
    total = sum(len(xyxy) for xyxy, _ in rows)
    if not total:
        return
    beyond = sum(int(((xyxy < -0.05 * size) | (xyxy > 1.05 * size)).any(axis=1).sum()) for xyxy, size in rows)
    empty = sum(int((xyxy[:, 2:] - xyxy[:, :2] < 1e-3 * size[2:]).any(axis=1).sum()) for xyxy, size in rows)
    for count, says in ((beyond, "reach beyond their pictures"), (empty, "have next to no extent")):
        if count >= max(3, 0.05 * total):
            yield Finding(
                "boxes-outside" if count is beyond else "boxes-empty",
                f"{count} of {total} labelled boxes {says}.",
                "counted",
                1.0,
                "see whether they are written as the format wants them: YOLO wants centre and size in shares of the "
                "picture, COCO the top left corner and size in pixels",
            )


def _fit(xyxy: Array, found: Array) -> float:
    """Mean over found boxes of the intersection over union with the labelled box that fits best."""
    ordered = np.concatenate([np.minimum(xyxy[:, :2], xyxy[:, 2:]), np.maximum(xyxy[:, :2], xyxy[:, 2:])], axis=1)
    return float(overlap(found, ordered).max(axis=1).mean())
