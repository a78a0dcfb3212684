"""What happened, as data: filled while passes run, printed at the end, written as JSON."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class PassRecord:
    """One run of one pass.

    Attributes:
        name: The pass.
        options: Its options as they were used; what was `auto` is resolved here.
        effect: What the pass promised: exact, rounding or lossy.
        changed: Whether it changed the graph.
        seconds: Wall time of the pass itself, without verification.
        counts: What it did, e.g. `{"fused": 52}`.
        notes: What it left alone, and why: (node or tensor, reason).
        checks: What the observers found, e.g. `{"verify": "equal"}`.
        details: Further facts of this pass, JSON-able.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    effect: str = "exact"
    changed: bool = False
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageRecord:
    """One entry of the pipeline as the user wrote it.

    Attributes:
        text: The entry, e.g. `prune{ratio=0.3}`.
        steps: What ran: the step (`pipeline.Step`) and one record per run of a pass.
        kept: False where the stage was undone.
        reason: Why it was undone.
        latency: Milliseconds before and after, speed-up and its spread, where measured.
    """

    text: str
    steps: list[tuple[Any, list[PassRecord]]] = field(default_factory=list)
    kept: bool = True
    reason: str = ""
    latency: dict[str, float] | None = None

    @property
    def idle(self) -> str:
        """What there is to say where no pass changed the graph; empty where one did."""
        if any(record.changed for record in self.passes):
            return ""
        return "left the graph as it was" if any(record.counts for record in self.passes) else "changed nothing"

    @property
    def is_lossy(self) -> bool:
        """Whether it changed what the model gives."""
        return any(record.changed and record.effect == "lossy" for record in self.passes)

    @property
    def passes(self) -> list[PassRecord]:
        """All records in the order the passes ran."""
        return [record for _, records in self.steps for record in records]
