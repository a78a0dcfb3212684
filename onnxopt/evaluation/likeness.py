"""A score for models without labels: how far a model agrees with the float model, 1 being all the way.

1. Classifiers: share of samples on which both prefer the same class.
2. Detectors whose boxes can be read: F1 of the confident detections, the float model's being the truth.
3. Models that read text: share of equal texts.
4. Any other: share of the outputs' energy that is right, 1 - Σ (a - b)² / Σ a² of the output that suffers most, a
   detector's boxes and scores apart. 0.99 is an SQNR of 20 dB.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxopt.data import Array, Feeds, Sample
from onnxopt.evaluation.agreement import DistanceSums, compare_objects, other_shapes, read_text
from onnxopt.evaluation.decoding import OBJECTS, Decoder, Reader, class_scores
from onnxopt.evaluation.evidence import EnergyShare, Evidence, Ratio

KINDS = {
    "detections": "agreement with the float model (F1 of detections)",
    "classes": "agreement with the float model (top class)",
    "texts": "agreement with the float model (texts)",
    "energy": "agreement with the float model (share of output energy)",
}


@dataclass
class Likeness:
    """Gathers what both models gave, sample by sample.

    Attributes:
        metadata: The float model's `metadata_props`.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    _kind: str = ""
    _reader: Reader = field(init=False)
    _rows: list[tuple[Array, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = Reader(self.metadata)

    def update(self, reference: Feeds, other: Feeds, sample: Sample) -> None:
        """Add one sample's outputs of both models."""
        decoder = self._reader.decoder(reference, sample.feeds)
        self._kind = self._kind or _kind_of(decoder, reference)
        scores = [class_scores(outputs) for outputs in (reference, other)]
        if self._kind == "detections" and decoder is not None and decoder.task in OBJECTS:
            matches, detections = compare_objects(reference, other, decoder)
            self._add([2.0 * matches], [float(detections)])
        elif self._kind == "texts" and decoder is not None and decoder.task == "text":
            same = not other_shapes(reference, other) and read_text(decoder, reference) == read_text(decoder, other)
            self._add([float(same)], [1.0])
        elif self._kind == "classes" and scores[0] is not None and scores[1] is not None:
            same = scores[0].argmax(axis=1) == scores[1].argmax(axis=1)
            self._add([float(same.sum())], [float(same.size)])
        else:
            parts = (self._reader.parts(outputs, sample.feeds) for outputs in (reference, other))
            self._add(*_energies(*parts))

    def _add(self, first: list[float], second: list[float]) -> None:
        self._rows.append((np.array(first), np.array(second)))

    @property
    def name(self) -> str:
        """What was compared, in words."""
        return KINDS[self._kind]

    def evidence(self) -> Evidence:
        """Return the score's parts."""
        first, second = (np.array([row[i] for row in self._rows]) for i in range(2))
        if self._kind == "energy":
            return EnergyShare(first, second)
        return Ratio(first[:, 0], second[:, 0])


def _kind_of(decoder: Decoder | None, outputs: Feeds) -> str:
    task = decoder.task if decoder is not None else ""
    if task in OBJECTS:
        return "detections"
    if task == "text":
        return "texts"
    return "classes" if class_scores(outputs) is not None else "energy"


def _energies(wanted: Feeds, got: Feeds) -> tuple[list[float], list[float]]:
    """Energy of the error and of the reference, per part of the outputs; a wrong shape is all error."""
    error, signal = [], []
    for name, values in wanted.items():
        sums = DistanceSums()
        sums.update(values, got.get(name, np.zeros(0)))
        whole = float(np.sum(np.square(values, dtype=np.float64)))
        right = sums.compared and np.isfinite(sums.error)
        error.append(sums.error if right else whole)
        signal.append(whole)
    return error, signal
