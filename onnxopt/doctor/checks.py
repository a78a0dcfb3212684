"""What the doctor looks for: one row per check. A new check is a function that yields findings, and a row here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxopt.data import Boxes
from onnxopt.doctor import box_labels, class_labels, inputs
from onnxopt.doctor.finding import MOST_SURE, Finding
from onnxopt.doctor.search import Preparation
from onnxopt.doctor.sweep import Sweep
from onnxopt.doctor.trials import Trials
from onnxopt.doctor.views import ArrayView


@dataclass(frozen=True)
class Findings:
    """What checks look at.

    Attributes:
        sweep: All samples as they came.
        size: The size that the model is run at and the one it was trained at, where its metadata names one.
        trials: The model on some of them; None where it cannot be run on pictures.
        preparation: How they should be prepared; None likewise.
        assumed: Nobody said how the pictures become inputs.
    """

    sweep: Sweep
    size: inputs.Size | None = None
    trials: Trials | None = None
    preparation: Preparation | None = None
    assumed: bool = False


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        faults: Kinds of fault that it finds, each with what it means.
        find: Yields findings.
    """

    faults: Mapping[str, str]
    find: Callable[[Findings], Iterator[Finding]]


def _prepared(seen: Findings) -> Iterator[Finding]:
    if seen.preparation is None or seen.trials is None:
        return
    if not seen.assumed:
        yield from seen.preparation.findings(arrays=isinstance(seen.trials.view, ArrayView))
        return
    changes = seen.preparation.changes
    sure = min((change.sure for change in changes), default=0.6)
    yield Finding(
        "preprocess-missing",
        "Nobody said how the pictures become inputs, and the model's file does not tell.",
        max(changes, key=lambda change: change.sure).why
        if changes
        else f"'{seen.preparation.best}' was tried, and nothing else suits the model better",
        sure,
        f"give --preprocess '{seen.preparation.best}'",
        str(seen.preparation.best),
    )


def _class_count(seen: Findings) -> Iterator[Finding]:
    if seen.trials is None:
        return
    if seen.trials.mismatch is not None:
        says = f"{seen.trials.mismatch[:1].upper()}{seen.trials.mismatch[1:]}."
        yield Finding("class-count", says, "counted", 1.0, "give the labels that the model was trained with")
    numbers = [int(g.label) for g in seen.sweep.glances if isinstance(g.label, int | np.integer)]
    yield from class_labels.label_range(numbers, seen.trials.class_count)


def _classes(seen: Findings) -> Iterator[Finding]:
    if seen.trials is None or seen.preparation is None:
        return
    shown = seen.trials.seen(seen.preparation.best)
    categories = next((one.label.categories.names for one in shown if isinstance(one.label, Boxes)), None)
    if categories is not None:
        yield from class_labels.object_classes(shown, categories)
    else:
        yield from class_labels.picture_classes(shown)


def _boxes(seen: Findings) -> Iterator[Finding]:
    read = [] if seen.trials is None or seen.preparation is None else seen.trials.seen(seen.preparation.best)
    found = list(box_labels.boxes(read))
    yield from found
    if not found:
        rows = [(g.label, g.image) for g in seen.sweep.glances if isinstance(g.label, Boxes) and g.image is not None]
        yield from box_labels.outside(rows)


CHECKS: tuple[Check, ...] = (
    Check({"unusable-sample": "a sample or its label cannot be used"}, lambda seen: inputs.unreadable(seen.sweep)),
    Check(
        {
            "value-range": "0..255 given where 0..1 is expected, or the reverse",
            "normalization": "mean and deviation are missing, others, or too much",
            "channel-order": "red and blue are swapped",
            "letterbox": "stretched where it should be letterboxed, or the reverse",
            "crop": "cropped where it should not be",
            "letterbox-position": "at the top left where it should be in the centre, or the reverse",
            "letterbox-padding": "padded with another value than in training",
            "preprocess-missing": "nobody said how pictures become inputs",
        },
        _prepared,
    ),
    Check(
        {"input-size": "run at another size than trained at"},
        lambda seen: inputs.other_size(seen.size),
    ),
    Check(
        {"constant-input": "samples of one value", "dead-channel": "a channel of one value"},
        lambda seen: inputs.constant(seen.sweep),
    ),
    Check(
        {"duplicates": "the same sample again and again", "near-duplicates": "samples that look alike"},
        lambda seen: inputs.alike(seen.sweep),
    ),
    Check({"few-samples": "too few of them"}, lambda seen: inputs.few(seen.sweep)),
    Check({"small-pictures": "pictures far smaller than the input"}, lambda seen: inputs.small(seen.sweep)),
    Check({"class-count": "labels that the model has no class for"}, _class_count),
    Check(
        {"classes-shifted": "classes off by one", "classes-differ": "classes in another order"},
        _classes,
    ),
    Check(
        {
            "box-format": "boxes normalized twice, corners for centre and size, x and y swapped, …",
            "boxes-outside": "boxes beyond their pictures",
            "boxes-empty": "boxes without extent",
        },
        _boxes,
    ),
)
FAULTS: Mapping[str, str] = {fault: words for check in CHECKS for fault, words in check.faults.items()}


def run_checks(seen: Findings) -> list[Finding]:
    """Return what all checks find, the surest first."""
    found = [finding for check in CHECKS for finding in check.find(seen)]
    return sorted(found, key=lambda finding: -min(finding.sure, MOST_SURE))
