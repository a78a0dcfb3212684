"""Faults of labels: classes that are not the model's, boxes that were read in the wrong way.

The float model is the witness. What it is confident of is matched with the labels by place alone; then the classes of
what matches are compared, as they are and shifted by one. Boxes are read as if they had been written in another way,
one way after the other, and the one that fits best what the model finds is told, if that is beyond noise.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxopt.data import Array, Boxes, ImageInfo
from onnxopt.doctor.finding import MOST_SURE, Finding
from onnxopt.doctor.instruments import HIT, Seen
from onnxopt.doctor.paired import chance
from onnxopt.doctor.reading import Probabilities
from onnxopt.doctor.trials import NOISE
from onnxopt.evaluation.decoding import Detections, overlap

CONFIDENT = 0.4  # boxes that may be taken for true
FEWEST = 10  # matches or pictures from which something can be told
AGREED = 0.5  # of the matches, where labels and model mean the same by a class
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
        if len(found := _confident(one))
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


def object_classes(seen: Sequence[Seen], names: Sequence[str]) -> Iterator[Finding]:
    """Labelled classes that are not what the model sees there."""
    matched = [pair for one in seen for pair in _matches(one)]
    yield from _classes(matched, len(names), names, "objects that model and labels place alike")


def picture_classes(seen: Sequence[Seen]) -> Iterator[Finding]:
    """The same for classifiers."""
    sure = [
        (int(one.label), int(one.reading.values.argmax()))
        for one in seen
        if isinstance(one.reading, Probabilities) and isinstance(one.label, int | np.integer)
    ]
    count = max((len(one.reading.values) for one in seen if isinstance(one.reading, Probabilities)), default=0)
    yield from _classes(sure, count, (), "samples")


def label_range(labels: Sequence[int], count: int | None) -> Iterator[Finding]:
    """Class numbers that the model does not have."""
    if count is None or not labels or max(labels) < count:
        return
    from_one = max(labels) == count and min(labels) >= 1
    yield Finding(
        "class-count",
        f"A label is class {max(labels)}, and the model has {count} classes, 0 to {count - 1}.",
        "counted" + ("; none is 0, so they count from 1" if from_one else ""),
        1.0,
        "subtract 1 from each label" if from_one else "give the labels of this model",
    )


def _classes(matched: Sequence[tuple[int, int]], count: int, names: Sequence[str], what: str) -> Iterator[Finding]:
    """Findings of pairs (labelled class, class that the model sees)."""
    if len(matched) < FEWEST:
        return
    pairs = np.asarray(matched)
    agreed = pairs[:, 0] == pairs[:, 1]
    shifts = {step: pairs[:, 0] + step == pairs[:, 1] for step in (-1, 1)}
    step, fits = max(shifts.items(), key=lambda item: item[1].mean())
    by_chance = chance(fits.astype(np.float64) - agreed) * len(shifts)
    if fits.mean() > AGREED and by_chance < NOISE:
        yield Finding(
            "classes-shifted",
            f"The labels' classes are shifted by one: their {pairs[0, 0]} is the model's {pairs[0, 0] + step}.",
            f"of {len(matched)} {what}, the classes agree for {agreed.mean():.0%} as they are and for "
            f"{fits.mean():.0%} shifted",
            min(MOST_SURE, 1 - by_chance),
            f"{'add 1 to' if step > 0 else 'subtract 1 from'} each class of the labels, or correct the order of names",
        )
        return
    mapping = _mapping(pairs)
    if mapping is None or agreed.mean() >= AGREED:
        return
    purity, table = mapping
    if purity > max(AGREED, 2 * agreed.mean()) and len(table) < count + 1:
        shown = ", ".join(f"{_named(a, names)} is seen as {_named(b, names)}" for a, b in list(table.items())[:3])
        yield Finding(
            "classes-differ",
            f"The labels' classes are in another order than the model's: {shown}.",
            f"of {len(matched)} {what}, the classes agree for {agreed.mean():.0%}, and for {purity:.0%} if each is "
            "taken for the one that is mostly seen there",
            0.85,
            "bring the names into the order that the model was trained with",
        )


def _mapping(pairs: Array) -> tuple[float, Mapping[int, int]] | None:
    """The class mostly seen for each labelled class that is there often enough, and how often it is seen."""
    by_label: dict[int, Counter[int]] = {}
    for label, found in pairs.tolist():
        by_label.setdefault(label, Counter())[found] += 1
    often = {label: found for label, found in sorted(by_label.items()) if found.total() >= 3}
    total = sum(found.total() for found in often.values())
    if total < FEWEST or len(often) < 2:
        return None
    table = {label: found.most_common(1)[0][0] for label, found in often.items()}
    return sum(found[table[label]] for label, found in often.items()) / total, table


def _named(number: int, names: Sequence[str]) -> str:
    return f"'{names[number]}'" if number < len(names) else str(number)


def _confident(one: Seen) -> Array:
    """Boxes that the model is confident of, corners in pixels of the picture, float64[n, 4]."""
    if not isinstance(one.reading, Detections) or one.image is None:
        return np.zeros((0, 4))
    return one.image.to_original(one.reading.xyxy[one.reading.scores >= CONFIDENT])


def _fit(xyxy: Array, found: Array) -> float:
    """Mean over found boxes of the intersection over union with the labelled box that fits best."""
    ordered = np.concatenate([np.minimum(xyxy[:, :2], xyxy[:, 2:]), np.maximum(xyxy[:, :2], xyxy[:, 2:])], axis=1)
    return float(overlap(found, ordered).max(axis=1).mean())


def _matches(one: Seen) -> list[tuple[int, int]]:
    """Labelled and found class of each confident detection that lies where a label is."""
    if not isinstance(one.label, Boxes) or not isinstance(one.reading, Detections) or one.classes is None:
        return []
    found, kinds = _confident(one), one.reading.classes[one.reading.scores >= CONFIDENT]
    if not len(found) or not len(one.label):
        return []
    fits = overlap(found, one.label.xyxy)
    places = fits.argmax(axis=1)
    return [
        (int(one.label.classes[place]), one.classes.get(int(kind), -1))
        for row, place, kind in zip(fits, places, kinds, strict=True)
        if row[place] >= HIT
    ]
