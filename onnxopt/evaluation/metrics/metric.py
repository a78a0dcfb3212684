"""What a metric is, and the score of a model by one."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from onnxopt.data import Array, Feeds, Sample
from onnxopt.errors import OnnxoptError, OptimizationError, UsageError
from onnxopt.evaluation.evidence import Evidence, Ratio

PERCENT = 0.01  # one point of a score of 0..1


class Accumulator(Protocol):
    """Gathers samples and gives their score."""

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add what the model gave for one sample."""

    def compute(self) -> float:
        """Return the score of all samples so far."""


@runtime_checkable
class Resampled(Protocol):
    """An accumulator that can be computed again with some pictures counted more often."""

    def evidence(self) -> Evidence:
        """Return what the score is made of."""


@runtime_checkable
class Detailed(Protocol):
    """An accumulator that has more to say than its score."""

    def details(self) -> Mapping[str, Any]:
        """Return it by name, as a report has it."""


@dataclass(frozen=True)
class Metric:
    """A way to score a model; scoring twice starts twice.

    Attributes:
        name: What it is called in the report.
        start: Returns an empty accumulator.
        lower_is_better: Whether smaller values are better.
        point: What one point is: 0.01 of a score of 0..1 that is quoted in percent, 1 of any other.
    """

    name: str
    start: Callable[[], Accumulator]
    lower_is_better: bool = False
    point: float = 1.0


@dataclass(frozen=True)
class Score:
    """A model's score.

    Attributes:
        value: The score of the set.
        count: Number of samples.
        per_sample: Each sample's value, for metrics that are an average; None for others.
        gathered: What the score was computed from.
    """

    value: float
    count: int
    per_sample: list[float] | None = None
    gathered: Accumulator | None = None

    def evidence(self) -> Evidence | None:
        """What it was computed from, picture by picture; None for a metric that does not say."""
        return self.gathered.evidence() if isinstance(self.gathered, Resampled) else None

    def details(self) -> Mapping[str, Any]:
        """What else the metric has to say, such as the score of each class."""
        return self.gathered.details() if isinstance(self.gathered, Detailed) else {}


@dataclass
class Average:
    """The mean of a function of each sample."""

    function: Callable[[Feeds, Sample], float]
    values: list[float] = field(default_factory=list)

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one sample's value.

        Raises:
            ValueError: It is not a finite number.
        """
        value = float(self.function(outputs, sample))
        if not math.isfinite(value):
            raise ValueError(f"the metric is {value}")
        self.values.append(value)

    def compute(self) -> float:
        """Return the mean."""
        return math.fsum(self.values) / len(self.values)

    def evidence(self) -> Ratio:
        """Return the values as an average."""
        return Ratio.mean(self.values)


class Scoring:
    """Gathers what a model gave, sample by sample, and says which sample went wrong.

    Args:
        metric: What to measure.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._gathered = metric.start()
        self._count = 0

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one sample.

        Raises:
            UsageError: Its label is not what the metric needs.
            OptimizationError: An output or the metric is NaN, or the metric raised; the message names the sample.
        """
        where = str(sample.image.path) if sample.image else f"sample {self._count}"
        for name, array in outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise OptimizationError(f"output '{name}' has NaN for {where}")
        try:
            self._gathered.update(outputs, sample)
        except OnnxoptError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # leaving would end the command with exit code 0
            raise OptimizationError(f"metric {self.metric.name} failed for {where}: {error!r}") from error
        self._count += 1

    def finish(self) -> Score:
        """Return the score.

        Raises:
            UsageError: There were no samples.
            OptimizationError: The metric raised, or is not finite.
        """
        name = self.metric.name
        if not self._count:
            raise UsageError(f"there are no samples to measure {name} on")
        try:
            value = float(self._gathered.compute())
        except OnnxoptError:
            raise
        except (Exception, SystemExit) as error:
            raise OptimizationError(f"metric {name} failed over {self._count} samples: {error!r}") from error
        if not math.isfinite(value):
            raise OptimizationError(f"metric {name} is {value} over {self._count} samples")
        per_sample = self._gathered.values if isinstance(self._gathered, Average) else None
        return Score(value, self._count, per_sample, self._gathered)


def score(metric: Metric, run: Callable[[dict[str, Array]], Feeds], dataset: Iterable[Sample]) -> Score:
    """Return the score of a model on a data set.

    Args:
        metric: What to measure.
        run: Runs the model: feeds to outputs, both by name.
        dataset: Labelled samples.

    Raises:
        UsageError: There are no samples, or their labels are not what the metric needs.
        OptimizationError: An output or the metric is NaN, or the metric raised; the message names the sample.
    """
    scoring = Scoring(metric)
    for sample in dataset:
        scoring.update(run(sample.feeds), sample)
    return scoring.finish()
