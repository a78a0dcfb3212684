"""Faults of the samples themselves: broken, constant, alike, too few, too small."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.data import Array, InputSpec
from onnxopt.doctor.finding import Finding
from onnxopt.doctor.sweep import Glance, Sweep

FEWEST = 16
NEAR = 0.015  # root mean square distance of thumbnails, in shares of the range that all of them fill
MANY_TWINS = 0.2  # of the samples
ENLARGED = 3.0  # times, to fit the input


def unreadable(sweep: Sweep) -> Iterator[Finding]:
    """A sample or its label cannot be used at all."""
    if sweep.broken is not None:
        read = len(sweep.glances)
        yield Finding(
            "unusable-sample",
            sweep.broken[:1].upper() + sweep.broken[1:].rstrip(".") + ".",
            f"reading stopped there, after {read} good ones",
            1.0,
            "correct it or leave it out; nothing can be calibrated before",
        )


def few(sweep: Sweep) -> Iterator[Finding]:
    """There are too few samples."""
    count = len(sweep.glances)
    if sweep.broken is None and count < FEWEST:
        yield Finding(
            "few-samples",
            f"There {'is one sample' if count == 1 else f'are {count} samples'}, too few to know the ranges by.",
            f"counted; below {FEWEST} the extremes of single pictures set the ranges",
            0.9,
            "give 64 to 256 that are like those the model will see",
        )


def constant(sweep: Sweep) -> Iterator[Finding]:
    """Inputs, or single channels, that are the same everywhere."""
    if not sweep.glances:
        return
    flat = [glance.name for glance in sweep.glances if all(_is_flat(glance, name) for name in glance.low)]
    if flat:
        yield Finding(
            "constant-input",
            f"{len(flat)} of {len(sweep.glances)} samples hold one value throughout, such as {flat[0]}.",
            "counted",
            1.0,
            "leave them out, or find out why they are empty",
        )
    for name in sweep.glances[0].low:
        yield from _dead_channels(sweep, name, len(flat))


def _is_flat(glance: Glance, name: str) -> bool:
    return bool((glance.low[name] == glance.high[name]).all())


def _dead_channels(sweep: Sweep, name: str, flat: int) -> Iterator[Finding]:
    low = np.stack([glance.low[name] for glance in sweep.glances])
    high = np.stack([glance.high[name] for glance in sweep.glances])
    dead = low.min(axis=0) == high.max(axis=0)
    if not dead.any() or flat == len(sweep.glances):
        return
    numbers = ", ".join(map(str, np.flatnonzero(dead)))
    value = ", ".join(f"{v:g}" for v in low[0, dead])
    yield Finding(
        "dead-channel",
        f"Channel {numbers} of input '{name}' holds one value ({value}) in every sample.",
        f"counted, in {len(sweep.glances)} samples",
        1.0,
        "find out where the channel is lost: its ranges would be measured on nothing",
    )


def alike(sweep: Sweep) -> Iterator[Finding]:
    """The same sample again and again, or nearly the same."""
    count = len(sweep.glances)
    if all(_is_flat(glance, name) for glance in sweep.glances for name in glance.low):
        return  # said already, and empty pictures are all alike
    groups = Counter(glance.digest for glance in sweep.glances)
    spare = count - len(groups)
    if count > 1 and spare >= MANY_TWINS * count:
        kinds = "all samples are the same" if len(groups) == 1 else f"only {len(groups)} of {count} samples differ"
        digest = groups.most_common(1)[0][0]
        names = [glance.name for glance in sweep.glances if glance.digest == digest]
        yield Finding(
            "duplicates",
            f"{kinds[:1].upper()}{kinds[1:]}.",
            f"counted; {names[0]} and {names[1]} are equal",
            1.0,
            "give each once, and more that differ",
        )
        return
    twins = twins_of(sweep.glances)
    if len(twins) >= MANY_TWINS * count:
        first, second = (sweep.glances[index].name for index in twins[0])
        yield Finding(
            "near-duplicates",
            f"{len(twins)} of {count} samples look like one before them, as frames of a video do.",
            f"shrunk to 16 x 16 they differ by less than {NEAR:.1%} of the range, such as {first} and {second}",
            0.9,
            "take every tenth frame, or pictures of other scenes",
        )


def twins_of(glances: Sequence[Glance]) -> list[tuple[int, int]]:
    """Return the samples that are equal to one before them or look like it: pairs of (that one, sample)."""
    thumbs = [glance.thumb for glance in glances if glance.thumb is not None]
    if len(thumbs) < len(glances):
        digests = [glance.digest for glance in glances]
        first = [digests.index(digest) for digest in digests]
        return [(before, index) for index, before in enumerate(first) if before < index]
    if not thumbs:
        return []
    pictures: Array = np.stack(thumbs)
    span = np.ptp(pictures, axis=(0, 1, 2))  # of each channel: normalization shifts and scales them differently
    table = (pictures / np.where(span > 0, span, 1.0)).reshape(len(thumbs), -1)
    found = []
    for index in range(1, len(table)):
        distances = np.sqrt(((table[:index] - table[index]) ** 2).mean(axis=1))
        nearest = int(distances.argmin())
        if distances[nearest] <= NEAR:
            found.append((nearest, index))
    return found


def small(sweep: Sweep) -> Iterator[Finding]:
    """Pictures that are much smaller than the input."""
    scales = [max(glance.image.scale) for glance in sweep.glances if glance.image is not None]
    if scales and float(np.median(scales)) >= ENLARGED:
        yield Finding(
            "small-pictures",
            f"The pictures are enlarged {float(np.median(scales)):.1f} times to fit the input: thumbnails?",
            f"median of {len(scales)} pictures",
            0.7,
            "give the pictures in the size that the model will see",
        )


@dataclass(frozen=True)
class Size:
    """The size that an input is run at, and the one that the metadata name; each (height, width)."""

    spec: InputSpec
    run: tuple[int, int]
    trained: tuple[int, int]


def other_size(size: Size | None) -> Iterator[Finding]:
    """The model is run at another size than it was trained at."""
    if size is None or size.run == size.trained:
        return
    run, trained = (f"{height} x {width}" for height, width in (size.run, size.trained))
    yield Finding(
        "input-size",
        f"The model is run at {run}, and its metadata says that it was trained at {trained}.",
        "its 'imgsz'",
        0.8,
        f"run '{size.spec.name}' at {trained}, unless the model will be used at {run}",
    )
