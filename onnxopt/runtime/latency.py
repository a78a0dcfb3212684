"""How long things take, compared fairly.

Candidates are timed in one process in rounds; each round runs every candidate once, in an order that rotates, so that
a machine that slows down or speeds up does so for all of them. What is compared is the ratio within a round. The
rounds themselves are `onnxopt.runtime.runner`'s, on this machine or on a device.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from onnxopt.runtime.runner import time_rounds


@runtime_checkable
class Elsewhere(Protocol):
    """A candidate on another machine, which times it: from here one would time the way there, too."""

    def time_together(
        self, runs: Sequence[Any], *, rounds: int, seconds: float | None, least: int
    ) -> list[list[float]]:
        """Time candidates that are all there, as `runner.time_rounds` does."""


@dataclass(frozen=True)
class Spread:
    """Middle and width of some measurements.

    Attributes:
        median: The middle one.
        spread: Half the distance between the quartiles.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Summarise measurements, float[n]."""
        low, middle, high = np.percentile(values, (25, 50, 75))
        return cls(float(middle), float(high - low) / 2)

    @property
    def percent(self) -> float:
        """The spread in percent of the median."""
        return 100 * self.spread / self.median if self.median else 0.0


@dataclass(frozen=True)
class Latency:
    """What one candidate took.

    Attributes:
        name: The candidate.
        milliseconds: Of one run.
        speedup: Time of the first candidate divided by this one's, round by round; above 1 is faster than the first.
    """

    name: str
    milliseconds: Spread
    speedup: Spread

    def faster(self) -> bool:
        """Whether it is faster than the first candidate by more than the measured spread."""
        return self.speedup.median - 1 > self.speedup.spread

    def slower(self) -> bool:
        """Whether it is slower than the first candidate by more than the measured spread."""
        return 1 - self.speedup.median > self.speedup.spread

    def __str__(self) -> str:
        time_ = f"{self.milliseconds.median:.3g} ms ± {self.milliseconds.percent:.0f} %"
        return f"{self.name}: {time_}, {self.speedup.median:.2f} x ± {self.speedup.spread:.2f}"


@dataclass(frozen=True)
class Comparison:
    """Candidates timed together.

    Attributes:
        latencies: In the order given; the others are compared with the first.
        rounds: How many rounds were timed.
    """

    latencies: tuple[Latency, ...]
    rounds: int

    def __getitem__(self, name: str) -> Latency:
        """The candidate of this name.

        Raises:
            KeyError: There is none.
        """
        for latency in self.latencies:
            if latency.name == name:
                return latency
        raise KeyError(name)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    seconds: float | None = None,
    least: int = 5,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Comparison:
    """Time candidates against each other.

    Args:
        candidates: Name to what is timed; calling it runs it once. `adapter.prepared` makes them of sessions.
        rounds: How many rounds to time.
        seconds: Stop early once so much time has passed since the first round.
        least: Rounds that are timed even if that takes longer than `seconds`.
        clock: Returns nanoseconds; a device has its own.

    Raises:
        ValueError: No candidates, or no rounds.
    """
    if not candidates or rounds < 1:
        raise ValueError("nothing to measure: give at least one candidate and one round")
    runs = list(candidates.values())
    limits: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "least": least}
    first = runs[0]
    if isinstance(first, Elsewhere):
        times = first.time_together(runs, **limits)
    else:
        times = time_rounds(runs, clock=clock, **limits)
    milliseconds = np.asarray(times, np.float64) / 1e6
    speedups = milliseconds[:, :1] / np.maximum(milliseconds, 1e-9)
    latencies = tuple(
        Latency(name, Spread.of(milliseconds[:, i]), Spread.of(speedups[:, i])) for i, name in enumerate(candidates)
    )
    return Comparison(latencies, len(times))
