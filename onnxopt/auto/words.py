"""What a search found, in words and as a table for a terminal."""

from collections.abc import Iterator

from onnxopt.auto.choice import fastest_by_target
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
    faster = pick.latency.faster()
    said = [_take(found, pick) if faster else _keep(found, pick), *_certainty(pick, "it" if faster else "balanced")]
    if faster and picks.safe is not pick:
        said.append(_safe(picks.safe))
    if picks.small.bytes < found.bytes and (picks.small is not pick or not faster):
        instead = "" if faster else f" instead of {found.bytes / 1e6:.2f} MB"
        small = picks.small
        said.append(f"If size counts, take small: {small.passes}, {_size(small)}{instead}, {_speed(small)}.")
    if len(found.targets) > 1:
        said.append(_runtimes(found))
    return said


def _take(found: Findings, pick: Trial) -> str:
    others = [trial for trial in found.kept if trial is not pick]
    among = f"{len(found.kept)} candidates that keep the budget{_gates(found)}"
    which = f"the fastest of {among}" if others else "all that keeps it"
    if not all(pick.beats(other) for other in others):
        which = f"of {among} no other is measurably faster"
    return (
        f"Take balanced: {pick.passes} on {pick.target}, {_speed(pick)}{_busy(pick)}, "
        f"{_size(pick)} instead of {found.bytes / 1e6:.2f} MB; {which}."
    )


def _keep(found: Findings, pick: Trial) -> str:
    """Where nothing is faster by more than the noise."""
    if found.stopped:
        return (
            f"So far, of {len(found.trials)} tried, nothing that keeps the budget{_gates(found)} is measurably "
            f"faster{_busy(pick)}; the search ended early. Balanced, {pick.passes} on {pick.target}, is {_speed(pick)}."
        )
    return (
        f"Keep the model as given: nothing that keeps the budget{_gates(found)} is measurably faster{_busy(pick)}. "
        f"Balanced, {pick.passes} on {pick.target}, is {_speed(pick)}."
    )


def _safe(safe: Trial) -> str:
    if not safe.latency.faster():
        return f"If it must not lose more, keep the model as given; safe, {safe.passes}, is {_speed(safe)}."
    sure = "keeps it there, too" if safe.surely_keeps else "differs least from the model as given"
    return f"If it must not lose more, take safe: {safe.passes}, {_speed(safe)}; it {sure}."


def _busy(pick: Trial) -> str:
    busy = pick.spread > BUSY * pick.speedup
    return " (the machine is busy: measure again when it is not)" if busy else ""


def _gates(found: Findings) -> str:
    return " and all gates" if found.refused else ""


def _certainty(pick: Trial, name: str) -> Iterator[str]:
    verdict = pick.verdict
    lost = f"loses {verdict.drop:.4f}" if verdict.drop > 0 else "loses nothing"
    yield (
        f"On {verdict.pictures} pictures {name} {lost} ({verdict.metric} {verdict.before:.4f} before, "
        f"{verdict.after:.4f} after); {verdict.allowed:.4f} may be lost."
    )
    interval = verdict.interval
    if interval is not None and pick.highest_drop > max(interval.high, verdict.allowed):
        yield f"That is not certain: up to {pick.highest_drop:.1%} of all pictures still may; more of them tell."
    elif interval is not None and interval.high > verdict.allowed:
        yield (
            f"That is not certain: the {interval.level:.0%} interval of the loss is {interval.low:.4f} … "
            f"{interval.high:.4f}; more pictures make it narrower."
        )
    if verdict.pictures < ENOUGH_PICTURES:
        yield f"{verdict.pictures} pictures are few to judge by; give more with --eval-data."


def _runtimes(found: Findings) -> str:
    """The best of each target, the fastest first, and whether they differ by more than the noise."""
    best = fastest_by_target(found.kept)
    first, *others = best
    told = ", ".join(f"{t.target} {t.latency_ms:.2f} ms ± {t.latency_spread_ms:.2f} ({t.passes})" for t in best)
    level = [t.target for t in others if not (first.beats(t) and first.latency_ms < t.latency_ms)]
    if level:
        return f"{', '.join([first.target, *level])} cannot be told apart for this model here: {told}."
    return f"The fastest runtime for this model here is {first.target}: {told}."


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
    if not trial.latency.faster() and not trial.latency.slower():
        return f"as fast as the model as given within the noise ({trial.speedup:.2f} x ± {trial.spread:.2f})"
    return f"{trial.speedup:.2f} x as fast ± {trial.spread:.2f}"


def _size(trial: Trial) -> str:
    return f"{trial.bytes / 1e6:.2f} MB"
