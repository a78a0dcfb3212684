"""Which weights of a layer become 0.

Weights are seen as rows, one per output channel, whose columns are ordered (kernel position, input channel), so that
neighbours are consecutive input channels at one position of the kernel.

1. A *share*: the weights that score least, so many of them, wherever they are.
2. *N:M*: of every M consecutive input channels at most N weights are not 0. TensorRT runs 2:4 on sparse tensor cores:
   for weights [K, C, R, S] with C a multiple of 4, every w[k, 4i:4i+4, r, s] has two zeros at least (TensorRT
   Developer Guide, "Structured Sparsity"); along the summed axis for matrix products.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxopt.errors import UsageError
from onnxopt.graph import Array

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

SLACK = 1e-6  # of a weight, for shares such as 0.1 that are not exact
WIDTH = 128  # columns among which a share is chosen at a time


@dataclass(frozen=True)
class Rule:
    """What is wanted.

    Attributes:
        share: Of the weights, that become 0.
        kept: N of N:M; 0 where no pattern is wanted.
        block: M of N:M; 0 likewise.
    """

    share: float
    kept: int = 0
    block: int = 0

    @classmethod
    def parse(cls, pattern: str) -> "Rule":
        """The rule of a pattern, `2:4`.

        Raises:
            UsageError: It is none.
        """
        found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", pattern)
        kept, block = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 0 < kept < block:
            raise UsageError(
                f"pattern={pattern} is none; write N:M, of M consecutive input channels N not 0, for example 2:4"
            )
        return cls(1 - kept / block, kept, block)

    @property
    def width(self) -> int:
        """How many columns are decided on at a time."""
        return self.block or WIDTH

    def __str__(self) -> str:
        return f"{self.kept}:{self.block}" if self.block else f"{100 * self.share:g} %"

    def removed(self, scores: FloatArray) -> BoolArray:
        """Which of some neighbouring weights become 0; of equal ones the first.

        Args:
            scores: What each is worth, float64[rows, columns]; for a pattern, columns are a multiple of M.
        """
        if self.block:
            blocks = scores.reshape(-1, self.block)
            order = np.argsort(blocks, axis=1, kind="stable")
            gone = np.zeros(blocks.shape, np.bool_)
            np.put_along_axis(gone, order[:, : self.block - self.kept], values=True, axis=1)
            return gone.reshape(scores.shape)
        # Rounded up: the whole layer shall have its share, whatever the parts are that it is decided on in.
        smallest = np.argsort(scores, axis=None, kind="stable")[: math.ceil(self.share * scores.size - SLACK)]
        chosen = np.zeros(scores.size, np.bool_)
        chosen[smallest] = True
        return chosen.reshape(scores.shape)

    def follows(self, weight: Array, axis: int = 1) -> bool:
        """Whether weights have the zeros that are wanted.

        Args:
            weight: Of a Conv [K, C/group, …] or a matrix.
            axis: The axis of input channels: 1 for a Conv and for a Gemm with transB, 0 for other matrices.
        """
        if not self.block:
            return weight.size - int(np.count_nonzero(weight)) >= math.floor(self.share * weight.size + SLACK)
        channels = weight.shape[axis]
        if channels % self.block:
            return False
        blocks = np.moveaxis(weight, axis, -1).reshape(-1, self.block)
        return bool((np.count_nonzero(blocks, axis=1) <= self.kept).all())


def column_order(channels: int, length: int) -> IntArray:
    """Columns of a patch, which are ordered (channel, kernel position), in the order (kernel position, channel)."""
    return np.arange(length).reshape(channels, -1).T.ravel()
