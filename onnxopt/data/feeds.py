"""Samples from Python: any iterable of feeds, or a function that returns one.

An item is a dictionary of input name to array, or `(dictionary, label)`; a bare array will do for a model with
one input. Arrays may lack the batch axis. An item with a batch of several is split into samples, a label that is a
sequence of that length with it. A one-shot iterator is kept in memory, since samples are read more than once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from onnxopt.data.conform import check_names, convert, stack_axis
from onnxopt.data.dataset import Digest, hash_feeds
from onnxopt.data.sample import Array, InputSpec, Sample
from onnxopt.data.symbols import load_symbol
from onnxopt.errors import UsageError

# A function may yield for ever; calibration gains nothing beyond some hundred samples.
DEFAULT_LIMIT = 1024


@dataclass
class FeedSource:
    """Samples from a function that starts the iteration anew.

    Attributes:
        start: Returns an iterator over the items.
        inputs: What the model wants.
        where: The source in words, for messages.
        limit: Samples after which reading stops.
        count: How many there are, once that has been counted.
    """

    start: Callable[[], Iterator[Any]]
    inputs: Sequence[InputSpec]
    where: str
    limit: int
    count: int | None = None
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.count is None:
            self.count = sum(1 for _ in self.read(None))
        return self.count

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples.

        Raises:
            UsageError: An item is not what the model wants, or the user's code raised.
        """
        if indices is None:
            yield from islice(self._samples(), self.limit)
        elif indices:
            wanted = set(indices)
            reached = enumerate(islice(self._samples(), max(wanted) + 1))
            yield from (sample for index, sample in reached if index in wanted)

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add the arrays as they are fed."""
        for sample in self.read(indices):
            hash_feeds(digest, sample.feeds)

    def _samples(self) -> Iterator[Sample]:
        for number, item in enumerate(self._items()):
            yield from split_item(item, self.inputs, f"{self.where}, item {number}")

    def _items(self) -> Iterator[Any]:
        try:
            yield from self.start()
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{self.where} failed: {error!r}") from error


def open_iterable(
    items: Iterable[Any], inputs: Sequence[InputSpec], samples: int | None, where: str
) -> tuple[FeedSource, list[str]]:
    """Return the first `samples` samples of an iterable of feeds, and a note where they are kept in memory.

    Raises:
        UsageError: It is empty, or its first item is not what the model wants.
    """
    limit = samples or DEFAULT_LIMIT
    notes: list[str] = []
    again = items
    if isinstance(items, Iterator):
        once = items
        kept = list(FeedSource(lambda: once, inputs, where, limit).read(None))
        again = [(sample.feeds, sample.label) for sample in kept]
        notes.append(f"{where} can be read only once, so its {len(kept)} samples are kept in memory")
    return _probed(FeedSource(lambda: iter(again), inputs, where, limit)), notes


def open_function(symbol: str, inputs: Sequence[InputSpec], samples: int | None) -> FeedSource:
    """Return the first `samples` samples that `module:function` returns or yields; each reading calls it anew.

    Raises:
        UsageError: It cannot be imported or called, gives nothing, or not what the model wants.
    """
    function = load_symbol(symbol)
    if not callable(function):
        raise UsageError(f"'{symbol}' is not a function but of type {type(function).__name__}")

    def start() -> Iterator[Any]:
        result = function()
        if isinstance(result, Mapping | str) or not isinstance(result, Iterable):
            raise UsageError(f"'{symbol}' should return or yield feeds, but returned {type(result).__name__}")
        return iter(result)

    return _probed(FeedSource(start, inputs, f"'{symbol}'", samples or DEFAULT_LIMIT))


def _probed(source: FeedSource) -> FeedSource:
    """Return the source if it has a first sample, so that a broken one is refused before the work starts."""
    reader = source.read(None)
    if next(reader, None) is None:
        raise UsageError(f"{source.where} gives no samples")
    return source


def split_item(item: Any, inputs: Sequence[InputSpec], where: str) -> list[Sample]:
    """Return the samples that one item of the user's stands for.

    Raises:
        UsageError: It is neither feeds nor (feeds, label), or its arrays are not what the model wants.
    """
    feeds, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
    if not isinstance(feeds, Mapping):
        if len(inputs) != 1 or isinstance(feeds, str | bytes | tuple | None):
            raise UsageError(f"{where} should be a dictionary of input name to array, or (dictionary, label)")
        feeds = {inputs[0].name: feeds}
    check_names(map(str, feeds), inputs, where)
    arrays = {spec.name: _batch(feeds[spec.name], spec, where) for spec in inputs}
    counts = {name: len(array) for name, array in arrays.items()}
    count = next(iter(counts.values()))
    if set(counts.values()) != {count}:
        raise UsageError(f"{where}: the inputs have different numbers of samples: {counts}")
    labels = _labels(label, count, where)
    return [
        Sample({name: np.asarray(array[index]) for name, array in arrays.items()}, labels[index])
        for index in range(count)
    ]


def _batch(value: Any, spec: InputSpec, where: str) -> Array:
    """Return an array of samples, each of the input's shape with a batch of 1, stacked along a new axis."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{where}: '{spec.name}' cannot be made an array: {error}") from None
    lacks_batch = len(spec.shape) >= 2 and array.shape == spec.shape[1:]
    if array.shape == spec.sample_shape or lacks_batch:
        array = array.reshape(1, *spec.sample_shape)
    elif stack_axis(array.shape, spec) and len(array):
        array = array.reshape(len(array), *spec.sample_shape)
    else:
        raise UsageError(
            f"{where}: '{spec.name}' has the shape {list(array.shape)}, expected {list(spec.sample_shape)}"
        )
    return convert(array, spec, where)


def _labels(label: Any, count: int, where: str) -> list[Any]:
    if label is None:
        return [None] * count
    if count == 1:
        is_batch = getattr(label, "shape", None) == (1,) or (isinstance(label, list) and len(label) == 1)
        return [_plain(label[0] if is_batch else label)]
    if not hasattr(label, "__len__") or len(label) != count:
        raise UsageError(f"{where}: a batch of {count} samples needs a sequence of {count} labels")
    return [_plain(label[index]) for index in range(count)]


def _plain(label: Any) -> Any:
    """Return a number where the label is an array or tensor without axes."""
    return label.item() if getattr(label, "shape", None) == () else label
