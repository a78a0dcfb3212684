"""One candidate, measured: what is kept of it, and how it is written down."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, get_type_hints

from onnxopt.errors import OptimizationError
from onnxopt.evaluation.budget import Verdict
from onnxopt.evaluation.interval import Interval
from onnxopt.gates import Figure
from onnxopt.optimization import Result
from onnxopt.runtime.latency import Latency, Spread

PLAIN: Mapping[Any, tuple[type, ...]] = {  # type of a field to what JSON has for it
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (float, int),
    float | None: (float, int, NoneType),
    tuple[str, ...]: (list, tuple),
}
SAME = 60.0  # dB of SQNR: float arithmetic in another order


@dataclass(frozen=True)
class Trial:
    """A pipeline that was run, and what its model is worth.

    Attributes:
        passes: The pipeline as text.
        target: Name of the target.
        digest: Of the graph; equal ones are the same model.
        bytes: Size of the model file.
        parameters: Elements of its initializers.
        macs: Multiply-accumulates.
        latency_ms: Median on the target, one thread.
        latency_spread_ms: Half the distance between the quartiles.
        speedup: Latency of the model as given / latency, measured together.
        spread: Of the speed-up.
        verdict: What the model lost, with its interval, and whether that keeps to the budget.
        agreement: Share of equal top classes, or F1 of confident detections; None for other models.
        sqnr_db: Of the output that suffers most.
        kept_float: Share of the MACs that stay float for the budget's sake.
        undone: What was undone, and why.
        recipe: The resolved recipe, as TOML.
        seconds: How long it took.
        int8_share: Share of the MACs that the runtime computes in int8; None where not known.
    """

    passes: str
    target: str
    digest: str
    bytes: int
    parameters: int
    macs: int
    latency_ms: float
    latency_spread_ms: float
    speedup: float
    spread: float
    verdict: Verdict
    agreement: float | None
    sqnr_db: float
    kept_float: float
    undone: tuple[str, ...]
    recipe: str
    seconds: float
    int8_share: float | None = None

    @classmethod
    def of(cls, result: Result, passes: str, seconds: float) -> "Trial":
        """What one optimization under a budget gave.

        Raises:
            OptimizationError: Its latency was not measured.
        """
        report, after = result.report, result.report.after
        if after is None or after.latency_ms is None or after.latency_spread_ms is None or report.speedup is None:
            raise OptimizationError(f"latency was not measured: {report.target['why_not_measured']}")
        budget = report.budget or {}
        return cls(
            passes=passes,
            target=report.target["name"],
            digest=result.graph.digest(),
            bytes=after.bytes,
            parameters=after.parameters,
            macs=after.macs,
            latency_ms=after.latency_ms,
            latency_spread_ms=after.latency_spread_ms,
            speedup=report.speedup["median"],
            spread=report.speedup["spread"],
            verdict=_verdict(budget),
            agreement=report.agreement,
            sqnr_db=report.quality["worst_sqnr_db"],
            kept_float=budget["kept_float_share"],
            undone=tuple(f"{s.text}: {s.reason}" for s in report.stages if not s.kept),
            recipe=str(result.recipe),
            seconds=seconds,
            int8_share=after.int8_share,
        )

    @property
    def latency(self) -> Latency:
        """Beside the model as given; tells whether it is faster or slower by more than the noise."""
        times = Spread(self.latency_ms, self.latency_spread_ms)
        return Latency(self.passes, times, Spread(self.speedup, self.spread))

    def beats(self, other: "Trial") -> bool:
        """Whether it is faster than another candidate by more than the noise of both.

        Against the model as given, 1 ± 0, this is the rule of `Latency.faster`.
        """
        return self.speedup - self.spread > other.speedup + other.spread

    @property
    def highest_drop(self) -> float:
        """The upper end of the drop's interval; where there is none, twice the drop itself.

        Where no draw loses anything they say less than they seem to: what none of n pictures shows has, at 95 %, a
        probability below 3 / n (the rule of three). A model that gives the same outputs is beyond doubt.
        """
        verdict, interval = self.verdict, self.verdict.interval
        if interval is None:
            return 2 * max(verdict.drop, 0.0)
        shares = min(verdict.before, verdict.after) >= 0 and max(verdict.before, verdict.after) <= 1
        differ = interval.low < interval.high and interval.high > 0
        if differ or self.sqnr_db >= SAME or not shares:
            return interval.high
        return max(interval.high, min(1.0, 3 / verdict.pictures))

    @property
    def surely_keeps(self) -> bool:
        """Whether the budget is kept by the upper end of the interval, too."""
        return self.verdict.met and self.highest_drop <= self.verdict.allowed

    def figures(self, given_bytes: int, metric: str | None, point: float) -> dict[str, Figure]:
        """What gates judge; see `gates.judge_gates`."""
        found = {
            "size": Figure(self.bytes, given_bytes),
            "latency": Figure(self.latency_ms, self.latency_ms * self.speedup),
            "speedup": Figure(self.speedup, 1.0),
            "sqnr": Figure(self.sqnr_db),
        }
        if self.agreement is not None:
            found["agreement"] = Figure(self.agreement, 1.0, point=0.01)
        if metric is not None:
            found["score"] = found[metric] = Figure(self.verdict.after, self.verdict.before, point)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trial":
        """What `to_dict` wrote.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type, missing, or too much.
        """
        _check_types(cls, values)
        return cls(**{**values, "verdict": _verdict(values["verdict"]), "undone": tuple(values["undone"])})


def _verdict(values: Mapping[str, Any]) -> Verdict:
    """A verdict from what a report has of it."""
    interval = values["interval"]
    known = {f.name: values[f.name] for f in fields(Verdict)}
    _check_types(Verdict, known)
    if interval is not None:
        _check_types(Interval, interval)
    return Verdict(**{**known, "interval": None if interval is None else Interval(**interval)})


def _check_types(made: type, values: Mapping[str, Any]) -> None:
    """Refuse values from a file that are not what the fields of a dataclass hold.

    Raises:
        KeyError: One is missing.
        TypeError: One is of another type.
    """
    for name, kind in get_type_hints(made).items():
        value = values[name]
        if type(value) not in PLAIN.get(kind, (dict, NoneType)):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, list | tuple) and not all(isinstance(text, str) for text in value):
            raise TypeError(f"{name} is {value!r}")


@dataclass(frozen=True)
class Failed:
    """A pipeline that gave no model.

    Attributes:
        passes: The pipeline as text.
        target: Name of the target.
        reason: What went wrong.
        seconds: How long it took to find out.
    """

    passes: str
    target: str
    reason: str
    seconds: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Failed":
        """What was written of it.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type, or too much.
        """
        _check_types(cls, values)
        return cls(**values)


Outcome = Trial | Failed
