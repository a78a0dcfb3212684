"""Which channels matter least: backward elimination, the rest making up for each one that goes.

For a layer with H = Cov(z) + ridge and weights W, taking the columns F of a channel away and refitting the others costs

    tr(W_F (H⁻¹_FF)⁻¹ W_Fᵀ),   after which   W -= W_F (H⁻¹_FF)⁻¹ H⁻¹_F:   and   H⁻¹ -= H⁻¹_:F (H⁻¹_FF)⁻¹ H⁻¹_F:

(Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993, for blocks). Where
several layers read a channel, costs add up, each as a share of the variance of that layer's output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.compensation.fitting import ridge_of
from onnxopt.analysis.compensation.reading import FloatArray

FEWEST, MOST = 32, 512  # rounds
ROUND_WORK = 10**8  # elements of H⁻¹ that all rounds update together
RIDGE = 0.1  # heavier than for the fit: what goes is decided on few samples


@dataclass
class Problem:
    """One layer's part in the choice.

    Attributes:
        inverse: H⁻¹, [length, length]; changed as channels go.
        variance: Diagonal of H before.
        weight: W, [columns, length]; likewise.
        columns: The columns of each channel that may go, [channels, per channel].
        scale: One over the variance of the output.
    """

    inverse: FloatArray
    variance: FloatArray
    weight: FloatArray
    columns: IntArray
    scale: float

    @classmethod
    def of(cls, covariance: FloatArray, weight: FloatArray, columns: IntArray) -> "Problem":
        """Start with nothing removed."""
        damped = covariance.copy()
        damped[np.diag_indices_from(damped)] += ridge_of(covariance, RIDGE)
        energy = float(np.einsum("cl,lm,cm->", weight, covariance, weight, optimize=True))
        inverse = np.asarray(np.linalg.inv(damped), np.float64)
        del damped
        scale = 1 / energy if energy > 0 else 0.0
        return cls(inverse, np.diag(covariance), weight.copy(), columns, scale)

    def costs(self, places: IntArray) -> FloatArray:
        """What the removal of each of some channels would cost now."""
        columns = self.columns[places]
        weight = self.weight[:, columns]
        if columns.shape[1] == 1:
            diagonal = self.inverse[columns[:, 0], columns[:, 0]]
            cost: FloatArray = np.square(weight[:, :, 0]).sum(axis=0) / diagonal
            return cost * self.scale
        blocks = np.linalg.inv(self.inverse[columns[:, :, None], columns[:, None, :]])
        squares = np.einsum("cpi,cpj->pij", weight, weight, optimize=True)
        cost = np.einsum("pij,pij->p", squares, blocks)
        return cost * self.scale

    def remove(self, places: IntArray) -> None:
        """Take channels away, the rest making up for them."""
        gone = self.columns[places].ravel()
        across = self.inverse[gone]
        solved = np.linalg.solve(across[:, gone], across)
        self.weight -= self.weight[:, gone] @ solved
        self.inverse -= across.T @ solved
        self.weight[:, gone] = 0
        # A removed column keeps its place, out of every later sum.
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        self.inverse[gone, gone] = 1


def removal_order(problems: Sequence[Problem], channels: int, steps: int | None = None) -> IntArray:
    """Channels in the order in which they should go, the last one left at the end.

    Args:
        problems: The layers that read them.
        channels: How many there are.
        steps: At most so many rounds; with more channels than that several go in one. Default: fewer where patches
            are long, for a round costs the square of their length.
    """
    left = np.arange(channels)
    longest = max((len(p.inverse) for p in problems), default=0)
    steps = steps or max(FEWEST, min(MOST, ROUND_WORK // max(1, longest**2)))
    each = -(-channels // steps)
    order: list[int] = []
    while len(left) > 1:
        cost = np.sum([p.costs(left) for p in problems], axis=0)
        going = left[np.sort(np.argsort(cost, kind="stable")[: min(each, len(left) - 1)])]
        for problem in problems:
            problem.remove(going)
        order += going.tolist()
        left = left[~np.isin(left, going)]
    return np.asarray([*order, *left], np.int64)


def energy_order(problems: Sequence[Problem], channels: int) -> IntArray:
    """Channels by the variance that each alone brings into what its readers give, the least first."""
    energy = np.zeros(channels)
    for problem in problems:
        each = np.square(problem.weight).sum(axis=0) * problem.variance * problem.scale
        energy += each[problem.columns].sum(axis=1)
    return np.argsort(energy, kind="stable")
