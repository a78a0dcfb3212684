"""What the model says of one input, through the decoders: objects, probabilities of classes, or nothing understood."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxopt.data import Array, Feeds
from onnxopt.evaluation.decoding import Detections, Reader, Thresholds, class_names
from onnxopt.evaluation.decoding.dense import Dense

# Objects of less confidence weigh nothing in a mean of confidences.
WORTH_COUNTING = Thresholds(0.05, every_class=False)


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Of a classifier's classes, float64[c]."""

    values: Array


Reading: TypeAlias = Detections | Probabilities


class Interpreter:
    """Reads the outputs of one model.

    Args:
        metadata: The model's `metadata_props`.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.names = class_names(metadata)
        self._reader = Reader(metadata)

    def read(self, outputs: Feeds, feeds: Feeds) -> Reading | None:
        """Return what the outputs say, or None if that is not understood."""
        if any(not np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
            return None
        objects = self._reader.objects(outputs, feeds, WORTH_COUNTING)
        if objects is not None:
            return objects
        scores = self._reader.classes(outputs, feeds)
        return Probabilities(as_probabilities(scores[0])) if scores is not None else None

    def is_yolox(self, outputs: Feeds, feeds: Feeds) -> bool:
        """Whether boxes come as YOLOX gives them: objectness and classes for one box per cell."""
        decoder = self._reader.decoder(outputs, feeds)
        return isinstance(decoder, Dense) and decoder.objectness and bool(decoder.strides)

    def class_count(self, outputs: Feeds, feeds: Feeds) -> int | None:
        """Number of classes that the model tells apart, where the outputs say."""
        decoder = self._reader.decoder(outputs, feeds)
        return decoder.class_count if decoder is not None else None


def as_probabilities(scores: Array) -> Array:
    """Return scores as probabilities: as they are if they are that already, else their softmax."""
    values = np.asarray(scores, np.float64)
    if values.min() >= 0 and abs(values.sum() - 1) < 1e-2:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
