"""Looks for the preparation that suits the model best, and for what is wrong with the one given.

1. From the one given, one setting is changed at a time; the change that is least likely to look better by chance is
   kept, as long as one is beyond noise. What the model's family expects is given up only for overwhelming evidence,
   and how it expects pictures to be fitted not at all: enlarged objects are found more easily, whatever is right.
2. Where the family expects something else than what came of that, and measuring does not speak against it, it is
   right. Settings that make no difference to these pictures are passed over.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from onnxopt.data import Preprocess
from onnxopt.doctor.expected import Expected
from onnxopt.doctor.finding import MOST_SURE, Finding
from onnxopt.doctor.settings import SETTINGS, Name, Setting
from onnxopt.doctor.trials import NOISE, Comparison, Trials
from onnxopt.doctor.views import PictureView

OVERWHELMING = 1e-5  # chance below which measuring overrules what is known of the family
STEPS = 4


@dataclass(frozen=True)
class Change:
    """One setting that was found wrong.

    Attributes:
        setting: Which.
        before: The preparation with it wrong.
        after: The same with it right.
        why: What says so.
        sure: How sure that is.
    """

    setting: Setting
    before: Preprocess
    after: Preprocess
    why: str
    sure: float


@dataclass(frozen=True)
class Preparation:
    """What came of the search.

    Attributes:
        given: The preparation as it came.
        best: The one that suits the model best.
        changes: What lies between them, at most one per setting.
    """

    given: Preprocess
    best: Preprocess
    changes: list[Change] = field(default_factory=list)

    def findings(self, *, arrays: bool) -> Iterator[Finding]:
        """Yield a finding per change."""
        for change in self.changes:
            setting = change.setting
            right = setting.adopt(self.given, change.after)
            says = setting.says(self.given, right)
            if arrays and setting.name == "color":
                says = "The channels are swapped: RGB where the model expects BGR, or the reverse."
            yield Finding(
                setting.fault(self.given, right),
                says,
                change.why,
                change.sure,
                _ARRAYS[setting.name] if arrays else f"give --preprocess '{self.best}'",
                None if arrays else str(self.best),
            )


_ARRAYS = {
    "values": "make the arrays again in that range, or give the pictures themselves with --preprocess",
    "color": "reverse the channels of the arrays, or give the pictures themselves with --preprocess",
    "resize": "make the arrays again, or give the pictures themselves with --preprocess",
    "align": "make the arrays again with the pictures there, or give the pictures themselves with --preprocess",
    "pad": "make the arrays again with that padding, or give the pictures themselves with --preprocess",
}


def search(trials: Trials, family: Expected | None, settings: frozenset[Name]) -> Preparation:
    """Return the best preparation that can be found, and what is wrong with the given one.

    Args:
        trials: The model on the samples.
        family: What models of its family are fed.
        settings: What to try otherwise.
    """
    given = trials.view.given
    best, changes = _measured(trials, family, settings & trials.view.can)
    if family is not None:
        best, changes = _as_expected(trials, family, best, changes)
    kept = [change for change in changes.values() if change.setting.differs(given, best)]
    if (
        kept
        and family is not None
        and isinstance(trials.view, PictureView)
        and not any(setting.differs(best, family.preprocess) for setting in SETTINGS)
    ):
        best = family.preprocess  # the same, but for settings that do not matter, and known by name
    return Preparation(given, best, kept)


def _measured(
    trials: Trials, family: Expected | None, settings: frozenset[Name]
) -> tuple[Preprocess, dict[str, Change]]:
    best, changes = trials.view.given, dict[str, Change]()
    for _ in range(STEPS):
        tried = [setting for setting in SETTINGS if setting.name in settings]
        candidates = [(s, other) for s in tried for other in _alternatives(s, best, family, trials)]
        judged = [
            (setting, other, trials.compare(other, best, ranges=setting.is_range))
            for setting, other in candidates
            if trials.promises(other, best, ranges=setting.is_range)
        ]
        good = [
            (setting, other, found)
            for setting, other, found in judged
            if found.chance * len(candidates) < _bar(setting, best, family, trials)
        ]
        if not good:
            break
        setting, other, found = min(good, key=lambda entry: (entry[2].chance, -entry[2].gain))
        sure = min(MOST_SURE, 1 - found.chance * len(candidates))
        changes[setting.name] = Change(setting, best, other, found.says, sure)
        best = other
    return best, changes


def _alternatives(setting: Setting, best: Preprocess, family: Expected | None, trials: Trials) -> Iterable[Preprocess]:
    """What a setting may be instead; how pictures are fitted is what the family says, where there is one."""
    if family is None or not setting.is_geometry or setting.name not in trials.view.known:
        return setting.alternatives(best)
    return [setting.adopt(best, family.preprocess)] if setting.differs(best, family.preprocess) else []


def _bar(setting: Setting, best: Preprocess, family: Expected | None, trials: Trials) -> float:
    """The chance below which a change of a setting is believed."""
    usual = family is not None and setting.name in trials.view.known and not setting.differs(best, family.preprocess)
    return OVERWHELMING if usual else NOISE


def _as_expected(
    trials: Trials, family: Expected, best: Preprocess, changes: dict[str, Change]
) -> tuple[Preprocess, dict[str, Change]]:
    """Take over what the family expects, where measuring does not speak against it."""
    changes = dict(changes)
    for setting in SETTINGS:
        if setting.name not in trials.view.known & trials.view.can or not setting.differs(best, family.preprocess):
            continue
        other = setting.adopt(best, family.preprocess)
        if isinstance(trials.view, PictureView) and trials.alike(other, best):
            best = other
            continue
        found = trials.compare(other, best, ranges=setting.is_range)
        if found.against or setting.name in changes:
            continue
        why = f"{family.reason}; measured: {found.says}"
        changes[setting.name] = Change(setting, best, other, why, _sure(found, family))
        best = other
    return best, changes


def _sure(found: Comparison, family: Expected) -> float:
    leans_for = found.gain > 0
    return min(MOST_SURE, max(family.sure, 1 - found.chance)) if leans_for else family.sure
