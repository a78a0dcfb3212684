"""What an HTML report shows of a search."""

import math
from collections.abc import Iterator
from dataclasses import asdict

from onnxopt.auto.findings import Findings
from onnxopt.auto.trial import Trial
from onnxopt.auto.words import advice
from onnxopt.report.document import TIMES, Candidate, Document, Facts, Pareto, Row, Table, Tile
from onnxopt.report.figure_rows import latency_row, model_rows, score_row, tone_of_speed
from onnxopt.report.findings import Findings as Beside


def document(found: Findings) -> Document:
    """The page: advice, tiles, the pick beside the model as given, all candidates, and how to make them again."""
    beside = found.beside or Beside()
    return Document(
        title=f"{found.model}: which model to ship",
        lines=tuple(advice(found)),
        tiles=_tiles(found),
        figures=_figures(found),
        warnings=(*found.warnings, *([found.stopped] if found.stopped else []), *beside.notes),
        pareto=pareto(found),
        pictures=beside.pictures,
        layers=beside.layers,
        layers_text=beside.layers_text,
        spectra=beside.spectra,
        facts=(
            Facts("Environment", tuple(found.environment.items())),
            Facts("Runtimes", tuple(found.targets.items())),
            Facts("Data", (*_data(found), ("judged on", found.judged_on))),
            Facts("Model", (("name", found.model), ("SHA-256", found.digest), *_written(found))),
            *([Facts("Not tried, or refused", _left(found))] if _left(found) else []),
        ),
        recipe=found.picks.balanced.recipe if found.picks is not None else "",
    )


def _data(found: Findings) -> Iterator[tuple[str, str]]:
    for name, value in found.data.items():
        text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if text:
            yield name, text


def _written(found: Findings) -> Iterator[tuple[str, str]]:
    """Files of the picks, as `writing.place` names them."""
    if found.picks is not None:
        yield from ((name, f"{found.model}.{name}.onnx") for name, _ in found.picks.items())


def _figures(found: Findings) -> Table | None:
    """The balanced pick beside the model as given."""
    if found.picks is None:
        return None
    pick = found.picks.balanced
    text = f"Of balanced: {pick.passes} on {pick.target}."
    return Table("Before and after", ("before", "after"), tuple(_rows(found, pick)), text)


def _rows(found: Findings, pick: Trial) -> Iterator[Row]:
    verdict = pick.verdict
    interval = None if verdict.interval is None else asdict(verdict.interval)
    yield score_row(verdict.metric, verdict.before, verdict.after, interval)
    if pick.agreement is not None and found.metric is not None:
        yield Row("agreement with the model as given", ("", f"{pick.agreement:.1%}"))
    if not math.isnan(pick.sqnr_db):
        sqnr = "equal" if pick.sqnr_db == math.inf else f"{pick.sqnr_db:.1f} dB"
        yield Row("SQNR of the worst output", ("", sqnr))
    yield latency_row(f"latency, {found.targets[pick.target]}", _latencies(found, pick), pick.speedup, pick.spread)
    yield from model_rows(found, pick, found.beside or Beside())
    yield Row("multiply-accumulates kept float for the budget", ("", f"{pick.kept_float:.1%}"))


def _latencies(found: Findings, pick: Trial) -> tuple[str, str]:
    """In ms; the model as given was timed on the first target alone, and elsewhere follows from the speed-up."""
    given = found.given
    before = (
        f"{given.median:.2f} ms ± {given.spread:.2f}"
        if pick.target == next(iter(found.targets))
        else f"{pick.latency_ms * pick.speedup:.2f} ms"
    )
    return before, f"{pick.latency_ms:.2f} ms ± {pick.latency_spread_ms:.2f}"


def _left(found: Findings) -> tuple[tuple[str, str], ...]:
    """What was not tried, gave no model or missed a gate, and why."""
    refused = [(f"{passes} on {target}", why) for (passes, target), why in found.refused.items()]
    failed = [(f"{one.passes} on {one.target}", one.reason) for one in found.failed]
    parts = [why.partition(": ") for why in found.left_out]
    return (*((what, why) for what, _, why in parts), *failed, *refused)


def pareto(found: Findings) -> Pareto:
    """Score over latency, the model as given first."""
    verdict = found.trials[0].verdict
    sign = 1.0 if verdict.drop == verdict.before - verdict.after else -1.0
    front = found.front
    given = Candidate("as given", found.given.median, found.given.spread, verdict.before, bytes=found.bytes)
    return Pareto(
        metric=verdict.metric,
        candidates=(given, *(_candidate(t, found, sign, front=t in front) for t in found.trials)),
        limit=verdict.before - sign * verdict.allowed,
        lower_is_better=sign < 0,
    )


def _candidate(trial: Trial, found: Findings, sign: float, *, front: bool) -> Candidate:
    verdict, interval = trial.verdict, trial.verdict.interval
    ends = sorted(verdict.before - sign * d for d in (interval.low, interval.high)) if interval is not None else None
    return Candidate(
        name=trial.passes if len(found.targets) == 1 else f"{trial.passes} on {trial.target}",
        latency_ms=trial.latency_ms,
        spread_ms=trial.latency_spread_ms,
        score=verdict.after,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        bytes=trial.bytes,
        front=front,
        kept=trial in found.kept,
        pick=", ".join(found.picks.names(trial)) if found.picks is not None else "",
    )


def _tiles(found: Findings) -> tuple[Tile, ...]:
    if found.picks is None:
        return ()
    pick = found.picks.balanced
    return (
        _speed(pick, found.targets[pick.target]),
        Tile(f"{pick.bytes / found.bytes:.0%}", "of the size"),
        Tile(f"{pick.verdict.after:.4f}", f"{pick.verdict.metric}, was {pick.verdict.before:.4f}"),
        Tile(str(len(found.trials)), "candidates measured"),
    )


def _speed(pick: Trial, runtime: str) -> Tile:
    tone = tone_of_speed(pick.speedup, pick.spread)
    label = f"as fast on {runtime}" if tone else f"as fast as before within the noise, on {runtime}"
    return Tile(f"{pick.speedup:.2f} {TIMES}", label, tone)
