"""How close one model's outputs are to another's, gathered over samples in constant memory.

Scores of few pictures are noisy; agreement with the model before is not, since each sample is its own reference.

* SQNR = 10 · log10(Σ a² / Σ (a - b)²) dB, a being the reference: the power of the signal over that of the error.
* Cosine = Σ ab / √(Σ a² · Σ b²).
* Top-1 agreement: share of samples on which two classifiers prefer the same class.
* Detection agreement: 2 · matches / (detections of the one + of the other), the F1 of either as the other's truth.
  A match has the same class and an IoU of at least 0.5; only confident detections count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxopt.data import Array, Feeds, Sample
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.decoding import OBJECTS, SHOWING, Decoder, Detections, Reader, Text, class_scores, overlap

MATCH_IOU = 0.5


@dataclass(frozen=True)
class OutputDistance:
    """How far one output is from its reference.

    Attributes:
        sqnr_db: Signal to quantization noise, in dB; inf where equal, NaN where nothing could be compared.
        cosine: Cosine of the angle between both, -1..1; NaN where one of them is zero.
        max_error: Largest absolute difference of any element.
        mismatched: Samples whose shapes differed, which the other values leave out.
    """

    sqnr_db: float
    cosine: float
    max_error: float
    mismatched: int = 0


@dataclass
class DistanceSums:
    """The sums that an `OutputDistance` follows from; float64, so that a million samples add up."""

    signal: float = 0.0
    other: float = 0.0
    error: float = 0.0
    product: float = 0.0
    max_error: float = 0.0
    compared: int = 0
    mismatched: int = 0

    def update(self, reference: Array, other: Array) -> None:
        """Add one sample's output of both models; the same infinity in both is no error."""
        if reference.shape != other.shape:
            self.mismatched += 1
            return
        a = np.asarray(reference, np.float64).ravel()
        b = np.asarray(other, np.float64).ravel()
        same = np.isinf(a) & (a == b)
        if same.any():
            a, b = a[~same], b[~same]
        # An infinity is reported through the sums, where it stays or becomes NaN.
        with np.errstate(invalid="ignore", over="ignore"):
            difference = a - b
            self.signal += float(a @ a)
            self.other += float(b @ b)
            self.error += float(difference @ difference)
            self.product += float(a @ b)
        if difference.size:
            self.max_error = float(np.maximum(self.max_error, np.abs(difference).max()))
        self.compared += 1

    def result(self) -> OutputDistance:
        """Return the distance over all samples so far."""
        if not self.compared:
            return OutputDistance(math.nan, math.nan, math.nan, self.mismatched)
        norms = math.sqrt(self.signal) * math.sqrt(self.other)
        cosine = self.product / norms if norms > 0 else math.nan
        return OutputDistance(decibels(self.error, self.signal), cosine, self.max_error, self.mismatched)


def decibels(noise: float, signal: float = 1.0) -> float:
    """SQNR in dB of two powers: infinite without noise, NaN where one is no number."""
    if noise == 0:
        return math.inf
    ratio = signal / noise
    return 10 * math.log10(ratio) if ratio > 0 else (-math.inf if ratio == 0 else math.nan)


def worst_sqnr(references: Sequence[Feeds], others: Sequence[Feeds]) -> float:
    """SQNR in dB of the float output that suffers most; infinite where all are equal or none is float."""
    worst = np.inf
    for name, values in references[0].items():
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            continue
        sums = DistanceSums()
        for reference, other in zip(references, others, strict=True):
            sums.update(reference[name], other[name])
        sqnr = sums.result().sqnr_db
        worst = min(worst, sqnr if np.isfinite(sqnr) or sqnr > 0 else -np.inf)
    return float(worst)


@dataclass(frozen=True)
class Agreement:
    """How well two models agree.

    Attributes:
        outputs: Distance of each output, in the reference's order.
        samples: How many samples were compared.
        top1: Share of equal top classes, 0..1; None for models that are no classifiers.
        detections: F1 of the confident detections, 0..1; None for models that are no known detectors, and where
            neither model found anything.
        texts: Share of equal texts, 0..1; None for models that read none.
        answers: How many classes or texts, or confident detections of either model on average, were compared.
        parts: The same distances with outputs taken apart whose columns mean different things, such as a detector's
            boxes and scores.
    """

    outputs: dict[str, OutputDistance]
    samples: int
    top1: float | None
    detections: float | None
    texts: float | None = None
    answers: float = 0.0
    parts: dict[str, OutputDistance] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """Share of equal answers, of whichever kind the model gives; None for models that give none known."""
        return next((v for v in (self.detections, self.top1, self.texts) if v is not None), None)

    @property
    def worst_sqnr_db(self) -> float:
        """SQNR of the output that suffers most, in dB; NaN if that of any is."""
        values = [distance.sqnr_db for distance in self.outputs.values()]
        return math.nan if not values or any(map(math.isnan, values)) else min(values)


