"""The search: which candidates to try, each measured and kept, then all of them ranked together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxopt import __version__, model_io, registry
from onnxopt.analysis.compensation import Studies
from onnxopt.auto import search
from onnxopt.auto.bench import PACKAGES, Bench, Question
from onnxopt.auto.choice import choose, distinct
from onnxopt.auto.findings import Findings
from onnxopt.auto.ranking import Ranking, as_tried, rank
from onnxopt.auto.seeking import INTERRUPTED, Propose, Search, Tell
from onnxopt.auto.store import Store
from onnxopt.auto.trial import Failed, Trial
from onnxopt.errors import GateMissed, OptimizationError, UsageError
from onnxopt.gates import Gate, check_judgeable, judge_gates, named_metric, parse_gates
from onnxopt.manager import Observer
from onnxopt.optimization.subject import table_of
from onnxopt.placement.retarget import is_quantized
from onnxopt.runtime import host
from onnxopt.runtime.adapter import load_runtime, processor_of
from onnxopt.targets import Target

MINUTES = 20.0
RESERVED = 90.0  # seconds for the final comparison
EVERY = "auto"  # the target that means: every runtime that is installed


def auto(
    question: Question,
    cache: Path,
    *,
    target: str | Target = "ort",
    require: str | None = None,
    minutes: float = MINUTES,
    propose: Propose = search.propose,
    tell: Tell = lambda text: None,
    observers: Sequence[Observer] = (),
    findings: bool = False,
) -> Findings:
    """Try what may make a model faster, and say which result to take.

    Args:
        question: Model, data, metric and budget.
        cache: Folder that keeps what was tried; the same question goes on from there.
        target: Name or table; `auto`: every runtime that is installed.
        require: Gates that what is taken has to keep; see `gates`.
        minutes: Start no candidate that would probably end later.
        propose: What to try next, from what was tried.
        tell: Is told what is going on, a line at a time.
        observers: Watch the passes.
        findings: Measure what a page shows of balanced beside the model as given, too: layers, tensors, pictures.

    Raises:
        UsageError: The model, the data or the request cannot be used as given.
        OptimizationError: Not even the cleaned-up model keeps the budget.
        GateMissed: No candidate keeps all gates.
        KeyboardInterrupt: Before a single candidate was done.
    """
    if not minutes >= 0:  # not a number is neither
        raise UsageError(f"minutes is {minutes}; give 0 or more")
    gates = parse_gates(require) if require is not None else ()
    if question.metric is None and named_metric(gates) is not None:
        question = replace(question, metric=named_metric(gates))
    store = Store(cache)
    benches = {table.name: Bench(question, table, store) for table in targets_of(target)}
    check_judgeable(gates, metric=next(iter(benches.values())).optimization.metric)
    deadline = time.monotonic() + 60 * minutes - RESERVED
    seeking = Search(benches, propose, tell, observers, deadline, [Studies(store.folder / "prune")])
    began = time.monotonic()
    stopped = seeking.run()
    trials = distinct(o for done in seeking.done.values() for o in done.values() if isinstance(o, Trial))
    if not trials and stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if not trials:
        raise OptimizationError(_nothing(seeking.failed))
    tell(f"comparing {len(trials)} {'candidate' if len(trials) == 1 else 'candidates'} with the model as given")
    try:
        ranking = rank(benches, trials, store)
    except KeyboardInterrupt:
        stopped, ranking = stopped or INTERRUPTED, as_tried(benches, trials)
    found = _findings(benches, seeking, ranking, gates, stopped, time.monotonic() - began)
    return _with_beside(found, benches, tell) if findings else found


def targets_of(target: str | Target) -> list[Target]:
    """The tables of a target; those of all runtimes that are installed for `auto`.

    Raises:
        UsageError: Unknown, or no runtime is installed.
    """
    if target != EVERY:
        return [table_of(target)]
    found: dict[str, Target] = {}
    for name in registry.names(registry.TARGETS):
        table = table_of(name)
        if load_runtime(table) is not None:
            found.setdefault(table.name, table)
    if not found:
        raise UsageError("no target's runtime is installed; pip install onnxruntime or openvino")
    return list(found.values())


def _with_beside(found: Findings, benches: Mapping[str, Bench], tell: Tell) -> Findings:
    """The same with what a page shows of balanced; without, where the search is interrupted before or meanwhile."""
    if found.picks is None or found.stopped == INTERRUPTED:
        return found
    pick = found.picks.balanced
    try:
        tell("measuring what the page shows of balanced: layers, tensors, pictures")
        graph = model_io.load(found.files[pick.passes, pick.target])
        return replace(found, beside=benches[pick.target].optimization.findings(graph))
    except KeyboardInterrupt:
        return replace(found, stopped=INTERRUPTED)


def _nothing(failed: Sequence[Failed]) -> str:
    return "; ".join(f"{f.passes}: {f.reason}" for f in failed) or "nothing was tried"


def _findings(
    benches: Mapping[str, Bench],
    seeking: Search,
    ranking: Ranking,
    gates: Sequence[Gate],
    stopped: str,
    seconds: float,
) -> Findings:
    first = next(iter(benches.values()))
    optimization, subject = first.optimization, first.subject
    kept = [t for t in ranking.trials if t.verdict.met]
    refused = _refused(kept, gates, first)
    good = [t for t in kept if (t.passes, t.target) not in refused]
    if not good and stopped != INTERRUPTED:
        _refuse(kept, refused, ranking, stopped)
    done = seeking.done[seeking.fastest()]
    samples = optimization.samples
    return Findings(
        model=Path(subject.graph.source).stem,
        digest=first.subject.digest or subject.graph.digest(),
        bytes=subject.figures.bytes,
        parameters=subject.figures.parameters,
        macs=subject.figures.macs,
        int8_share=None if is_quantized(subject.graph) else 0.0,
        given=ranking.given,
        targets={name: bench.runtime.version for name, bench in benches.items()},
        data=samples.to_dict(),
        judged_on=samples.evaluation.description,
        metric=optimization.metric.name if optimization.metric is not None else None,
        trials=ranking.trials,
        files={(t.passes, t.target): benches[t.target].model_of(t.passes) for t in ranking.trials},
        failed=tuple(seeking.failed),
        picks=choose(good) if good else None,
        refused=refused,
        left_out=search.why_no_more(done) if not stopped and seeking.propose is search.propose else (),
        stopped=stopped,
        environment={
            "onnxopt": __version__,
            "processor": processor_of(first.runtime),
            **host.versions(*PACKAGES),
        },
        warnings=[*subject.warnings, *optimization.warnings],
        seconds=seconds,
        reused=seeking.reused,
    )


def _refused(kept: Sequence[Trial], gates: Sequence[Gate], bench: Bench) -> dict[tuple[str, str], str]:
    """Candidates that miss a gate, and how."""
    metric = bench.optimization.metric
    found: dict[tuple[str, str], str] = {}
    for trial in kept:
        measured = trial.figures(
            bench.subject.figures.bytes, metric.name if metric else None, metric.point if metric else 1.0
        )
        missed = [str(o) for o in judge_gates(gates, measured) if not o.kept]
        if missed:
            found[trial.passes, trial.target] = "; ".join(missed)
    return found


def _refuse(kept: Sequence[Trial], refused: Mapping[tuple[str, str], str], ranking: Ranking, stopped: str) -> None:
    """Say that nothing may be handed back."""
    so_far = f" so far ({stopped})" if stopped else ""
    if not kept:
        best = min(ranking.trials, key=lambda t: t.verdict.drop)
        raise OptimizationError(f"no candidate keeps the budget{so_far}; the best is {best.passes}: {best.verdict}")
    reasons = "; ".join(f"{passes} on {target}: {why}" for (passes, target), why in refused.items())
    raise GateMissed(f"refused: no candidate keeps all gates{so_far} ({reasons}); nothing is written")
