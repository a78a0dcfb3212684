"""Gates: what a result has to keep, or it is refused: `map>=-1pt,latency<=20ms,size<=3MB,speedup>=1.5`.

| name | judged | written |
|---|---|---|
| `top1`, `map` (the metric `coco-map`), any metric's name, `score` (the metric in use) | the score | `0.35`, `35%` |
| `latency` | median of one run on the target, one thread | `20ms`, `1.5s`, `800us` |
| `size` | bytes of all files of the model as written | `3MB`, `900kB`, `2.5MiB` |
| `speedup` | median of float latency / latency, measured together | `1.5`, `1.5x` |
| `agreement` | with the float model: same top class, or F1 of its confident detections | `0.98`, `98%` |
| `sqnr` | of the output that suffers most | `20dB` |

A number with a sign is read against the float model: `-1pt` is one point less (0.01 of a score of 0..1 that is quoted
in percent, 1 of any other metric), `-1%` is one percent of the float model's own value less. Scores, speed-up,
agreement and SQNR are held from below (`>=`), latency and size from above (`<=`), and so are metrics of which less is
better. Medians and scores themselves are judged, not the ends of their intervals.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxopt import plugins
from onnxopt.errors import GateMissed, UsageError, nearest
from onnxopt.evaluation.metrics import METRICS, Metric
from onnxopt.report.run import Measured

EXAMPLE = "map>=-1pt,latency<=20ms,size<=3MB,speedup>=1.5"
ROUNDING = 1e-9  # 0.955 - 0.945 is not above 0.01
SCORE = "score"
_ALIASES = {"map": "coco-map"}
_GATE = re.compile(r"([A-Za-z][\w.-]*)\s*([<>=!~]*)\s*(.*)")
_VALUE = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ%]*)")


@dataclass(frozen=True)
class _Kind:
    """How one sort of gate is written.

    Attributes:
        least: Whether it is held from below; None where the metric says it.
        units: Unit in lower case to what one of it is.
        shares: Units that a signed number may have.
        example: A value that can be given.
    """

    least: bool | None
    units: Mapping[str, float]
    shares: frozenset[str]
    example: str


_BYTES = {"b": 1.0} | {f"{p}b": 1000.0**i for i, p in enumerate("kmg", 1)}
_BYTES |= {f"{p}ib": 1024.0**i for i, p in enumerate("kmg", 1)}
_SCORE = _Kind(None, {"": 1.0, "%": 0.01}, frozenset({"%", "pt"}), "0.35, 35%, -1pt or -1%")
_KINDS = {
    "latency": _Kind(False, {"ms": 1.0, "s": 1000.0, "us": 0.001}, frozenset({"%"}), "20ms or -20%"),
    "size": _Kind(False, _BYTES, frozenset({"%"}), "3MB, 900kB or -50%"),
    "speedup": _Kind(True, {"": 1.0, "x": 1.0}, frozenset(), "1.5"),
    "agreement": _Kind(True, {"": 1.0, "%": 0.01}, frozenset({"%", "pt"}), "0.98, 98% or -2pt"),
    "sqnr": _Kind(True, {"": 1.0, "db": 1.0}, frozenset(), "20dB"),
}
_TIMED = frozenset({"latency", "speedup"})
_COMPARED = frozenset({"agreement", "sqnr"})  # outputs of both models are run for them


@dataclass(frozen=True)
class Gate:
    """One thing that is required.

    Attributes:
        text: As written, without blanks.
        name: What is judged: a metric's name, `score`, or one of the others in the table above.
        at_least: Held from below; otherwise from above.
        amount: In ms, bytes or the unit of the score; or how many percent or points against the float model, signed.
        against: `%` or `pt` where the float model is compared with, else empty.
    """

    text: str
    name: str
    at_least: bool
    amount: float
    against: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def is_score(self) -> bool:
        """Whether a metric judges it."""
        return self.name not in _KINDS

    @property
    def is_timed(self) -> bool:
        """Whether latency has to be measured for it."""
        return self.name in _TIMED

    @property
    def needs_reference(self) -> bool:
        """Whether it says something only beside the float model."""
        return bool(self.against) or self.name in _COMPARED or self.name == "speedup"

    def limit(self, figure: "Figure") -> float:
        """The worst value that still keeps it, in the unit of the figure.

        Raises:
            UsageError: It is relative to the float model, of which nothing is known.
        """
        if not self.against:
            return self.amount
        if figure.reference is None:
            raise UsageError(f"--require: {self} is read against the float model, and that was not measured")
        if self.against == "pt":
            return figure.reference + self.amount * figure.point
        return figure.reference + self.amount / 100 * abs(figure.reference)


@dataclass(frozen=True)
class Figure:
    """One thing measured.

    Attributes:
        value: Of the model that is judged; latency in ms, size in bytes, SQNR in dB, agreement 0..1.
        reference: Of the float model; None where unknown.
        point: What a point is, in the unit of the value.
    """

    value: float
    reference: float | None = None
    point: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """How one gate went.

    Attributes:
        gate: What was required.
        measured: What came out.
        limit: The worst value that would have kept it, in the same unit.
        reference: Of the float model, where that is what the gate compares with.
        kept: Whether it holds.
    """

    gate: Gate
    measured: float
    limit: float
    reference: float | None
    kept: bool

    def __str__(self) -> str:
        bound = "at least" if self.gate.at_least else "at most"
        name = "" if self.gate.name in _KINDS else f"{self.gate.name} "
        of = f", as the float model has {_text(self.gate, self.reference)}" if self.reference is not None else ""
        return (
            f"{self.gate} is {'kept' if self.kept else 'missed'}: {name}{_text(self.gate, self.measured)}, "
            f"{bound} {_text(self.gate, self.limit)} is wanted{of}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As reports have it."""
        return {
            "gate": str(self.gate),
            "measured": self.measured,
            "limit": self.limit,
            "kept": self.kept,
            "text": str(self),
        }


