"""What an HTML report shows of a search."""

from onnxopt.auto.findings import Findings
from onnxopt.auto.trial import Trial
from onnxopt.auto.words import advice
from onnxopt.report.document import Candidate, Document, Facts, Pareto, Tile


def document(found: Findings) -> Document:
    """The page: advice, tiles, the plot with all candidates, and how to make them again."""
    said = advice(found)
    return Document(
        title=f"{found.model}: which model to ship",
        lines=tuple(said),
        tiles=_tiles(found),
        warnings=(*found.warnings, *([found.stopped] if found.stopped else [])),
        pareto=pareto(found, said[0]),
        facts=(
            Facts("Environment", tuple(found.environment.items())),
            Facts("Runtimes", tuple(found.targets.items())),
            Facts("Data", (*((k, str(v)) for k, v in found.data.items()), ("judged on", found.judged_on))),
            Facts("Model", (("file", found.model), ("SHA-256", found.digest))),
            *([Facts("Not tried, or refused", _left(found))] if _left(found) else []),
        ),
        recipe=found.picks.balanced.recipe if found.picks is not None else "",
    )


def _left(found: Findings) -> tuple[tuple[str, str], ...]:
    """What was not tried, gave no model or missed a gate, and why."""
    refused = [(f"{passes} on {target}", why) for (passes, target), why in found.refused.items()]
    failed = [(f"{one.passes} on {one.target}", one.reason) for one in found.failed]
    parts = [why.partition(": ") for why in found.left_out]
    return (*((what, why) for what, _, why in parts), *failed, *refused)


def pareto(found: Findings, text: str = "") -> Pareto:
    """Score over latency, the model as given first."""
    verdict = found.trials[0].verdict
    sign = 1.0 if verdict.drop == verdict.before - verdict.after else -1.0
    front = found.front
    given = Candidate("as given", found.given.median, found.given.spread, verdict.before, bytes=found.bytes)
    return Pareto(
        metric=verdict.metric,
        candidates=(given, *(_candidate(t, found, sign, front=t in front) for t in found.trials)),
        text=text,
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
        Tile(f"{pick.speedup:.2f} x", f"faster on {found.targets[pick.target]}", "good" if pick.speedup > 1 else ""),
        Tile(f"{pick.bytes / found.bytes:.0%}", "of the size"),
        Tile(f"{pick.verdict.after:.4f}", f"{pick.verdict.metric}, was {pick.verdict.before:.4f}"),
        Tile(str(len(found.trials)), "candidates measured"),
    )
