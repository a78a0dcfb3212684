"""Which of the candidates to take.

Of those that keep the budget, and all gates (what is faster than the model as given by more than the noise goes before
what is not):

1. `balanced`, the pick: the fastest.
2. `safe`: the fastest whose drop keeps the budget by the upper end of its interval, too; where none does, the one
   whose interval ends lowest.
3. `small`: the smallest file; of equal ones the faster.

The Pareto front holds the candidates that are faster, by more than the noise, than all on it that lose less. Speed is
how many times faster than the model as given, round by round: what else the machine does falls out of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxopt.auto.trial import Trial


@dataclass(frozen=True)
class Picks:
    """What is handed back; two may be the same model."""

    safe: Trial
    balanced: Trial
    small: Trial

    def items(self) -> tuple[tuple[str, Trial], ...]:
        """Name to candidate, the safest first."""
        return ("safe", self.safe), ("balanced", self.balanced), ("small", self.small)

    def names(self, trial: Trial) -> list[str]:
        """The names under which a candidate is handed back."""
        return [name for name, picked in self.items() if picked is trial]


def choose(kept: Sequence[Trial]) -> Picks:
    """Pick from candidates that keep the budget and all gates; at least one."""
    sure = [trial for trial in kept if trial.surely_keeps]
    return Picks(
        safe=min(sure, key=_doubt) if sure else min(kept, key=lambda t: (t.highest_drop, *_doubt(t))),
        balanced=min(kept, key=_doubt),
        small=min(kept, key=lambda t: (t.bytes, *_doubt(t))),
    )


def fastest_by_target(kept: Iterable[Trial]) -> list[Trial]:
    """The fastest candidate of each target, the fastest first."""
    best: dict[str, Trial] = {}
    for trial in sorted(kept, key=_doubt):
        best.setdefault(trial.target, trial)
    return list(best.values())


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The Pareto front in speed and drop, the fastest first; of equal candidates the first.

    What loses more and is faster only inside the noise is not on it.
    """
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.verdict.drop, -t.speedup)):
        if all(trial.beats(other) for other in best):
            best.append(trial)
    return best[::-1]


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """One candidate per model and target: the one with the shortest pipeline, in the order given."""
    found: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        same = found.get((trial.digest, trial.target))
        if same is None or len(trial.passes) < len(same.passes):
            found[trial.digest, trial.target] = trial
    return list(found.values())


def _slowness(trial: Trial) -> tuple[float, float]:
    return -trial.speedup, trial.verdict.drop


def _doubt(trial: Trial) -> tuple[bool, float, float]:
    return not trial.latency.faster(), *_slowness(trial)
