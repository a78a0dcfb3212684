"""How long things take, compared fairly.

Candidates are timed in one process in rounds; each round runs every candidate once, in an order that rotates, so that
a machine that slows down or speeds up does so for all of them. What is compared is the ratio within a round.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

import numpy as np
import numpy.typing as npt

SHORTEST = 1_000_000  # ns; what runs for less is timed several times over, or the clock would be measured
WARM_UP = 3  # runs of each candidate before anything counts: memory is mapped, caches and branch predictors fill


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
        candidates: Name to what is timed; calling it runs it once.
        rounds: How many rounds to time.
        seconds: Stop early once so much time has passed since the first round.
        least: Rounds that are timed even if that takes longer than `seconds`.
        clock: Returns nanoseconds.

    Raises:
        ValueError: No candidates, or no rounds.
    """
    if not candidates or rounds < 1:
        raise ValueError("nothing to measure: give at least one candidate and one round")
    with _no_garbage_collection():
        repeats = [_warm_up(run, clock) for run in candidates.values()]
        times = _rounds(list(candidates.values()), repeats, rounds=rounds, seconds=seconds, least=least, clock=clock)
    milliseconds = np.asarray(times, np.float64) / 1e6
    speedups = milliseconds[:, :1] / np.maximum(milliseconds, 1e-9)
    latencies = tuple(
        Latency(name, Spread.of(milliseconds[:, i]), Spread.of(speedups[:, i])) for i, name in enumerate(candidates)
    )
    return Comparison(latencies, len(times))


def _rounds(
    runs: list[Callable[[], object]],
    repeats: list[int],
    *,
    rounds: int,
    seconds: float | None,
    least: int,
    clock: Callable[[], int],
) -> list[list[float]]:
    """Nanoseconds per run: one list of all candidates per round."""
    times: list[list[float]] = []
    began = clock()
    for round_ in range(rounds):
        if seconds is not None and round_ >= least and clock() - began > seconds * 1e9:
            break
        taken = [0.0] * len(runs)
        for place in range(len(runs)):
            index = (place + round_) % len(runs)
            taken[index] = _time(runs[index], repeats[index], clock)
        times.append(taken)
    return times


def _time(run: Callable[[], object], repeats: int, clock: Callable[[], int]) -> float:
    """Nanoseconds of one run, over `repeats` of them."""
    began = clock()
    for _ in range(repeats):
        run()
    return (clock() - began) / repeats


def _warm_up(run: Callable[[], object], clock: Callable[[], int]) -> int:
    """Run a few times and return how many runs a measurement needs to last long enough."""
    quickest = min(_time(run, 1, clock) for _ in range(WARM_UP))
    return ceil(SHORTEST / max(quickest, SHORTEST / 1000))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