@dataclass
class Comparison:
    """Compares two models' outputs sample by sample.

    Attributes:
        metadata: The reference model's `metadata_props`, from which the kind of detector is told.
        decode: Decoder that the user named; None: found.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    decode: str | None = None
    _outputs: dict[str, DistanceSums] = field(default_factory=dict)
    _parts: dict[str, DistanceSums] = field(default_factory=dict)
    _samples: int = 0
    _classified: int = 0
    _same_class: int = 0
    _matches: int = 0
    _detections: int = 0
    _read: int = 0
    _same_text: int = 0
    _reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self.metadata, self.decode)

    def update(self, reference: Feeds, other: Feeds, sample: Sample) -> None:
        """Add what both models gave for one sample.

        Raises:
            OptimizationError: The other model lacks an output.
        """
        for name, array in reference.items():
            if name not in other:
                raise OptimizationError(f"the model to compare has no output '{name}'")
            self._outputs.setdefault(name, DistanceSums()).update(array, other[name])
        wanted, given = (self._reader.parts(outputs, sample.feeds) for outputs in (reference, other))
        for name, array in wanted.items():
            self._parts.setdefault(name, DistanceSums()).update(array, given.get(name, np.zeros(0)))
        self._samples += 1
        decoder = self._reader.decoder(reference, sample.feeds)
        if decoder is None:
            return
        if decoder.task == "classify":
            self._compare_classes(reference, other)
        elif decoder.task in OBJECTS:
            self._compare_objects(reference, other, decoder)
        elif decoder.task == "text" and not other_shapes(reference, other):
            self._read += 1
            self._same_text += read_text(decoder, reference) == read_text(decoder, other)

    def result(self) -> Agreement:
        """Return the agreement over all samples so far."""
        return Agreement(
            outputs={name: sums.result() for name, sums in self._outputs.items()},
            samples=self._samples,
            top1=self._same_class / self._classified if self._classified else None,
            detections=2 * self._matches / self._detections if self._detections else None,
            texts=self._same_text / self._read if self._read else None,
            answers=self._detections / 2 or self._classified or self._read,
            parts={name: sums.result() for name, sums in self._parts.items()},
        )

    def _compare_classes(self, reference: Feeds, other: Feeds) -> None:
        a, b = class_scores(reference), class_scores(other)
        if a is None or b is None or a.shape != b.shape:
            return
        self._classified += len(a)
        self._same_class += int((a.argmax(axis=1) == b.argmax(axis=1)).sum())

    def _compare_objects(self, reference: Feeds, other: Feeds, decoder: Decoder) -> None:
        if other_shapes(reference, other):
            return
        matches, detections = compare_objects(reference, other, decoder)
        self._matches += matches
        self._detections += detections


def other_shapes(reference: Feeds, other: Feeds) -> bool:
    """Whether outputs differ so much that one decoder cannot read both; tables may be longer or shorter."""
    return any(v.ndim != other[name].ndim or v.shape[-1:] != other[name].shape[-1:] for name, v in reference.items())


def read_text(decoder: Decoder, outputs: Feeds) -> str:
    """What a model of characters read."""
    read = decoder.decode(outputs)
    assert isinstance(read, Text)
    return read.text


def compare_objects(reference: Feeds, other: Feeds, decoder: Decoder) -> tuple[int, int]:
    """Return how many confident objects both models found, and how many they found together."""
    a, b = (decoder.decode(outputs, SHOWING) for outputs in (reference, other))
    assert isinstance(a, Detections)
    assert isinstance(b, Detections)
    return count_matches(a, b), len(a) + len(b)


def count_matches(a: Detections, b: Detections) -> int:
    """Return how many detections of `a` are also in `b`, each of `b` serving once, confident ones first."""
    fits = overlap(a.xyxy, b.xyxy) * (a.classes[:, None] == b.classes[None, :])
    matches = 0
    for row in fits:
        if row.size and row.max() >= MATCH_IOU:
            matches += 1
            fits[:, row.argmax()] = 0.0
    return matches
