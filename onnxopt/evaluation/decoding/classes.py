"""Classifiers: one score for each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from onnxopt.data import Array, Feeds
from onnxopt.evaluation.decoding.decoder import SCORING, Decoder, Family, Head, Task, Thresholds
from onnxopt.evaluation.decoding.readings import Classes


@dataclass(frozen=True)
class Classifier(Decoder):
    """Scores [1, classes], also [1, classes, 1, 1]."""

    class_count: int
    name: str = "classes"
    task: Task = "classify"

    def decode(self, outputs: Feeds, thresholds: Thresholds = SCORING) -> Classes:  # noqa: ARG002 - all are reported
        """Return all classes' scores."""
        scores = class_scores(outputs)
        assert scores is not None
        return Classes(scores[0])


def class_scores(outputs: Feeds) -> Array | None:
    """Return the scores float[N, C] of a classifier's outputs (also [N, C, 1, 1]), or None if there are none."""
    for array in outputs.values():
        is_vector = array.ndim >= 2 and prod(array.shape[2:]) == 1
        if is_vector and array.dtype.kind == "f" and array.shape[1] >= 2:
            return array.reshape(array.shape[:2])
    return None


def find_classifier(head: Head, options: Mapping[str, str]) -> Classifier | None:  # noqa: ARG001
    """Return the decoder of a classifier."""
    scores = class_scores(head.outputs)
    return Classifier(scores.shape[1]) if scores is not None else None


CLASSES = Family(find_classifier, "classifiers, [1, classes]", 90)