def parse_gates(text: str) -> tuple[Gate, ...]:
    """Read gates as they are written after `--require`.

    Args:
        text: Such as `map>=-1pt,latency<=20ms`.

    Raises:
        UsageError: Not of the form, an unknown name (the nearest is suggested), or a unit or bound that does not fit.
    """
    known = set(plugins.names(METRICS))
    gates = tuple(_gate(part.strip(), known) for part in text.split(",")) if text.strip() else ()
    if not gates:
        raise UsageError(f"--require is empty; write for example '{EXAMPLE}'")
    scored = sorted({g.name for g in gates if g.is_score and g.name != SCORE})
    if len(scored) > 1:
        raise UsageError(f"--require names {' and '.join(scored)}, but a run has one metric; ask for one of them")
    return gates


def _gate(text: str, metrics: set[str]) -> Gate:
    match = _GATE.fullmatch(text)
    if match is None:
        raise UsageError(f"--require: '{text}' is not of the form name>=value; write for example '{EXAMPLE}'")
    shown, sign, value = match.groups()
    name = _ALIASES.get(shown, shown)
    if name not in {*_KINDS, *metrics, SCORE}:
        raise UsageError(f"--require: '{shown}' is not known{nearest(shown, {*_KINDS, *metrics, *_ALIASES, SCORE})}")
    if sign not in {">=", "<="}:
        raise UsageError(f"--require: '{text}' needs >= or <= between name and value")
    kind, at_least = _KINDS.get(name, _SCORE), sign == ">="
    if kind.least is not None and kind.least != at_least:
        better = "more" if kind.least else "less"
        raise UsageError(f"--require: of {name} {better} is better; write {name}{'>=' if kind.least else '<='}{value}")
    amount, against = _amount(text, shown, value, kind)
    return Gate(f"{shown}{sign}{''.join(value.split())}", name, at_least, amount, against)


def _amount(text: str, name: str, value: str, kind: _Kind) -> tuple[float, str]:
    """The number in its base unit, and what of the float model it is counted in."""
    match = _VALUE.fullmatch(value.strip())
    if match is None:
        raise UsageError(f"--require: '{text}' has no number that fits; {name} takes {kind.example}")
    sign, number, written = match.groups()
    unit = written.lower().replace("µ", "u")
    if sign and unit in kind.shares:
        return float(sign + number), unit
    if sign or unit not in kind.units:
        told = f"'{sign}{number}{written}'"
        hint = "; a sign compares with the float model" if sign or unit == "pt" else ""
        raise UsageError(f"--require: {told} does not fit {name}, which takes {kind.example}{hint}")
    return float(number) * kind.units[unit], ""


def named_metric(gates: Iterable[Gate]) -> str | None:
    """The metric that gates name themselves, such as `coco-map` for `map>=-1pt`."""
    return next((g.name for g in gates if g.is_score and g.name != SCORE), None)


