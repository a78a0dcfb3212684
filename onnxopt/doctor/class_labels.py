"""Faults of labelled classes: not the model's, off by one, or in another order.

The float model is the witness. The objects that it is confident of are matched with the labels by place alone, and the
classes of what matches are compared, as they are and shifted by one. A classifier's best class is compared with the
label.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxopt.data import Array, Boxes
from onnxopt.doctor.finding import MOST_SURE, Finding
from onnxopt.doctor.instruments import HIT, Seen
from onnxopt.doctor.paired import chance
from onnxopt.doctor.reading import Probabilities
from onnxopt.doctor.trials import NOISE
from onnxopt.evaluation.decoding import overlap

FEWEST = 10  # matches from which something can be told
AGREED = 0.5  # of the matches, where labels and model mean the same by a class


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


def _matches(one: Seen) -> list[tuple[int, int]]:
    """Labelled and found class of each confident detection that lies where a label is."""
    if not isinstance(one.label, Boxes) or one.classes is None:
        return []
    kinds, found = one.confident()
    if not len(found) or not len(one.label):
        return []
    fits = overlap(found, one.label.xyxy)
    places = fits.argmax(axis=1)
    return [
        (int(one.label.classes[place]), one.classes.get(int(kind), -1))
        for row, place, kind in zip(fits, places, kinds, strict=True)
        if row[place] >= HIT
    ]
