"""Runs the float model on the same samples in several preparations, and says which of two suits it better."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from onnxopt.data import Array, Boxes, Feeds, InputSpec, Preprocess, Sample
from onnxopt.data.images import image_layout
from onnxopt.doctor.batch_norm import TrainingStatistics
from onnxopt.doctor.instruments import INSTRUMENTS, Instrument, Seen
from onnxopt.doctor.paired import chance
from onnxopt.doctor.reading import Interpreter
from onnxopt.doctor.views import View
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Detections
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.evaluation.metrics.categories import category_ids
from onnxopt.runtime.adapter import Session

NOISE = 0.01  # a chance below this is not put down to noise
FIRST = 12  # samples on which a preparation has to look better, before the others are run


@dataclass(frozen=True)
class Comparison:
    """How one preparation compares with another.

    Attributes:
        chance: That it only looks better by chance, for the instrument that likes it best, times the number of
            instruments asked; 1 where one speaks against it.
        against: Whether one does, beyond noise.
        gain: Mean difference of that instrument, in units of the least that matters.
        says: What that instrument saw.
    """

    chance: float
    against: bool
    gain: float
    says: str


class Trials:
    """The float model on samples that can be prepared in several ways; each preparation is run once.

    Args:
        session: The model, with the tensor of `statistics` among its outputs.
        reader: Reads its outputs.
        inputs: Its inputs.
        view: The samples.
        statistics: What its first BatchNormalization knows, if it has one.
    """

    def __init__(
        self,
        session: Session,
        reader: Interpreter,
        inputs: Sequence[InputSpec],
        view: View,
        statistics: TrainingStatistics | None,
    ) -> None:
        self.session, self.reader, self.inputs, self.view = session, reader, inputs, view
        self.statistics = statistics
        self.class_count: int | None = None
        self.is_yolox = False
        self.mismatch: str | None = None  # why the labels' categories are not the model's classes
        self.category_names: dict[int, str] = {}  # model class to the labels' name for it
        self._positions: dict[int, int] | None = None
        self._seen: dict[Preprocess, list[Seen]] = {}
        self._whole: set[Preprocess] = set()  # those of which all samples were seen
        self._first: Sample | None = None

    def seen(self, preprocess: Preprocess, count: int | None = None) -> list[Seen]:
        """What the model makes of each sample, or of the first ones."""
        known = self._seen.setdefault(preprocess, [])
        if preprocess not in self._whole and (count is None or len(known) < count):
            known += map(self._look, islice(self.view.samples(preprocess), len(known), count))
            if count is None:
                self._whole.add(preprocess)
        return known[:count]

    @property
    def useful(self) -> bool:
        """Whether anything can be told from what the model says."""
        return bool(self._asked(self.view.given, self.view.given, ranges=True, count=None))

    def promises(self, new: Preprocess, old: Preprocess, *, ranges: bool) -> bool:
        """Whether a preparation looks better than another on the first samples, as one does that is."""
        asked = self._asked(new, old, ranges=ranges, count=FIRST)
        return any(gain > 0 for instrument, _, gain in asked if not instrument.veto)

    def compare(self, new: Preprocess, old: Preprocess, *, ranges: bool) -> Comparison:
        """Say whether a preparation suits the model better than another.

        Args:
            new: The one that may be better.
            old: The other.
            ranges: Whether the two differ in the range of values.
        """
        asked = self._asked(new, old, ranges=ranges, count=None)
        against = any(chance(-difference) < NOISE and gain <= -1 for _, difference, gain in asked)
        voices = [(chance(d), -gain, i) for i, d, gain in asked if not i.veto]
        heard = sorted((voice for voice in voices if -voice[1] >= 1), key=lambda voice: voice[:2])
        if not heard:
            return Comparison(1.0, against, 0.0, "no difference that could not be chance")
        by_chance, loss, instrument = heard[0]
        before, after = (float(np.nanmean(instrument.scores(self.seen(p)))) for p in (old, new))
        corrected = min(1.0, by_chance * len(voices))
        says = (
            f"{instrument.says} goes from {before:.3f} to {after:.3f}, "
            f"mean of {len(self.seen(new))} samples, by chance {corrected:.1g}"
        )
        return Comparison(1.0 if against else corrected, against, -loss, says)

    def alike(self, a: Preprocess, b: Preprocess) -> bool:
        """Whether two preparations make the same inputs of the samples."""
        name = self.view.spec.name
        both = zip(self.view.samples(a), self.view.samples(b), strict=True)
        return all(np.allclose(x.feeds[name], y.feeds[name], rtol=1e-5, atol=1e-6) for x, y in both)

    def _asked(
        self, new: Preprocess, old: Preprocess, *, ranges: bool, count: int | None
    ) -> list[tuple[Instrument, Array, float]]:
        """Instruments that say something of both, with the differences and their mean in units of the least."""
        found = []
        for instrument in INSTRUMENTS:
            if instrument.ranges_only and not ranges:
                continue
            after, before = (instrument.scores(self.seen(p, count)) for p in (new, old))
            difference = after - before
            if np.isfinite(difference).any():
                found.append((instrument, difference, float(np.nanmean(difference)) / instrument.least))
        return found

    def _look(self, sample: Sample) -> Seen:
        feeds = fill_batch(sample.feeds, self.inputs)
        outputs = self.session.run(feeds)
        strangeness = self._strangeness(outputs)
        if self._first is None:
            self._learn(sample, outputs, feeds)
        reading = self.reader.read(self._own(outputs), feeds)
        mirrored = self._mirrored(feeds) if isinstance(reading, Detections) else None
        return Seen(reading, mirrored, strangeness, sample.label, sample.image, self._positions)

    def _own(self, outputs: Feeds) -> dict[str, Array]:
        return {n: a for n, a in outputs.items() if self.statistics is None or n != self.statistics.tensor}

    def _strangeness(self, outputs: Feeds) -> float | None:
        if self.statistics is None:
            return None
        found = self.statistics.strangeness(outputs[self.statistics.tensor])
        return found if np.isfinite(found) else None

    def _learn(self, sample: Sample, outputs: Feeds, feeds: Feeds) -> None:
        """Find out, once, what kind of model this is and which of its classes is which category."""
        self._first = sample
        own = self._own(outputs)
        self.class_count = self.reader.class_count(own, feeds)
        self.is_yolox = self.reader.is_yolox(own, feeds)
        if not isinstance(sample.label, Boxes):
            return
        categories = sample.label.categories
        try:
            ids = category_ids(categories, self.class_count, self.reader.names)
        except UsageError as error:
            self.mismatch = str(error)
            return
        position = {number: index for index, number in enumerate(categories.ids)}
        self._positions = {number: position[i] for number, i in ids.items() if i in position}
        self.category_names = {number: categories.names[place] for number, place in self._positions.items()}

    def _mirrored(self, feeds: Feeds) -> Detections | None:
        """What the model finds in the mirror image, mirrored back."""
        channels_last, _, _, width = image_layout(self.view.spec)
        axis = 2 if channels_last else 3
        flipped = {name: np.ascontiguousarray(np.flip(array, axis)) for name, array in feeds.items()}
        reading = self.reader.read(self._own(self.session.run(flipped)), flipped)
        if not isinstance(reading, Detections):
            return None
        xyxy = reading.xyxy.copy()
        xyxy[:, [0, 2]] = width - reading.xyxy[:, [2, 0]]
        return replace(reading, xyxy=xyxy)