def check_judgeable(
    gates: Iterable[Gate], *, metric: Metric | None, cannot_time: str = "", cannot_run: str = ""
) -> None:
    """Refuse before any work starts what could not be judged after it.

    Args:
        gates: What is required.
        metric: The metric in use.
        cannot_time: Why latency will not be measured; empty if it will.
        cannot_run: Why the model will not be run; empty if it will.

    Raises:
        UsageError: Names the gate and what is missing.
    """
    for gate in gates:
        if gate.is_score:
            _check_metric(gate, metric)
        missing = cannot_run if gate.is_score or gate.name in _COMPARED else ""
        missing = (cannot_time or cannot_run) if gate.is_timed else missing
        if missing:
            raise UsageError(f"--require: {gate} cannot be judged: {missing}")


def _check_metric(gate: Gate, metric: Metric | None) -> None:
    if metric is None:
        raise UsageError(f"--require: {gate} cannot be judged without a metric; give labelled data and --metric")
    if gate.name not in {SCORE, metric.name}:
        raise UsageError(f"--require: {gate} judges {gate.name}, but the metric in use is {metric.name}")
    if gate.at_least == metric.lower_is_better:
        better, sign = ("less", "<=") if metric.lower_is_better else ("more", ">=")
        raise UsageError(f"--require: of {metric.name} {better} is better, so {gate} says nothing; use {sign}")


def figures(
    before: Measured,
    after: Measured,
    *,
    metric: Metric | None = None,
    speedup: float | None = None,
    agreement: float | None = None,
    sqnr_db: float | None = None,
) -> dict[str, Figure]:
    """What gates are judged by, from what was measured; what was not is left out.

    Args:
        before: The float model.
        after: The model that is judged.
        metric: What `score` of both comes from.
        speedup: Float latency / latency.
        agreement: With the float model, 0..1.
        sqnr_db: Of the output that suffers most.
    """
    found = {"size": Figure(after.bytes, before.bytes)}
    if after.latency_ms is not None:
        found["latency"] = Figure(after.latency_ms, before.latency_ms)
    if metric is not None and after.score is not None:
        found[SCORE] = Figure(after.score, before.score, metric.point)
        found[metric.name] = found[SCORE]
    if speedup is not None:
        found["speedup"] = Figure(speedup, 1.0)
    if agreement is not None:
        found["agreement"] = Figure(agreement, 1.0, point=0.01)
    if sqnr_db is not None:
        found["sqnr"] = Figure(sqnr_db)
    return found


def judge_gates(gates: Iterable[Gate], measured: Mapping[str, Figure]) -> list[Outcome]:
    """How each gate went.

    Args:
        gates: What is required.
        measured: Name of a gate to its figure; see `figures`.

    Raises:
        UsageError: A figure is missing, or a bound says nothing of it.
    """
    return [_outcome(gate, measured) for gate in gates]


def _outcome(gate: Gate, measured: Mapping[str, Figure]) -> Outcome:
    figure = measured.get(gate.name)
    if figure is None:
        raise UsageError(f"--require: {gate} cannot be judged, as {gate.name} was not measured")
    limit = gate.limit(figure)
    slack = ROUNDING * max(1.0, abs(limit))
    kept = figure.value >= limit - slack if gate.at_least else figure.value <= limit + slack
    return Outcome(gate, figure.value, limit, figure.reference if gate.against else None, kept)


def refuse_missed(outcomes: Sequence[Outcome], report: object, remarks: Iterable[str] = ()) -> None:
    """Stop unless all gates are kept.

    Args:
        outcomes: What `judge_gates` found.
        report: All that was measured, for whoever shows what was refused.
        remarks: What explains a miss, such as a stage that was undone.

    Raises:
        GateMissed: One sentence for each gate that is missed.
    """
    missed = [str(outcome) for outcome in outcomes if not outcome.kept]
    if missed:
        why = "".join(f" ({remark})" for remark in remarks)
        error = GateMissed(f"refused: {'; '.join(missed)}{why}; nothing is written")
        error.report = report
        raise error


def _text(gate: Gate, value: float | None) -> str:
    """A value for people, in the unit that its gate is usually written in."""
    if value is None:
        return "unknown"
    if gate.name == "latency":
        return f"{value:.3g} ms"
    if gate.name == "size":
        return f"{value / 1e6:.3f} MB" if value >= 1e5 else f"{value / 1e3:.2f} kB"
    if gate.name == "speedup":
        return f"{value:.2f} x"
    return f"{value:.1f} dB" if gate.name == "sqnr" else f"{value:.4f}"
