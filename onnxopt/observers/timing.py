"""Where the time went: the passes, and what watched them, as a tree."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from onnxopt.graph import Graph
from onnxopt.manager import Observer, Watcher
from onnxopt.pass_api import Context, Pass

BRIEF = 0.001  # seconds; an observer that takes less gets no line


@dataclass
class Spent:
    """Time under one name.

    Attributes:
        runs: How often.
        seconds: Altogether, without `parts`.
        parts: Observers to seconds that belong to it.
    """

    runs: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds, those of `parts` included."""
        return self.seconds + sum(self.parts.values())


class Timing(Watcher):
    """Times the passes and the observers that it is given to watch over.

    Args:
        observers: Called in this order; each one's time stands under the pass that it looked at.
        clock: Returns seconds.
    """

    def __init__(self, observers: Sequence[Observer] = (), clock: Callable[[], float] = time.perf_counter) -> None:
        self._observers = observers
        self._clock = clock
        self.passes: dict[str, Spent] = {}

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:
        """Hand on."""
        for observer in self._observers:
            with self._timed(step, observer):
                observer.before_pass(step, graph, context)

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
        """Take the pass's own time from its record, and hand on."""
        spent = self.passes.setdefault(step.name, Spent())
        spent.runs += 1
        spent.seconds += context.record.seconds
        for observer in self._observers:
            with self._timed(step, observer):
                observer.after_pass(step, before, after, context)

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:
        """Hand on."""
        for observer in self._observers:
            with self._timed(step, observer):
                observer.after_failure(step, before, context, error)

    @contextmanager
    def _timed(self, step: Pass, observer: Observer) -> Iterator[None]:
        parts = self.passes.setdefault(step.name, Spent()).parts
        name = type(observer).__name__.lower()
        began = self._clock()
        try:
            yield
        finally:
            parts[name] = parts.get(name, 0.0) + self._clock() - began

    def __str__(self) -> str:
        """The tree: seconds and share of the whole, a line per pass and one per observer under it."""
        whole = sum(spent.total for spent in self.passes.values())
        lines = [("total", whole)]
        for name, spent in self.passes.items():
            lines.append((f"  {name}" + (f" ({spent.runs} runs)" if spent.runs > 1 else ""), spent.total))
            if any(seconds >= BRIEF for seconds in spent.parts.values()):
                lines.append(("    itself", spent.seconds))
                lines += [(f"    {part}", seconds) for part, seconds in spent.parts.items() if seconds >= BRIEF]
        width = max(len(name) for name, _ in lines)
        share = 100 / whole if whole else 0.0
        return "\n".join(f"{name:<{width}} {seconds:9.3f} s {seconds * share:5.1f} %" for name, seconds in lines)
