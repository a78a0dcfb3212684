"""What to try next, from what was tried; a pure function, so that an interrupted search goes the same way again.

1. The float model cleaned up, and int8.
2. Where int8 misses the budget, or buys it with float layers: int8 with ranges of percentiles.
3. Less and less of the multiply-accumulates, in int8 where that kept the budget, else in float; until a share misses
   the budget. If it did so narrowly, the share half-way to the last good one is tried.

Cuts that save nothing are not deepened: then there is nothing to prune. Behind a cut int8 may keep no more layers float
than it did without, since each of them takes back some of what the cut won.
"""

import math
from collections.abc import Mapping

from onnxopt.auto.trial import Outcome, Trial
from onnxopt.pipeline import with_option

FLOAT, INT8, OTHER_RANGES = "simplify", "quantize", "quantize{method=percentile}"
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the multiply-accumulates that may remain
FAR = 3.0  # times the budget: what loses so much is not worth another try
FEW_FLOAT = 0.01  # share of the MACs: nothing to gain from other ranges

Done = Mapping[str, Outcome]


def propose(done: Done) -> str | None:
    """The pipeline to try next; None when nothing is left that may pay.

    Args:
        done: Pipeline to what came of it.
    """
    for passes in (FLOAT, INT8):
        if passes not in done:
            return passes
    if OTHER_RANGES not in done and _ranges_may_pay(done[INT8]):
        return OTHER_RANGES
    return _next_cut(done)


def is_basic(passes: str) -> bool:
    """Whether a candidate is among those that every target is tried with."""
    return passes in {FLOAT, INT8}


def why_no_more(done: Done) -> list[str]:
    """Why what was not tried was not, in words; for a search that came to its end."""
    said = []
    int8 = done[INT8]
    if OTHER_RANGES not in done:
        said.append(f"{OTHER_RANGES}: {INT8} keeps the budget already, and hardly a layer had to stay float for it")
    base = _base(done)
    if not base and isinstance(int8, Trial):
        said.append(f"prune with quantize: {INT8} alone misses the budget")
    for share in SHARES:
        outcome = done.get(pruned(share, base))
        if outcome is not None and not _kept(outcome):
            lost = f"that loses {outcome.verdict.drop:.4f} already" if isinstance(outcome, Trial) else outcome.reason
            said.append(f"prune below macs={share:g}: {lost}")
            break
        if isinstance(outcome, Trial) and _saves_nothing(outcome, done, share, base):
            said.append(f"prune below macs={share:g}: nothing more can go")
            break
    return said


def pruned(share: float, base: str) -> str:
    """The pipeline that cuts to a share of the MACs before another one; empty for none."""
    return f"prune{{macs={share:g}}}" + (f",{base}" if base else "")


def frugal(int8: Trial) -> str:
    """Its pipeline, with no more layers in float than it has, in percent rounded up."""
    return str(with_option(int8.passes, INT8, "most", math.ceil(100 * int8.kept_float) / 100))


def _ranges_may_pay(int8: Outcome) -> bool:
    return isinstance(int8, Trial) and (not int8.verdict.met or int8.kept_float > FEW_FLOAT)


def _base(done: Done) -> str:
    """What follows on a cut: the int8 pipeline that kept the budget and is the fastest; empty for none."""
    best = _best_int8(done)
    return frugal(best) if best is not None else ""


def _best_int8(done: Done) -> Trial | None:
    kept = [t for p in (INT8, OTHER_RANGES) if isinstance(t := done.get(p), Trial) and t.verdict.met]
    return max(kept, key=lambda t: t.speedup, default=None)


def _next_cut(done: Done) -> str | None:
    base, good = _base(done), 1.0
    for share in SHARES:
        passes = pruned(share, base)
        outcome = done.get(passes)
        if outcome is None:
            return passes
        if not _kept(outcome):
            between = pruned(round((good + share) / 2, 4), base)
            return between if between not in done and _narrowly(outcome) else None
        if _saves_nothing(outcome, done, share, base):
            return None
        good = share
    return None


def _kept(outcome: Outcome) -> bool:
    return isinstance(outcome, Trial) and outcome.verdict.met


def _narrowly(outcome: Outcome) -> bool:
    if isinstance(outcome, Trial):
        return outcome.verdict.drop <= FAR * outcome.verdict.allowed
    return outcome.excess is not None and outcome.excess <= FAR


def _saves_nothing(outcome: Outcome, done: Done, share: float, base: str) -> bool:
    """Whether a cut has as many MACs as the one before; a cut that was undone says nothing of deeper ones."""
    place = SHARES.index(share)
    before = done.get(pruned(SHARES[place - 1], base)) if place else _best_int8(done) or done[FLOAT]
    if not isinstance(outcome, Trial) or not isinstance(before, Trial) or outcome.undone:
        return False
    return outcome.macs >= before.macs
