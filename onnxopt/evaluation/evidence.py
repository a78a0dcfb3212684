"""What a score is made of, picture by picture, so that it can be computed again with some pictures counted more often.

An `Evidence` gives the score for weights w, w_i being how often picture i counts:

* `Ratio`: Σ w·n / Σ w·d, which a mean is (d = 1), and an F1 (n = 2 · matches, d = detections of both).
* `EnergyShare`: the smallest over the outputs of 1 - Σ w·e / Σ w·s, e being the energy of the error and s that of
  the reference; 0.99 is an SQNR of 20 dB.
* `AveragePrecision`: COCO's mean average precision, https://cocodataset.org/#detection-eval. Matching boxes is the
  slow part and is done once per picture; what is left is a sorted list of hits and false alarms per class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onnxopt.data import Array

BLOCK = 2_000_000  # elements of the largest intermediate array
ALL_AREAS, MOST_DETECTIONS = 0, 100  # of COCO's settings, those of the score that is quoted


class Evidence(Protocol):
    """A score that can be computed with weights."""

    @property
    def pictures(self) -> int:
        """How many pictures there are."""

    @property
    def work(self) -> int:
        """How many elements one computation takes, to bound how often it is done."""

    def values(self, weights: Array) -> Array:
        """Return the score for each row of weights, float64[r], from int64[r, pictures]."""


@dataclass(frozen=True)
class Ratio:
    """A sum over pictures divided by another, both float64[pictures]; 1 where the latter is 0."""

    numerators: Array
    denominators: Array

    @classmethod
    def mean(cls, values: Sequence[float]) -> "Ratio":
        """Return the mean of one value per picture."""
        return cls(np.asarray(values, np.float64), np.ones(len(values)))

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.numerators)

    @property
    def work(self) -> int:
        """One element per picture."""
        return self.pictures

    def values(self, weights: Array) -> Array:
        """Return Σ w·n / Σ w·d for each row of weights."""
        below = weights @ self.denominators
        return np.asarray(np.where(below > 0, weights @ self.numerators / np.where(below > 0, below, 1), 1.0))


@dataclass(frozen=True)
class EnergyShare:
    """How much of the outputs' energy is right: energies of error and reference, both float64[pictures, outputs]."""

    error: Array
    signal: Array

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.error)

    @property
    def work(self) -> int:
        """One element per picture and output."""
        return self.error.size

    def values(self, weights: Array) -> Array:
        """Return the smallest share of any output, never below 0, for each row of weights."""
        error, signal = weights @ self.error, weights @ self.signal
        # An output that is 0 everywhere is right if it stays so.
        share = np.where(signal > 0, 1 - error / np.where(signal > 0, signal, 1), error == 0)
        return np.asarray(np.clip(share, 0.0, 1.0).min(axis=1, initial=1.0))


@dataclass(frozen=True)
class _Class:
    """Detections of one class, the most confident first, and its real boxes.

    Attributes:
        picture: Which picture each detection is in, int64[d].
        hit: Whether it found a real box, per IoU threshold, bool[t, d].
        counts: Whether it counts at all; in a crowd it does not, bool[t, d].
        boxes: Number of real boxes of each picture, int64[pictures].
    """

    picture: Array
    hit: Array
    counts: Array
    boxes: Array

    def precision(self, weights: Array, recalls: Array) -> Array:
        """Return the average precision for each row of weights, float64[r]; NaN where there is no real box.

        At recall r the precision is the largest at any recall of at least r. Each detection stands for those of
        `recalls` that are reached with it and not before.
        """
        boxes = weights @ self.boxes
        if not len(self.picture):
            return np.where(boxes > 0, 0.0, np.nan)
        counted = weights[:, None, self.picture] * self.counts
        hits = np.cumsum(counted * self.hit, axis=2, dtype=np.float64)
        precision = hits / np.maximum(np.cumsum(counted, axis=2, dtype=np.float64), 1.0)
        precision = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
        reached = np.searchsorted(recalls, hits / np.maximum(boxes, 1)[:, None, None], side="right")
        areas = (np.diff(reached, axis=2, prepend=0) * precision).sum(axis=2) / len(recalls)
        return np.where(boxes > 0, areas.mean(axis=1), np.nan)


class AveragePrecision:
    """COCO's mean average precision over classes and IoU thresholds.

    Args:
        evaluation: A pycocotools `COCOeval` after `evaluate()`.
    """

    def __init__(self, evaluation: Any) -> None:
        settings = evaluation.params
        self.pictures = len(settings.imgIds)
        self._recalls = np.asarray(settings.recThrs)
        per_class = len(settings.areaRng) * self.pictures
        starts = [k * per_class + ALL_AREAS * self.pictures for k in range(len(settings.catIds))]
        self._classes = [_one_class(evaluation.evalImgs[s : s + self.pictures], len(settings.iouThrs)) for s in starts]

    @property
    def work(self) -> int:
        """One element per detection and IoU threshold."""
        return max(1, sum(c.hit.size for c in self._classes))

    def values(self, weights: Array) -> Array:
        """Return the mean average precision for each row of weights; 0 where no class has a real box."""
        rows = max(1, BLOCK // max([1, *(c.hit.size for c in self._classes)]))
        parts = [self._block(weights[i : i + rows]) for i in range(0, len(weights), rows)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _block(self, weights: Array) -> Array:
        each = np.array([c.precision(weights, self._recalls) for c in self._classes])
        there = ~np.isnan(each)
        return np.asarray(np.where(there, each, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def _one_class(pictures: Sequence[Any], thresholds: int) -> _Class:
    """Return what `COCOeval.evaluateImg` found for one class in each picture."""
    boxes = [0 if p is None else int(np.count_nonzero(np.asarray(p["gtIgnore"]) == 0)) for p in pictures]
    seen = [(i, p) for i, p in enumerate(pictures) if p is not None]
    scores = np.concatenate([np.asarray(p["dtScores"][:MOST_DETECTIONS]) for _, p in seen] or [np.zeros(0)])
    where = np.concatenate([np.full(len(p["dtScores"][:MOST_DETECTIONS]), i) for i, p in seen] or [np.zeros(0)])
    order = np.argsort(-scores, kind="mergesort")
    none = [np.zeros((thresholds, 0))]
    matches = np.concatenate([p["dtMatches"][:, :MOST_DETECTIONS] for _, p in seen] or none, axis=1)[:, order]
    ignored = np.concatenate([p["dtIgnore"][:, :MOST_DETECTIONS] for _, p in seen] or none, axis=1)[:, order]
    counts = ignored == 0
    hit = (matches != 0) & counts
    # False alarms behind the last hit change no precision that counts.
    last = int(np.flatnonzero(hit.any(axis=0)).max(initial=-1)) + 1
    return _Class(where[order][:last].astype(np.int64), hit[:, :last], counts[:, :last], np.asarray(boxes, np.int64))
