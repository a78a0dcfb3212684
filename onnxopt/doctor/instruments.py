"""How well a model gets on with a preparation: scores per sample, of which the float model itself is the instrument.

1. `labels`: of a classifier the probability of the labelled class; of a detector 2 · Σ hits / (Σ confidences + labels),
   the confidence of each hit counted: an F1 that needs no threshold.
2. `mirror`, for detectors: what it finds in a picture and in its mirror image agrees, if it sees what is there. The sum
   over pairs of the lower confidence, twice, over the sum of all confidences and 1. A model fed nonsense is silent, or
   fires everywhere, but not in mirror images.
3. `variety`, for classifiers: KL divergence of a sample's probabilities from their mean over all samples. Its mean is
   the information that the outputs carry of the inputs. A model fed nonsense says the same of everything.
4. `certainty`, for classifiers: entropy of the probabilities, negated. It says nothing for a preparation (nonsense may
   saturate a model), only against one.
5. `batch-norm`: see `batch_norm`. Of ranges only.

None of these is compared between models or samples, only between two preparations of one sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.data import Array, Boxes, ImageInfo
from onnxopt.doctor.reading import Probabilities, Reading
from onnxopt.evaluation.decoding import Detections, overlap

HIT = 0.5  # intersection over union
CONFIDENT = 0.4  # objects that may be taken for true


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model made of one prepared sample.

    Attributes:
        reading: What it says of it.
        mirrored: What it says of its mirror image, the boxes mirrored back; detectors only.
        strangeness: Distance from the statistics of its first BatchNormalization, where it has one.
        label: The sample's label.
        image: The picture behind it.
        classes: Detected class to position among the labels' categories, where it is known.
    """

    reading: Reading | None
    mirrored: Detections | None
    strangeness: float | None
    label: Any
    image: ImageInfo | None
    classes: dict[int, int] | None = None

    def confident(self) -> tuple[Array, Array]:
        """Return classes int64[n] and corners float64[n, 4], in pixels of the picture, of what is surely there."""
        if not isinstance(self.reading, Detections) or self.image is None:
            return np.zeros(0, np.int64), np.zeros((0, 4))
        kept = self.reading.scores >= CONFIDENT
        return self.reading.classes[kept], self.image.to_original(self.reading.xyxy[kept])


@dataclass(frozen=True)
class Instrument:
    """One way to score.

    Attributes:
        name: What it is called.
        says: The score in words, for the reason of a finding.
        scores: Of all samples, float[n]; NaN for samples of which it says nothing.
        least: A difference of the means that is too small to act on.
        ranges_only: It judges ranges of values alone.
        veto: It speaks only against a preparation.
    """

    name: str
    says: str
    scores: Callable[[Sequence[Seen]], Array]
    least: float
    ranges_only: bool = False
    veto: bool = False


def by_labels(seen: Sequence[Seen]) -> Array:
    """Score by the labels."""
    return np.asarray([_labelled(one) for one in seen])


def _labelled(one: Seen) -> float:
    if isinstance(one.reading, Probabilities):
        known = isinstance(one.label, int | np.integer) and one.label < len(one.reading.values)
        return float(one.reading.values[one.label]) if known else np.nan
    if not isinstance(one.reading, Detections) or not isinstance(one.label, Boxes) or one.image is None:
        return np.nan
    if one.classes is None:
        return np.nan
    wanted = ~one.label.crowd
    truth, kinds = one.label.xyxy[wanted], one.label.classes[wanted]
    found = np.asarray([one.classes.get(number, -1) for number in one.reading.classes.tolist()], np.int64)
    fits = overlap(truth, one.image.to_original(one.reading.xyxy)) * (kinds[:, None] == found[None, :])
    hits = sum(score for _, score in pairs(fits, one.reading.scores))
    total = float(one.reading.scores.sum()) + len(truth)
    return 2 * hits / total if total else np.nan


def by_mirror(seen: Sequence[Seen]) -> Array:
    """Score by what a picture and its mirror image have in common."""
    return np.asarray([_mirrored(one) for one in seen])


def _mirrored(one: Seen) -> float:
    if not isinstance(one.reading, Detections) or one.mirrored is None:
        return np.nan
    a, b = one.mirrored, one.reading
    fits = overlap(a.xyxy, b.xyxy) * (a.classes[:, None] == b.classes[None, :])
    common = sum(min(score, float(a.scores[partner])) for partner, score in pairs(fits, b.scores))
    return 2 * common / (float(a.scores.sum()) + float(b.scores.sum()) + 1)


def by_variety(seen: Sequence[Seen]) -> Array:
    """Score by how much a sample's probabilities differ from the mean."""
    table = _table(seen)
    if table is None:
        return np.full(len(seen), np.nan)
    return np.asarray((table * np.log((table + 1e-12) / (table.mean(axis=0) + 1e-12))).sum(axis=1))


def by_certainty(seen: Sequence[Seen]) -> Array:
    """Score by the entropy."""
    table = _table(seen)
    if table is None:
        return np.full(len(seen), np.nan)
    return np.asarray((table * np.log(table + 1e-12)).sum(axis=1))


def by_batch_norm(seen: Sequence[Seen]) -> Array:
    """Score by the statistics of training."""
    return np.asarray([np.nan if one.strangeness is None else -one.strangeness for one in seen])


INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("labels", "agreement with the labels", by_labels, 0.02),
    Instrument("mirror", "agreement of each picture with its mirror image", by_mirror, 0.02),
    Instrument("variety", "information in the outputs", by_variety, 0.05),
    Instrument("certainty", "certainty", by_certainty, 0.05, veto=True),
    Instrument("batch-norm", "likeness to the statistics of training", by_batch_norm, 0.1, ranges_only=True),
)


def pairs(fits: Array, scores: Array) -> list[tuple[int, float]]:
    """Return the row that each column is matched with, and the column's score; confident columns choose first.

    Args:
        fits: Intersection over union, 0 where two may not be paired, float[n, m].
        scores: Of the columns, float[m].
    """
    left = fits.copy()
    found = []
    for column in np.argsort(-scores, kind="stable") if fits.size else ():
        row = int(left[:, column].argmax())
        if left[row, column] >= HIT:
            found.append((row, float(scores[column])))
            left[row] = 0.0
    return found


def _table(seen: Sequence[Seen]) -> Array | None:
    """Probabilities of all samples, float[n, c]; None unless this is a classifier."""
    rows = [one.reading.values for one in seen if isinstance(one.reading, Probabilities)]
    return np.stack(rows) if rows and len(rows) == len(seen) else None
