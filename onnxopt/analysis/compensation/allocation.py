"""How many channels of each group stay, so that a budget is met at the least damage.

Damage of groups is taken to add up. Between the counts at which it was measured, its 1.4th root is taken to be linear
in the share removed (it grows faster than linearly and slower than the square). The choice is greedy: of all groups
and all lower counts the one with the least damage per cost saved, costs computed anew after each, since a channel
costs less where others are gone already. In the end, what was taken too much is given back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.channels import Group
from onnxopt.analysis.channels.selection import allowed_counts
from onnxopt.analysis.compensation.costs import Costs
from onnxopt.analysis.compensation.reading import FloatArray

POWER = 1.4
FINEST = 32  # counts per group that are looked at, at most

Curve = Mapping[int, float]
"""Count that stays to damage measured."""


def damage_at(curve: Curve, size: int, counts: Sequence[int]) -> FloatArray:
    """Damage at any counts from that at some."""
    points = {size: 0.0, **curve}
    known = sorted(points)
    worst = np.maximum.accumulate([points[c] for c in reversed(known)])[::-1]  # fewer channels are never better
    roots = np.maximum(worst, 0) ** (1 / POWER)
    found = np.interp(counts, known, roots)
    low = np.asarray(counts) < known[0]
    if low.any() and size > known[0]:
        slope = roots[0] / (size - known[0])
        found[low] = roots[0] + slope * (known[0] - np.asarray(counts)[low])
    damage: FloatArray = found**POWER
    return damage


def total_damage(groups: Sequence[Group], curves: Mapping[str, Curve], counts: Mapping[str, int]) -> float:
    """Damage that counts promise, added up."""
    return sum(float(damage_at(curves.get(g.name, {}), g.size, [counts[g.name]])[0]) for g in groups)


def candidates(group: Group, align: int) -> list[int]:
    """Counts that are looked at, descending; the first is the whole group."""
    allowed = allowed_counts(group, align)[::-1]
    step = -(-len(allowed) // FINEST)
    return sorted({*allowed[::step], allowed[-1], group.size}, reverse=True)


@dataclass
class _State:
    shares: list[FloatArray]
    damage: list[FloatArray]
    costs: Costs
    level: list[int]

    def left(self) -> FloatArray:
        return np.asarray([s[k] for s, k in zip(self.shares, self.level, strict=True)])

    def options(self, left: FloatArray, index: int, levels: range) -> FloatArray:
        """Costs with one group at other levels."""
        choices = np.repeat(left[None], len(levels), axis=0)
        choices[:, index] = self.shares[index][levels.start : levels.stop]
        return self.costs.of(choices)

    def cost(self) -> float:
        return float(self.costs.of(self.left()[None])[0])


def allocate(
    groups: Sequence[Group], curves: Mapping[str, Curve], costs: Costs, budget: float, align: int
) -> dict[str, int]:
    """Group name to the count that stays.

    Args:
        groups: Free groups.
        curves: Measured damage of each; a group without is left whole.
        costs: What is to be saved.
        budget: Cost that may remain. Where it cannot be met, the least that can be.
        align: Counts are multiples of this.
    """
    counts = [candidates(g, align) if g.name in curves else [g.size] for g in groups]
    damage = [damage_at(curves.get(g.name, {}), g.size, c) for g, c in zip(groups, counts, strict=True)]
    shares = [np.asarray(c) / g.size for g, c in zip(groups, counts, strict=True)]
    state = _State(shares, damage, costs, [0] * len(groups))
    current = state.cost()
    while current > budget and (step := _cheapest(state, current)) is not None:
        index, level = step
        state.level[index] = level
        current = state.cost()
    _give_back(state, budget)
    return {g.name: c[k] for g, c, k in zip(groups, counts, state.level, strict=True)}


def _cheapest(state: _State, current: float) -> tuple[int, int] | None:
    """The step with the least damage per cost saved: which group, to which level."""
    best, least, left = None, np.inf, state.left()
    for index, shares in enumerate(state.shares):
        levels = range(state.level[index] + 1, len(shares))
        if not levels:
            continue
        saved = current - state.options(left, index, levels)
        worse = state.damage[index][levels.start :] - state.damage[index][state.level[index]]
        price = np.where(saved > 0, worse / np.maximum(saved, 1e-300), np.inf)
        place = int(np.argmin(price))
        if price[place] < least:
            best, least = (index, levels[place]), float(price[place])
    return best


def _give_back(state: _State, budget: float) -> None:
    """Raise counts again as far as the budget allows, the most useful first."""
    while True:
        best, most, left = None, 0.0, state.left()
        for index, level in enumerate(state.level):
            levels = range(level)
            if not levels:
                continue
            fits = state.options(left, index, levels) <= budget
            gains = np.where(fits, state.damage[index][level] - state.damage[index][: levels.stop], 0.0)
            place = int(np.argmax(gains))
            if gains[place] > most:
                best, most = (index, place), float(gains[place])
        if best is None:
            return
        state.level[best[0]] = best[1]
