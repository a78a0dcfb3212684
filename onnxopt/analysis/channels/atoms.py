"""Channels as atoms: numbers that are tied together when one cannot go without the other.

A tensor axis is described by one atom per index, so that Concat is concatenation of arrays, Split is slicing,
Transpose moves an array to another axis and Flatten repeats its atoms. Atoms that must live or die together are
tied (union-find); atoms that must stay are fixed, with the reason.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Atoms:
    """Union-find over atoms. The root of a class is its smallest atom, so results do not depend on order."""

    def __init__(self) -> None:
        self._parent: IntArray = np.empty(0, np.int64)
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        """Return how many atoms there are."""
        return len(self._parent)

    def fresh(self, count: int) -> IntArray:
        """New atoms, each alone in its class, numbered upwards."""
        first = len(self._parent)
        made = np.arange(first, first + count, dtype=np.int64)
        self._parent = np.concatenate([self._parent, made])
        return made

    def roots(self, atoms: npt.NDArray[Any]) -> IntArray:
        """Root of each atom, in the same shape."""
        found: IntArray = self._parent[atoms]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                self._parent[atoms] = found
                return found
            found = above

    def tie(self, a: IntArray, b: IntArray) -> None:
        """Tie atoms pairwise; the arrays broadcast against each other."""
        a, b = (x.ravel() for x in np.broadcast_arrays(a, b))
        left, right = self.roots(a), self.roots(b)
        for i in np.flatnonzero(left != right).tolist():
            self._unite(self._find(int(left[i])), self._find(int(right[i])))

    def fix(self, atoms: IntArray, reason: str) -> None:
        """Say that atoms must stay. The first reason given to a class is the one that is told."""
        for root in np.unique(self.roots(atoms)).tolist():
            self._reasons.setdefault(root, reason)

    def reason(self, root: int) -> str | None:
        """Why the class of this root must stay; None where it is free."""
        return self._reasons.get(root)

    def are_free(self, atoms: IntArray) -> bool:
        """Whether none of these atoms must stay."""
        return self._reasons.keys().isdisjoint(np.unique(self.roots(atoms)).tolist())

    def are_fixed(self, atoms: IntArray) -> bool:
        """Whether all of these atoms must stay."""
        return self._reasons.keys() >= set(np.unique(self.roots(atoms)).tolist())

    def _find(self, atom: int) -> int:
        while (above := int(self._parent[atom])) != atom:
            atom = above
        return atom

    def _unite(self, a: int, b: int) -> None:
        if a == b:
            return
        low, high = min(a, b), max(a, b)
        self._parent[high] = low
        if (reason := self._reasons.pop(high, None)) is not None:
            self._reasons.setdefault(low, reason)


class Kept:
    """Which atoms stay, after a choice was made.

    Args:
        stays: One bool per atom.
    """

    def __init__(self, stays: BoolArray) -> None:
        self._stays = stays

    def where(self, atoms: IntArray) -> BoolArray:
        """Whether each atom stays."""
        found: BoolArray = self._stays[atoms]
        return found

    def count(self, atoms: IntArray) -> int:
        """How many of these atoms stay."""
        return int(self.where(atoms).sum())

    def all(self, atoms: IntArray) -> bool:
        """Whether all of these atoms stay."""
        return bool(self.where(atoms).all())
