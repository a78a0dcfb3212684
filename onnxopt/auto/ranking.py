"""The final comparison: all candidates and the model as given, interleaved in one process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxopt.auto.bench import Bench
from onnxopt.auto.store import Store, key_of
from onnxopt.auto.trial import Trial
from onnxopt.runtime.adapter import prepared
from onnxopt.runtime.latency import Comparison, Latency, Spread, compare

ROUNDS, SECONDS = 40, 60.0
QUIET = 20.0  # percent of spread; a comparison on a busier machine is made again the next time
GIVEN = "as given"


@dataclass(frozen=True)
class Ranking:
    """Candidates timed together.

    Attributes:
        given: Latency of the model as given, in ms, and its spread; on the first of the targets.
        trials: The candidates with the latencies of this comparison, the fastest first.
        rounds: How many rounds were timed.
    """

    given: Spread
    trials: tuple[Trial, ...]
    rounds: int


def rank(benches: Mapping[str, Bench], trials: Sequence[Trial], store: Store) -> Ranking:
    """Time candidates against each other; a comparison of the same ones is not made again if the machine was quiet.

    Args:
        benches: Target to bench; the model as given runs on the first.
        trials: The candidates.
        store: Keeps comparisons.
    """
    keys = [benches[t.target].key(t.passes) for t in trials]
    first = next(iter(benches.values()))
    kept_under = key_of({"ranking": keys, "given": first.key("")})
    comparison = _known(store.get_values(kept_under), 1 + len(trials))
    if comparison is None:
        comparison = _compare(benches, trials)
        if all(latency.milliseconds.percent <= QUIET for latency in comparison.latencies):
            store.put_values(kept_under, asdict(comparison))
    given, *others = comparison.latencies
    timed = [_timed(trial, latency) for trial, latency in zip(trials, others, strict=True)]
    return Ranking(given.milliseconds, tuple(sorted(timed, key=lambda t: -t.speedup)), comparison.rounds)


def as_tried(benches: Mapping[str, Bench], trials: Sequence[Trial]) -> Ranking:
    """The same from what each took when it was tried, where there is no time for a comparison."""
    first = next(iter(benches.values()))
    middle = sorted(t.latency_ms * t.speedup for t in trials if t.target == first.target)
    given = Spread(middle[len(middle) // 2], 0.0)
    return Ranking(given, tuple(sorted(trials, key=lambda t: -t.speedup)), 0)


def _compare(benches: Mapping[str, Bench], trials: Sequence[Trial]) -> Comparison:
    first = next(iter(benches.values()))
    feeds = first.feeds
    runs = {GIVEN: prepared(first.subject.open(first.runtime), feeds)}
    for trial in trials:
        bench = benches[trial.target]
        runs[f"{trial.passes} on {trial.target}"] = prepared(bench.runtime.open(bench.model_of(trial.passes)), feeds)
    return compare(runs, rounds=ROUNDS, seconds=SECONDS)


def _known(values: Mapping[str, Any] | None, count: int) -> Comparison | None:
    """A comparison of so many from what is kept of it; None where nothing is, or where that makes no sense."""
    try:
        latencies = tuple(map(_latency, values["latencies"])) if values is not None else ()
        return Comparison(latencies, int(values["rounds"])) if values is not None and len(latencies) == count else None
    except (KeyError, TypeError, ValueError):
        return None


def _latency(values: Mapping[str, Any]) -> Latency:
    """From what is kept of it; see `_known` for what may be raised."""
    return Latency(str(values["name"]), _spread(values["milliseconds"]), _spread(values["speedup"]))


def _spread(values: Mapping[str, Any]) -> Spread:
    return Spread(float(values["median"]), float(values["spread"]))


def _timed(trial: Trial, latency: Latency) -> Trial:
    return replace(
        trial,
        latency_ms=latency.milliseconds.median,
        latency_spread_ms=latency.milliseconds.spread,
        speedup=latency.speedup.median,
        spread=latency.speedup.spread,
    )
