"""What to try next, from what was tried; a pure function, so that an interrupted search goes the same way again.

1. The float model cleaned up, and int8.
2. Where int8 misses the budget, or buys it with float layers: int8 with ranges of percentiles.
3. Cuts of the multiply-accumulates, in int8 where that pays and keeps the budget, else in float. The deepest that
   keeps the budget is found by halving: what loses more than a cut that misses is not worth its time, and neither is
   what wins less than one that keeps it.

Where a cut saves nothing, there is nothing to prune. Behind a cut int8 may keep no more layers float than it did
without, since each of them takes back some of what the cut won.
"""

import math
from collections.abc import Mapping

from onnxopt.auto.trial import Outcome, Trial
from onnxopt.pipeline import with_option

FLOAT, INT8, OTHER_RANGES = "simplify", "quantize", "quantize{method=percentile}"
SHARES = tuple(round(0.95 - 0.05 * i, 2) for i in range(12))  # of the multiply-accumulates that may remain
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
    if OTHER_RANGES not in done and isinstance(int8, Trial):
        said.append(f"{OTHER_RANGES}: {INT8} keeps the budget already, and hardly a layer had to stay float for it")
    base = _base(done)
    if not base:
        why = "is slower than float here" if isinstance(int8, Trial) and int8.undone else "alone misses the budget"
        said.append(f"prune with quantize: {INT8} {why}")
    good, bad = _bounds(done, base)
    missed = done.get(pruned(SHARES[bad], base)) if bad < len(SHARES) else None
    if missed is not None:
        lost = f"loses {missed.verdict.drop:.4f}" if isinstance(missed, Trial) else missed.reason
        said.append(f"prune below macs={SHARES[bad]:g}: {lost}")
    if good >= 0 and _saves_nothing(done, SHARES[good], base):
        said.append(f"prune other than to macs={SHARES[good]:g}: nothing can go")
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
    """What follows on a cut: the fastest int8 pipeline that kept the budget and was not undone; empty for none."""
    best = _best_int8(done)
    return frugal(best) if best is not None else ""


def _best_int8(done: Done) -> Trial | None:
    tried = [t for p in (INT8, OTHER_RANGES) if isinstance(t := done.get(p), Trial)]
    kept = [t for t in tried if t.verdict.met and not t.undone]
    return max(kept, key=lambda t: t.speedup, default=None)


def _next_cut(done: Done) -> str | None:
    base = _base(done)
    good, bad = _bounds(done, base)
    if bad - good <= 1 or (good >= 0 and _saves_nothing(done, SHARES[good], base)):
        return None
    return pruned(SHARES[(good + bad) // 2], base)


def _bounds(done: Done, base: str) -> tuple[int, int]:
    """Places in `SHARES` of the deepest cut that kept the budget, and of the mildest beyond it that did not."""
    tried = {i: o for i, share in enumerate(SHARES) if (o := done.get(pruned(share, base))) is not None}
    good = max((i for i, outcome in tried.items() if _kept(outcome)), default=-1)
    return good, min((i for i, outcome in tried.items() if i > good and not _kept(outcome)), default=len(SHARES))


def _kept(outcome: Outcome) -> bool:
    return isinstance(outcome, Trial) and outcome.verdict.met


def _saves_nothing(done: Done, share: float, base: str) -> bool:
    """Whether a cut leaves as many MACs as there were; one that was undone says nothing of deeper ones."""
    outcome, before = done[pruned(share, base)], _best_int8(done) or done[FLOAT]
    if not isinstance(outcome, Trial) or not isinstance(before, Trial) or outcome.undone:
        return False
    return outcome.macs >= before.macs
