"""How sure a drop is: a paired bootstrap over the pictures.

Pictures are drawn again with replacement, as many as there are; both models are scored on the same draw, and the drop
noted. The interval holds the middle 95 % of many such drops. Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13 (percentile intervals). Pairing matters: what both models get wrong cancels out.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.evaluation.evidence import Evidence

LEVEL = 0.95
RESAMPLES = 2000
FEWEST_RESAMPLES = 200
WORK = 4 * 10**8  # elements; scores that are costly to compute are resampled less often


@dataclass(frozen=True)
class Interval:
    """Where a drop probably lies.

    Attributes:
        low: Lower end, in the unit of the score.
        high: Upper end.
        resamples: How many draws it comes from.
        level: Share of them inside.
    """

    low: float
    high: float
    resamples: int
    level: float = LEVEL


def drop_interval(before: Evidence, after: Evidence, *, sign: float = 1.0, seed: int = 0) -> Interval:
    """Return the bootstrap interval of `sign · (score before - score after)`.

    Args:
        before: Of the reference model.
        after: Of the model that is judged, on the same pictures in the same order.
        sign: -1 for scores of which less is better.
        seed: For the draws.

    Raises:
        ValueError: They are not of equally many pictures.
    """
    count = before.pictures
    if count != after.pictures:
        raise ValueError(f"{count} pictures before and {after.pictures} after cannot be paired")
    resamples = int(np.clip(WORK // (before.work + after.work), FEWEST_RESAMPLES, RESAMPLES))
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    drops = sign * (before.values(weights) - after.values(weights))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drops, [tail, 100 - tail])
    return Interval(float(low), float(high), resamples)
