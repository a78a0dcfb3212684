"""`Dataset`: an ordered, re-iterable, streaming view of a source of samples.

A source knows how to read samples; a data set says which of them, in which order. Memory is constant: what is
held is a handful of samples read ahead, never the set.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from onnxopt.data.preprocess import Preprocess
from onnxopt.data.sample import Feeds, Sample
from onnxopt.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Digest(Protocol):
    """The one method of `hashlib`'s objects that sources use."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


class Source(Protocol):
    """Where samples come from. `skipped` grows while reading: index to the reason it could not be read."""

    skipped: dict[int, str]

    def __len__(self) -> int:
        """Return the number of candidates, unreadable ones included; may read the source once to count."""

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples at these ascending indices (None: all), leaving out what cannot be read."""

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add what identifies the samples at these indices, preprocessing included, to a digest."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples in a fixed order, read anew each time they are iterated over.

    Attributes:
        source: What reads them.
        description: One line for the report.
        remarks: What was guessed or left out when the source was opened.
        preprocess: How pictures become inputs, where the source holds pictures.
        indices: Positions in the source, ascending; None for all.
    """

    source: Source
    description: str
    remarks: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    indices: Sequence[int] | None = None

    def __iter__(self) -> Generator[Sample, None, None]:
        """Yield the samples in order.

        Raises:
            UsageError: The source turns out to be broken, or nothing in it can be read.
        """
        found = False
        for sample in self.source.read(self.indices):
            found = True
            yield sample
        if not found and self._positions():
            why = self.notes[-1] if self.source.skipped else "there were more when they were counted"
            raise UsageError(f"none of the samples of {self.description} can be read: {why}")

    def __len__(self) -> int:
        """Return how many samples are believed readable; shrinks when reading shows that some are not."""
        positions = self._positions()
        return len(positions) - sum(index in self.source.skipped for index in positions)

    @property
    def notes(self) -> list[str]:
        """What a reader of the report should know: guesses, and every sample that could not be read."""
        chosen = None if self.indices is None else set(self.indices)
        skipped = sorted(self.source.skipped.items())
        return [*self.remarks, *(reason for index, reason in skipped if chosen is None or index in chosen)]

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the chosen samples' contents and of their preprocessing."""
        digest = hashlib.sha256()
        self.source.add_to(digest, self.indices)
        return digest.hexdigest()

    def take(self, count: int) -> "Dataset":
        """Return `count` samples spread evenly over the set, in order; all of them if it has fewer.

        Evenly, because sources are often sorted by class, and the first samples would show only one.

        Raises:
            UsageError: `count` is not positive.
        """
        if count < 1:
            raise UsageError(f"{count} samples were asked for; at least 1 is needed")
        usable = [index for index in self._positions() if index not in self.source.skipped]
        if count >= len(usable):
            return self
        return replace(self, indices=[usable[i * len(usable) // count] for i in range(count)])

    def split_holdout(self, every: int = 3) -> tuple["Dataset", "Dataset"]:
        """Return two disjoint parts, the second made of each `every`-th sample.

        A set of one sample leaves the second part empty.

        Raises:
            ValueError: `every` is below 2, which would leave the first part empty.
        """
        if every < 2:
            raise ValueError(f"every={every} leaves nothing in the first part")
        positions = self._positions()
        # The second of each group, so that a set of two samples already has one on either side.
        fit = [index for place, index in enumerate(positions) if place % every != 1 % every]
        holdout = [index for place, index in enumerate(positions) if place % every == 1 % every]
        first, second = (
            replace(self, indices=part, description=f"{len(part)} of {self.description}") for part in (fit, holdout)
        )
        return first, second

    def _positions(self) -> Sequence[int]:
        return range(len(self.source)) if self.indices is None else self.indices


def hash_feeds(digest: Digest, feeds: Feeds) -> None:
    """Add names, types, shapes and bytes of one sample's arrays to a digest."""
    for name in sorted(feeds):
        array = feeds[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())


def read_ahead(load: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4) -> Iterator[Result]:
    """Yield `load(item)` for each item in order, computed up to `ahead` items early in two threads.

    The threads end with the generator, also when the consumer stops early.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(2, thread_name_prefix="onnxopt-data") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
