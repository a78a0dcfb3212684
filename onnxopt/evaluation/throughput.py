"""Runs samples through models, several at once, and counts how long the models took."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.data import Feeds, InputSpec, Sample
from onnxopt.errors import UsageError
from onnxopt.graph import Array, Graph
from onnxopt.runtime.adapter import Session


def batch_size(graph: Graph, inputs: Sequence[InputSpec], asked: int | None) -> int:
    """How many samples a model is given at once.

    Args:
        graph: The model.
        inputs: Its inputs at the sizes it is run at.
        asked: By the user; default: what those say.

    Raises:
        UsageError: The model's batch is fixed, and not at what was asked for.
    """
    given = max((spec.shape[0] for spec in inputs if len(spec.shape) >= 2), default=1)
    if asked is None or asked == given:
        return given
    fixed = [t.name for t in graph.inputs if t.shape and len(t.shape) >= 2 and isinstance(t.shape[0], int)]
    if fixed:
        raise UsageError(
            f"input '{fixed[0]}' has a batch of {given}, so {asked} samples at once do not fit; "
            "leave --batch out, or export the model with a dynamic batch"
        )
    return asked


@dataclass
class Clock:
    """How long one model took.

    Attributes:
        seconds: In the runtime, over all timed runs.
        pictures: What these runs took in, with what filled the last one. The first run is left out where there are
            several: it warms up.
        runs: All runs.
    """

    seconds: float = 0.0
    pictures: int = 0
    runs: int = 0

    def add(self, seconds: float, pictures: int) -> None:
        """Count one run."""
        if self.runs == 1:
            self.seconds, self.pictures = 0.0, 0
        self.seconds += seconds
        self.pictures += pictures
        self.runs += 1

    @property
    def per_second(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds if self.seconds else 0.0


class Timed:
    """A session whose runs are counted.

    Args:
        session: The model.
        size: How many samples it is given at once.
    """

    def __init__(self, session: Session, size: int = 1) -> None:
        self.session, self.size, self.clock = session, size, Clock()

    def run(self, samples: Sequence[Sample]) -> list[dict[str, Array]]:
        """Run up to `size` samples at once; the last one fills what is missing. One dictionary each, batch of 1.

        Raises:
            UsageError: An output has no batch axis, so that its samples cannot be told apart.
            OptimizationError: The runtime failed.
        """
        feeds = self._together(samples)
        start = time.perf_counter()
        outputs = self.session.run(feeds)
        took = time.perf_counter() - start
        # A device says how long it took there; from here one would time the way to it, too.
        self.clock.add(getattr(self.session, "seconds", took), self.size)
        arrays = {name: values for name, values in outputs.items() if isinstance(values, np.ndarray)}
        if self.size == 1:
            return [arrays]
        for name, values in arrays.items():
            if not values.ndim or values.shape[0] != self.size:
                raise UsageError(
                    f"output '{name}' {list(values.shape)} has no batch of {self.size}, so samples that run together "
                    "cannot be told apart; leave --batch out"
                )
        return [{name: values[i : i + 1] for name, values in arrays.items()} for i in range(len(samples))]

    def _together(self, samples: Sequence[Sample]) -> Feeds:
        if self.size == 1:
            return samples[0].feeds
        filled = [*samples, *[samples[-1]] * (self.size - len(samples))]
        first = samples[0].feeds
        return {
            name: np.concatenate([sample.feeds[name] for sample in filled]) if value.ndim >= 2 else value
            for name, value in first.items()
        }


def run_all(models: Sequence[Timed], samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[dict[str, Array]]]]:
    """Yield each sample with what each model, all given equally many at once, made of it."""
    for together in groups(samples, models[0].size):
        outputs = [model.run(together) for model in models]
        for index, sample in enumerate(together):
            yield sample, [each[index] for each in outputs]


def groups(samples: Iterable[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """Yield the samples in groups of a size, the last one perhaps smaller."""
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
