"""`onnxopt auto` ends in time, and what it picks keeps the budget on pictures that no choice has seen.

Claim: within 20 minutes on two cores it hands back a model that keeps `--max-drop 1%`, as far as its own confidence
interval can tell, and that is the fastest of all candidates that kept it; started again it does nothing twice.

Labelled pictures are halved: candidates are judged and chosen on every second one, and the figures below are of the
others. With `--choose calibration` the choice is made on a third of the calibration pictures instead. Wall-clock time
counts what else the machine does; processor time (of all threads) does not.
"""

import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import workbench
from workbench import Subject, markdown, number

from onnxopt import load
from onnxopt.auto import Findings, Question, auto
from onnxopt.auto.trial import Trial
from onnxopt.data import Dataset
from onnxopt.evaluation.budget import Budget, Judge, Verdict
from onnxopt.evaluation.metrics import load_metric
from onnxopt.registry import load_target
from onnxopt.runtime.adapter import load_runtime

MODELS = ("patches_classifier", "shapes_detector", "mobilenet_v2", "yolo11n_synth320")
HEADER = ("model, candidate", "x faster", "MB", "lost, judged", "interval", "lost, unseen", "interval", "")


def halves(subject: Subject) -> tuple[Dataset, Dataset]:
    """Every second labelled picture, and the others."""
    whole = subject.samples(None, "evaluation")
    places = range(len(whole))
    return replace(whole, indices=places[::2]), replace(whole, indices=places[1::2])


def search(subject: Subject, options: Namespace, cache: Path) -> tuple[Findings, float, float]:
    """What `auto` finds, and its seconds by the clock and of the processor."""
    judged = halves(subject)[0] if options.choose == "half" else subject.samples(128).split_holdout(3)[1]
    question = Question(
        model=subject.file,
        data=subject.calibration,
        eval_data=judged,
        metric=subject.metric,
        max_drop=options.max_drop,
        preprocess=subject.preprocess,
    )
    wall, processor = time.monotonic(), time.process_time()
    found = auto(question, cache, minutes=options.minutes, target=options.target, tell=workbench.say)
    return found, time.monotonic() - wall, time.process_time() - processor


def unseen(subject: Subject, found: Findings, options: Namespace) -> dict[str, Verdict]:
    """Pipeline to its verdict on the other half."""
    runtime = load_runtime(load_target(options.target))
    metric = load_metric(subject.metric, metadata=subject.graph.metadata)
    judge = Judge(Budget.parse(options.max_drop), subject.graph, halves(subject)[1], runtime, metric)
    return {t.passes: judge.verdict(load(found.files[t.passes, t.target])) for t in found.trials}


def measure(subject: Subject, options: Namespace) -> dict[str, Any]:
    """Everything about one model."""
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache / subject.name if options.cache is not None else Path(folder)
        found, wall, processor = search(subject, options, cache)
        again, seconds, _ = search(subject, options, cache)
        verdicts = unseen(subject, found, options)
    assert found.picks is not None
    pick = found.picks.balanced
    fastest = max((t for t in found.trials if t.verdict.met), key=lambda t: t.speedup)
    return {
        "model": subject.name,
        "seconds": wall,
        "processor_seconds": processor,
        "reused_at_first": found.reused,
        "again": {"seconds": seconds, "reused": again.reused, "tried": len(again.trials) + len(again.failed)},
        "pick": pick.passes,
        "pick_is_fastest_kept": fastest.passes == pick.passes,
        "unseen_within_interval": _within(pick, verdicts[pick.passes]),
        "candidates": [_figures(t, verdicts[t.passes], found) for t in found.trials],
        "stopped": found.stopped,
        "left_out": list(found.left_out),
    }


def _within(trial: Trial, verdict: Verdict) -> bool | None:
    """Whether the loss on unseen pictures keeps the budget, or lies in the interval that the search stated."""
    interval = trial.verdict.interval
    return verdict.met or (interval is not None and interval.low <= verdict.drop <= interval.high)


def _figures(trial: Trial, verdict: Verdict, found: Findings) -> dict[str, Any]:
    return {
        "passes": trial.passes,
        "speedup": trial.speedup,
        "spread": trial.spread,
        "bytes": trial.bytes,
        "kept": trial.verdict.met,
        "picked": found.picks.names(trial) if found.picks is not None else [],
        "judged": trial.verdict.to_dict(),
        "unseen": verdict.to_dict(),
    }


def rows(found: dict[str, Any]) -> list[list[str]]:
    """As the table has them, points of losses of 100."""
    lines = []
    for one in found["candidates"]:
        judged, other = one["judged"], one["unseen"]
        lines.append(
            [
                f"{found['model']}, `{one['passes']}`",
                number(one["speedup"], 2),
                number(one["bytes"] / 1e6, 2),
                number(100 * judged["drop"], 2) + ("" if one["kept"] else " missed"),
                _ends(judged),
                number(100 * other["drop"], 2) + ("" if other["met"] else " missed"),
                _ends(other),
                ", ".join(one["picked"]),
            ]
        )
    return lines


def _ends(verdict: dict[str, Any]) -> str:
    interval = verdict["interval"]
    return f"{100 * interval['low']:.2f} … {100 * interval['high']:.2f}" if interval is not None else ""


def main() -> None:
    """Measure and print."""
    parser = workbench.command_line(__doc__)
    parser.add_argument("--max-drop", default="1%", help="default %(default)s")
    parser.add_argument("--minutes", type=float, default=20.0, help="time limit of each search; default %(default)s")
    parser.add_argument("--target", default="ort", help="default %(default)s")
    parser.add_argument(
        "--choose", choices=("half", "calibration"), default="half", help="what candidates are judged on"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep what was tried here; default: nowhere")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}\n")
    found = [measure(s, options) for s in workbench.find_subjects(options, MODELS)]
    print(markdown(HEADER, [line for one in found for line in rows(one)]))
    for one in found:
        print(f"\n{said(one)}")
    workbench.write_results(options.json, "auto", facts, found)


def said(one: dict[str, Any]) -> str:
    """What the claim says of one model, and whether it holds."""
    again = one["again"]
    return (
        f"{one['model']}: {one['seconds']:.0f} s by the clock, {one['processor_seconds']:.0f} s of the processor; pick "
        f"`{one['pick']}`, fastest of those that kept the budget: {one['pick_is_fastest_kept']}; unseen loss within "
        f"budget or interval: {one['unseen_within_interval']}; started again: {again['seconds']:.0f} s, "
        f"{again['reused']} of {again['tried']} known"
    )


if __name__ == "__main__":
    main()
