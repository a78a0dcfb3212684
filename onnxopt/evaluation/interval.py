"""How sure a drop is: a paired bootstrap over the pictures.

Pictures are drawn again with replacement, as many as there are; both models are scored on the same draw, and the drop
noted. The interval holds the middle 95 % of many such drops. Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13 (percentile intervals). Pairing matters: what both models get wrong cancels out.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.data import Array
from onnxopt.evaluation.evidence import Evidence

LEVEL = 0.95
RESAMPLES = 1000
FEWEST_RESAMPLES = 200
WORK = 5 * 10**7  # elements, some seconds; scores that are costly to compute are resampled less often


@dataclass(frozen=True)
class Interval:
    """Where a drop, or a score, probably lies.

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
    if before.pictures != after.pictures:
        raise ValueError(f"{before.pictures} pictures before and {after.pictures} after cannot be paired")
    weights = _draws(before.pictures, before.work + after.work, seed)
    return _middle(sign * (before.values(weights) - after.values(weights)))


def score_interval(evidence: Evidence, *, seed: int = 0) -> Interval:
    """Return the bootstrap interval of a model's own score.

    It says how the score would scatter over other pictures of the same kind; where two models are compared,
    `drop_interval` is far narrower.
    """
    return _middle(evidence.values(_draws(evidence.pictures, evidence.work, seed)))


def _draws(pictures: int, work: int, seed: int) -> Array:
    """How often each picture is drawn, int64[resamples, pictures]."""
    resamples = int(np.clip(WORK // max(1, work), FEWEST_RESAMPLES, RESAMPLES))
    return np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)


def _middle(values: Array) -> Interval:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high), len(values))
