"""The report of one evaluation: what `eval` prints, and what its `--report` writes as JSON."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxopt.evaluation.interval import Interval
from onnxopt.report.run import plain

KIND, VERSION = "onnxopt-evaluation", 1


@dataclass(frozen=True)
class Compared:
    """How far a model agrees with the float model.

    Attributes:
        model: Source, digest and bytes of the float model.
        score: Its score; None without a metric.
        drop: How much of that is lost, in the unit of the score; negative where the model is better.
        drop_interval: Where the drop probably lies; None for metrics that can only be computed over a whole set.
        top1: Share of samples on which classifiers prefer the same class; None for others.
        detections: F1 of the objects that both are sure of, after suppression; None for models that find none.
        texts: Share of equal texts; None for models that read none.
        parts: SQNR in dB of each output, those taken apart whose columns mean different things.
    """

    model: dict[str, Any]
    score: float | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    top1: float | None = None
    detections: float | None = None
    texts: float | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def worst_part(self) -> str:
        """Name of the part that suffers most; nothing where there is none."""
        return min(self.parts, key=lambda name: (not math.isnan(self.parts[name]), self.parts[name]), default="")

    @property
    def worst_sqnr_db(self) -> float | None:
        """Its SQNR in dB; None where there is none."""
        return self.parts[self.worst_part] if self.parts else None

    @property
    def share(self) -> float | None:
        """Agreement of what the models answer: of objects, classes or texts; None for other models."""
        return next((value for value in (self.detections, self.top1, self.texts) if value is not None), None)


@dataclass(frozen=True)
class Speed:
    """How fast samples went through the model.

    Attributes:
        per_second: Samples a second, in the runtime alone.
        milliseconds: Of one sample, in the runtime alone.
        batch: Samples at once.
        threads: Of the session.
        latency_ms: Median of one run, measured in rounds; None where no gate asked for it.
        latency_spread_ms: Half the distance between its quartiles.
        reference_ms: The same of the float model.
        speedup: Over the float model, measured together.
    """

    per_second: float
    milliseconds: float
    batch: int
    threads: int
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    reference_ms: float | None = None
    speedup: float | None = None


@dataclass
class Evaluation:
    """Everything that an evaluation has to say.

    Attributes:
        model: Source, digest of the file and bytes.
        target: Name, runtime and its version.
        inputs: Shapes the model was run at.
        data: Source, digest and number of samples.
        task: What the model does; None where no decoder is known.
        metric: Name; None without labels.
        lower_is_better: Whether smaller scores are better.
        point: What one point is, in the unit of the score.
        score: Of the model; None without labels.
        interval: Where its score probably lies on other pictures of this kind.
        details: What else the metric says: `map50`, `per_class` and so on.
        compared: With the float model; None without one.
        speed: How fast it went.
        gates: How each gate went.
        warnings: What a reader must know.
        environment: Versions and processor.
    """

    model: dict[str, Any]
    target: dict[str, Any]
    inputs: list[str]
    data: dict[str, Any]
    speed: Speed
    task: str | None = None
    metric: str | None = None
    lower_is_better: bool = False
    point: float = 1.0
    score: float | None = None
    interval: Interval | None = None
    details: dict[str, Any] = field(default_factory=dict)
    compared: Compared | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; what is not finite becomes None or a word."""
        document = {"kind": KIND, "schema_version": VERSION, **asdict(self)}
        if self.compared is not None:
            document["compared"] |= {
                "worst_part": self.compared.worst_part,
                "worst_sqnr_db": self.compared.worst_sqnr_db,
            }
        readable: dict[str, Any] = plain(document)
        return readable

    def to_json(self) -> str:
        """Text of the JSON file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
