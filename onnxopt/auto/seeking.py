"""Going from candidate to candidate until time is up or nothing is left that may pay."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxopt.auto.bench import Bench
from onnxopt.auto.search import Done, is_basic
from onnxopt.auto.trial import Failed, Outcome, Trial
from onnxopt.manager import Observer

Propose = Callable[[Done], str | None]
Tell = Callable[[str], None]
INTERRUPTED, TIME_UP = "interrupted", "the time limit was reached"


@dataclass
class Search:
    """Tries candidates one after the other.

    Attributes:
        benches: Target to bench.
        propose: What to try next.
        tell: Is told what is going on.
        observers: Watch the passes.
        deadline: When to stop, by the monotonic clock.
        shared: Artefacts that candidates use together.
        done: Target to pipeline to what came of it.
        reused: How many were known already.
    """

    benches: Mapping[str, Bench]
    propose: Propose
    tell: Tell
    observers: Sequence[Observer]
    deadline: float
    shared: Sequence[Any] = ()
    done: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    reused: int = 0
    _longest: float = 0.0

    @property
    def failed(self) -> list[Failed]:
        """Pipelines that gave no model."""
        return [o for done in self.done.values() for o in done.values() if isinstance(o, Failed)]

    def run(self) -> str:
        """Try all that may pay; returns why it ended early, or nothing."""
        self.done = {name: {} for name in self.benches}
        try:
            if len(self.benches) > 1:
                for name in self.benches:
                    self._follow(name, basic=True)
            return self._follow(self.fastest())
        except KeyboardInterrupt:
            return INTERRUPTED

    def _follow(self, name: str, *, basic: bool = False) -> str:
        done = self.done[name]
        while (passes := self.propose(done)) is not None:
            if basic and not is_basic(passes):
                return ""
            known = self.benches[name].known(passes)
            if known is None and done and time.monotonic() + self._longest > self.deadline:
                return TIME_UP
            done[passes] = self._recall(known) if known is not None else self._try(name, passes)
        return ""

    def _recall(self, outcome: Outcome) -> Outcome:
        self.reused += 1
        self.tell(f"{_spoken(outcome)}  (known)")
        return outcome

    def _try(self, name: str, passes: str) -> Outcome:
        outcome = self.benches[name].attempt(passes, self.observers, self.shared)
        self._longest = max(self._longest, outcome.seconds)
        self.tell(f"{_spoken(outcome)}  ({outcome.seconds:.0f} s)")
        return outcome

    def fastest(self) -> str:
        """The target on which a candidate that keeps the budget is the fastest."""
        latencies = {
            name: min((t.latency_ms for t in done.values() if isinstance(t, Trial) and t.verdict.met), default=None)
            for name, done in self.done.items()
        }
        known = {name: latency for name, latency in latencies.items() if latency is not None}
        return min(known, key=known.__getitem__) if known else next(iter(self.benches))


def _spoken(outcome: Outcome) -> str:
    """One line on a candidate."""
    if isinstance(outcome, Failed):
        return f"{outcome.passes} on {outcome.target}: {outcome.reason}"
    kept = "kept" if outcome.verdict.met else "missed"
    return (
        f"{outcome.passes} on {outcome.target}: {outcome.speedup:.2f} x, {outcome.bytes / 1e6:.2f} MB, "
        f"drop {outcome.verdict.drop:.4f} of {outcome.verdict.allowed:.4f} allowed: {kept}"
    )
