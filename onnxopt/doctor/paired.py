"""Is one preparation better than another, or is it noise? The exact signed-rank test on paired differences.

Each sample is prepared in both ways and scored, and the difference taken. Were both equally good, each difference would
be as likely negative as positive; the chance that the ranks of the positive ones then add up to as much as they do
follows from counting all choices of signs. Wilcoxon 1945, "Individual comparisons by ranking methods"; differences of
zero are left out, equal ones share their mean rank.
"""

import numpy as np

from onnxopt.data import Array


def chance(differences: Array) -> float:
    """Return the probability, if nothing but noise were at work, of differences that are as positive as these.

    Args:
        differences: One per sample, float[n]; NaN where a sample says nothing.

    Returns:
        The one-sided p value, 0..1; 1 where there is no difference at all.
    """
    values = differences[np.isfinite(differences) & (differences != 0)]
    ranks = doubled_ranks(np.abs(values))
    ways = np.zeros(int(ranks.sum()) + 1)
    ways[0] = 1.0
    for rank in ranks.tolist():
        added = np.zeros_like(ways)
        added[rank:] = ways[: len(ways) - rank]
        ways = (ways + added) / 2
    return min(1.0, float(ways[int(ranks[values > 0].sum()) :].sum()))


def doubled_ranks(sizes: Array) -> Array:
    """Return twice the ranks of values, int64[n]: whole numbers also where equal values share a rank."""
    ordered = np.sort(sizes)
    first = np.searchsorted(ordered, sizes, side="left")
    last = np.searchsorted(ordered, sizes, side="right")
    ranks: Array = first + last + 1
    return ranks
