"""What a search found, in words and as a table for a terminal."""

from collections.abc import Iterator

from onnxopt.auto.choice import Picks
from onnxopt.auto.findings import Findings
from onnxopt.auto.trial import Trial
from onnxopt.evaluation.budget import ENOUGH_PICTURES
from onnxopt.report.table import table

BUSY = 0.2  # share that a speed-up spreads by, above which other programs are to blame


def summary(found: Findings) -> str:
    """The table of candidates, what was not tried, and what to take."""
    parts = [_candidates(found), *_explained(found)]
    parts += [f"not tried: {why}" for why in found.left_out]
    parts += [f"{f.passes} on {f.target} gave no model: {f.reason}" for f in found.failed]
    parts += [f"refused: {passes} on {target}: {why}" for (passes, target), why in found.refused.items()]
    parts += [f"warning: {warning}" for warning in found.warnings]
    return "\n".join([*parts, "", *advice(found)])


def advice(found: Findings) -> list[str]:
    """Which of the models to take, and why; a few sentences."""
    if found.picks is None:
        return [f"Nothing to hand back yet: no candidate so far keeps the budget{_gates(found)}."]
    picks, pick = found.picks, found.picks.balanced
    said = [_take(found, picks), *_certainty(pick)]
    if picks.safe is not pick:
        safe = picks.safe
        sure = "keeps it there, too" if safe.surely_keeps else "differs least from the model as given"
        said.append(f"If it must not lose more, take safe: {safe.passes}, {_speed(safe)}; it {sure}.")
    if picks.small is not pick:
        said.append(f"If size counts, take small: {picks.small.passes}, {_size(picks.small)}, {_speed(picks.small)}.")
    if len(found.targets) > 1:
        said.append(_runtimes(found))
    return said


def _take(found: Findings, picks: Picks) -> str:
    pick = picks.balanced
    count = len(found.kept)
    which = (
        f"the fastest of {count} candidates that keep the budget{_gates(found)}" if count > 1 else "all that keeps it"
    )
    busy = pick.spread > BUSY * pick.speedup
    if pick.speedup - 1 <= pick.spread and not busy:
        return f"Nothing that keeps the budget{_gates(found)} is measurably faster than the model as given."
    noise = " (the machine is busy: measure again when it is not)" if busy else ""
    return (
        f"Take balanced: {pick.passes} on {pick.target}, {_speed(pick)}{noise}, "
        f"{_size(pick)} instead of {found.bytes / 1e6:.2f} MB; {which}."
    )


def _gates(found: Findings) -> str:
    return " and all gates" if found.refused else ""


def _certainty(pick: Trial) -> Iterator[str]:
    verdict = pick.verdict
    lost = f"loses {verdict.drop:.4f}" if verdict.drop > 0 else "loses nothing"
    yield (
        f"On {verdict.pictures} pictures it {lost} ({verdict.metric} {verdict.before:.4f} before, "
        f"{verdict.after:.4f} after); {verdict.allowed:.4f} may be lost."
    )
    interval = verdict.interval
    if interval is not None and interval.low == interval.high and pick.highest_drop > verdict.allowed:
        yield f"That is not certain: up to {pick.highest_drop:.1%} of all pictures still may; more of them tell."
    elif interval is not None and interval.high > verdict.allowed:
        yield (
            f"That is not certain: the {interval.level:.0%} interval of the loss is {interval.low:.4f} … "
            f"{interval.high:.4f}; more pictures make it narrower."
        )
    if verdict.pictures < ENOUGH_PICTURES:
        yield f"{verdict.pictures} pictures are few to judge by; give more with --eval-data."


def _runtimes(found: Findings) -> str:
    """The best of each target, the fastest first."""
    best: dict[str, Trial] = {}
    for trial in found.kept:
        best.setdefault(trial.target, trial)
    told = [f"{target} {trial.latency_ms:.2f} ms ({trial.passes})" for target, trial in best.items()]
    return f"The fastest runtime for this model here is {next(iter(best))}: {', '.join(told)}."


def _candidates(found: Findings) -> str:
    header = ("candidate", *(["target"] if len(found.targets) > 1 else []), "ms", "", "x faster", "MB", "loss", "", "")
    front = found.front
    rows = []
    for trial in found.trials:
        target = [trial.target] if len(found.targets) > 1 else []
        interval = trial.verdict.interval
        rows.append(
            (
                trial.passes,
                *target,
                f"{trial.latency_ms:.3f}",
                f"± {trial.latency_spread_ms:.3f}",
                f"{trial.speedup:.2f}",
                f"{trial.bytes / 1e6:.2f}",
                f"{trial.verdict.drop:.4f}" + (f" ({interval.low:.4f} … {interval.high:.4f})" if interval else ""),
                _judged(trial, found),
                ("* " if trial in front else "  ") + ", ".join(found.picks.names(trial) if found.picks else []),
            )
        )
    given = ("as given", *([""] if len(found.targets) > 1 else []), f"{found.given.median:.3f}")
    rows.append((*given, f"± {found.given.spread:.3f}", "1.00", f"{found.bytes / 1e6:.2f}", "", "", ""))
    shift = len(found.targets) > 1
    return table(rows, header, right=tuple(i + shift for i in (1, 3, 4)))


def _judged(trial: Trial, found: Findings) -> str:
    if not trial.verdict.met:
        return "missed"
    return "refused" if (trial.passes, trial.target) in found.refused else "kept"


def _explained(found: Findings) -> Iterator[str]:
    metric = found.trials[0].verdict.metric if found.trials else ""
    yield f"loss: of {metric}, on {found.judged_on}; * on the Pareto front of latency and loss"


def _speed(trial: Trial) -> str:
    return f"{trial.speedup:.2f} x as fast ± {trial.spread:.2f}"


def _size(trial: Trial) -> str:
    return f"{trial.bytes / 1e6:.2f} MB"
