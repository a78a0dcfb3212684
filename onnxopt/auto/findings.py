"""What a search found: candidates, picks, and what to say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxopt.auto.choice import Picks, front
from onnxopt.auto.trial import Failed, Trial
from onnxopt.report.findings import Findings as Beside
from onnxopt.runtime.latency import Spread

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Findings:
    """The outcome of a search.

    Attributes:
        model: Name of the file, without its ending.
        digest: SHA-256 of the model as given.
        bytes: Its size.
        parameters: Elements of its initializers.
        macs: Its multiply-accumulates.
        int8_share: Share of those that run in int8; None where that is not known.
        given: Its latency in ms.
        targets: Target to the version of its runtime.
        data: Where pictures come from, how many, and their digest.
        judged_on: What was scored on, in words.
        metric: What was scored; None: agreement with the float model.
        trials: Candidates, the fastest first.
        files: Their models, by pipeline and target.
        failed: Pipelines that gave no model.
        picks: What to take; None where no candidate keeps budget and gates.
        refused: For a candidate that kept the budget and missed gates: why, by its pipeline and target.
        left_out: What was not tried, and why.
        stopped: Why the search ended early, and how to go on; empty for a finished one.
        environment: Versions and processor.
        warnings: What a reader must know.
        seconds: How long it took, what an earlier search had done left out.
        reused: How many candidates an earlier search had done.
        beside: What a page shows of balanced beside the model as given; None where it was not measured.
    """

    model: str
    digest: str
    bytes: int
    parameters: int
    macs: int
    int8_share: float | None
    given: Spread
    targets: Mapping[str, str]
    data: Mapping[str, Any]
    judged_on: str
    metric: str | None
    trials: tuple[Trial, ...]
    files: Mapping[tuple[str, str], Path]
    failed: tuple[Failed, ...]
    picks: Picks | None
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    stopped: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    reused: int = 0
    beside: Beside | None = None

    @property
    def front(self) -> list[Trial]:
        """The Pareto front in latency and drop."""
        return front(self.trials)

    @property
    def kept(self) -> list[Trial]:
        """Candidates that keep the budget and all gates, the fastest first."""
        return [t for t in self.trials if t.verdict.met and (t.passes, t.target) not in self.refused]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        best = self.front
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "auto",
            "model": {
                "source": self.model,
                "digest": self.digest,
                "bytes": self.bytes,
                "parameters": self.parameters,
                "macs": self.macs,
                "int8_share": self.int8_share,
            },
            "given": {"latency_ms": self.given.median, "latency_spread_ms": self.given.spread},
            "targets": dict(self.targets),
            "data": {**self.data, "judged_on": self.judged_on},
            "metric": self.metric,
            "candidates": [
                {**t.to_dict(), "front": t in best, "picked": self.picks.names(t) if self.picks else []}
                for t in self.trials
            ],
            "failed": [vars(f) for f in self.failed],
            "refused": [{"passes": p, "target": t, "why": why} for (p, t), why in self.refused.items()],
            "left_out": list(self.left_out),
            "stopped": self.stopped,
            "environment": dict(self.environment),
            "warnings": list(self.warnings),
            "seconds": self.seconds,
            "reused": self.reused,
        }
