"""How many channels of each group stay, and which.

Counts are multiples of the alignment and never break the blocks of grouped convolutions: with `unit` channels per
block, multiples of `lcm(align, unit)`. Or all stay. A group smaller than one such multiple is left alone.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxopt.analysis.channels.groups import Group
from onnxopt.analysis.channels.scoring import FloatArray

WIDEST_BLOCK = 16  # a multiple of what any CPU kernel likes


def block_of(asked: int | None, liked: int) -> int:
    """The alignment: what is asked for, else what the target likes, else what no target minds (where it says 0)."""
    return asked or liked or WIDEST_BLOCK


def allowed_counts(group: Group, align: int) -> list[int]:
    """Numbers of roots that may stay, ascending; only the group's own size where it is smaller than a block."""
    step = group.step(align)
    return sorted({*range(step, group.size + 1, step), group.size})


def nearest_count(group: Group, wanted: float, align: int) -> int:
    """The allowed number of roots nearest to `wanted`; of two equally near ones the larger."""
    return min(allowed_counts(group, align), key=lambda count: (abs(count - wanted), -count))


def count_above(group: Group, scores: FloatArray, threshold: float, align: int) -> int:
    """The smallest allowed number that keeps every root with a score of at least `threshold`."""
    wanted = int(np.count_nonzero(scores >= threshold))
    return next(count for count in allowed_counts(group, align) if count >= wanted)


def best(scores: Mapping[str, FloatArray], counts: Mapping[str, int]) -> dict[str, list[int]]:
    """Places of the `counts` highest scores of each group, ascending; of equal scores the first stay."""
    return {
        name: sorted(np.argsort(-scores[name], kind="stable")[:count].tolist())
        for name, count in counts.items()
        if count < len(scores[name])
    }


def step_thresholds(groups: Sequence[Group], scores: Mapping[str, FloatArray], align: int) -> list[float]:
    """All thresholds at which `count_above` falls for some group, ascending."""
    found: set[float] = set()
    for group in groups:
        falling = np.sort(scores[group.name])[::-1]
        found |= {math.nextafter(float(falling[count]), math.inf) for count in allowed_counts(group, align)[:-1]}
    return sorted(found)
