"""The report of one run: what the end table shows and what `--report` writes as JSON.

The JSON follows `schema.json` beside this file; `schema_version` is raised when a field changes its meaning.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxopt.report.record import PassRecord, StageRecord

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("schema.json")


@dataclass
class Measured:
    """One model, before or after.

    Attributes:
        bytes: Size of the file.
        parameters: Elements of its initializers.
        macs: Multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul at the size it was run at.
        latency_ms: Median on the target, one thread; None where not measured.
        latency_spread_ms: Half the distance between the quartiles.
        score: By the user's metric; None without one.
        int8_share: Share of the MACs that the runtime really computes in int8; None where unknown.
    """

    bytes: int
    parameters: int
    macs: int
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    score: float | None = None
    int8_share: float | None = None


@dataclass(frozen=True)
class Alone:
    """The model after one stage alone.

    Attributes:
        stages: The stage as it was written.
        bytes: Size of the file.
        macs: Multiply-accumulates.
        latency_ms: Median on the target, one thread.
        speedup: Over the model as given, all measured together.
        spread: Of the speed-up.
        score: By the user's metric; None without one.
        worst_sqnr_db: Of the output that differs most from the model as given, in dB.
    """

    stages: str
    bytes: int
    macs: int
    latency_ms: float
    speedup: float
    spread: float
    score: float | None
    worst_sqnr_db: float


@dataclass
class RunReport:
    """Everything that a run has to say.

    Attributes:
        model: Source, digest of the input file, output paths.
        target: Name, runtime and its version, or why it was not measured.
        inputs: Shapes the model was run at.
        data: Source, digest, counts, whether it was synthetic.
        recipe: The resolved recipe, as TOML.
        before: The input model.
        after: The output model.
        speedup: Latency before / after, measured together, and its spread; None where not measured.
        quality: SQNR in dB, cosine and largest error per output, agreement, on held-out inputs.
        metric: Name of the metric, or None.
        gates: How each gate of `--require` went; a report is of a run that kept them.
        budget: The verdict on `--max-drop` and what was kept float; None without one.
        stages: What ran.
        alone: Each lossy stage by itself, between the model as given and all of them; empty for fewer than two.
        unfused: Weighted layers that run in float: name, MACs and reason.
        warnings: What a reader must know.
        environment: Versions and processor.
    """

    model: dict[str, Any]
    target: dict[str, Any]
    inputs: list[str]
    data: dict[str, Any]
    before: Measured
    recipe: str = ""
    after: Measured | None = None
    speedup: dict[str, float] | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    metric: str | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    budget: dict[str, Any] | None = None
    stages: list[StageRecord] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)
    unfused: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def agreement(self) -> float | None:
        """F1 of the objects that both models are sure of, share of equal top classes or texts; None for others."""
        found = (self.quality.get(kind) for kind in ("detections", "top1", "texts"))
        return next((share for share in found if share is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; what is not finite becomes None or a word."""
        fields = {k: v for k, v in self.__dict__.items() if k not in {"stages", "alone", "before", "after"}}
        document = {
            "schema_version": SCHEMA_VERSION,
            **fields,
            "before": asdict(self.before),
            "after": asdict(self.after) if self.after else None,
            "stages": [_stage(stage) for stage in self.stages],
            "alone": [asdict(row) for row in self.alone],
        }
        values: dict[str, Any] = plain(document)
        return values

    def to_json(self) -> str:
        """Text of the JSON file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def kept_float(stages: Iterable[StageRecord]) -> dict[str, Any]:
    """Layers that a pass kept float for accuracy's sake, and their share of the MACs."""
    layers = [
        layer
        for stage in stages
        if stage.kept
        for record in stage.passes
        for layer in record.details.get("kept_float", ())
    ]
    return {"kept_float": layers, "kept_float_share": float(sum(layer["share"] for layer in layers))}


def is_report(file: Path) -> bool:
    """Whether a file looks like one that `to_json` wrote; its beginning tells."""
    try:
        with file.open("rb") as stream:
            return b'"schema_version"' in stream.read(64)
    except OSError:
        return False


def _stage(stage: StageRecord) -> dict[str, Any]:
    return {
        "text": stage.text,
        "kept": stage.kept,
        "reason": stage.reason,
        "latency": stage.latency,
        "passes": [_pass(record) for record in stage.passes],
    }


def _pass(record: PassRecord) -> dict[str, Any]:
    notes = [{"where": where, "reason": reason} for where, reason in record.notes]
    return {**asdict(record), "notes": notes}


def plain(value: Any) -> Any:
    """A value as strict JSON has it: NaN becomes None, infinities a word, arrays' numbers plain ones."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return value.item() if hasattr(value, "item") else str(value)
