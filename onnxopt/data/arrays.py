"""Ready-made inputs from a `.npz` or a folder of `.npy`: names are model inputs, the first axis is the samples.

Rows are read one after the other, also from inside a compressed `.npz`, so the arrays may be larger than memory.
The format is that of NEP 1. An array `label` or `labels` beside the inputs gives each sample's class.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxopt.data.conform import check_names, check_type, convert, stack_axis
from onnxopt.data.dataset import Digest, hash_feeds
from onnxopt.data.sample import Array, InputSpec, Sample
from onnxopt.errors import UsageError

BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
LABEL_NAMES = ("label", "labels")


@dataclass(frozen=True)
class StoredArray:
    """One array on disk, read row by row.

    Attributes:
        open: Opens the stream that holds it in `.npy` format.
        where: The file, for messages.
        shape: Its shape; the first axis is the samples.
        dtype: Its type.
        start: Offset of its values in the stream, in bytes.
        columns_first: It is in Fortran order, in which a row is not contiguous.
    """

    open: Callable[[], IO[bytes]]
    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    columns_first: bool

    @classmethod
    def find(cls, opener: Callable[[], IO[bytes]], where: str) -> "StoredArray":
        """Return the array behind a stream, its header read and its values not.

        Raises:
            UsageError: It is not in `.npy` format, or holds Python objects.
        """
        try:
            with opener() as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, columns_first, dtype = read(stream)
                start = stream.tell()
        except BROKEN as error:
            raise UsageError(f"{where} is not a readable array: {error}") from None
        if dtype.hasobject or not shape:
            raise UsageError(f"{where} should be an array of numbers whose first axis is the samples")
        return cls(opener, where, shape, dtype, start, columns_first)

    def rows(self, indices: Sequence[int]) -> Iterator[Array]:
        """Yield the rows at ascending indices.

        Raises:
            UsageError: The file is damaged or ends early.
        """
        size = prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with self.open() as stream:
                if self.columns_first:
                    whole = np.lib.format.read_array(stream, allow_pickle=False)
                    yield from (whole[index] for index in indices)
                    return
                for index in indices:
                    stream.seek(self.start + index * size)
                    data = stream.read(size)
                    if len(data) < size:
                        raise UsageError(f"{self.where} is damaged: it ends within sample {index}")
                    yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])
        except BROKEN as error:
            raise UsageError(f"{self.where} is damaged: {error}") from None


@dataclass
class ArraySource:
    """Samples made of the rows of stored arrays, one array per model input."""

    arrays: Mapping[str, StoredArray]
    inputs: Sequence[InputSpec]
    labels: Array | None = None
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return next(iter(self.arrays.values())).shape[0]

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield one sample per row.

        Raises:
            UsageError: A file is damaged, or a value is not finite or does not fit.
        """
        chosen = range(len(self)) if indices is None else indices
        columns = [self.arrays[spec.name].rows(chosen) for spec in self.inputs]
        for index, rows in zip(chosen, zip(*columns, strict=True), strict=True):
            feeds = {
                spec.name: convert(
                    row.reshape(spec.sample_shape), spec, f"{self.arrays[spec.name].where}, sample {index}"
                )
                for spec, row in zip(self.inputs, rows, strict=True)
            }
            yield Sample(feeds, None if self.labels is None else int(self.labels[index]))

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add the chosen rows as they are fed."""
        for sample in self.read(indices):
            hash_feeds(digest, sample.feeds)


def open_npz(path: Path, inputs: Sequence[InputSpec]) -> tuple[ArraySource, list[str]]:
    """Return the samples of a `.npz`, and notes on arrays that are not used.

    Raises:
        UsageError: The file is broken, or its arrays are not those the model wants.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except BROKEN as error:
        raise UsageError(f"{path} is not a readable .npz file: {error}") from None

    def opener(member: str) -> Callable[[], IO[bytes]]:
        return lambda: zipfile.ZipFile(path).open(member)

    stored = {name.removesuffix(".npy"): (opener(name), f"{path} ({name[:-4]})") for name in members}
    return _open(stored, inputs, str(path))


def open_npy_folder(folder: Path, inputs: Sequence[InputSpec]) -> tuple[ArraySource, list[str]]:
    """Return the samples of a folder of `.npy`; a file's stem is the input's name, with `/` and `:` as `_`.

    Raises:
        UsageError: A file is broken, or the arrays are not those the model wants.
    """
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    for spec in inputs:
        as_file = spec.name.replace("/", "_").replace(":", "_")
        if as_file in files and spec.name not in files:
            files[spec.name] = files.pop(as_file)

    def opener(file: Path) -> Callable[[], IO[bytes]]:
        return lambda: file.open("rb")

    return _open({name: (opener(file), str(file)) for name, file in files.items()}, inputs, str(folder))


def _open(
    stored: Mapping[str, tuple[Callable[[], IO[bytes]], str]], inputs: Sequence[InputSpec], where: str
) -> tuple[ArraySource, list[str]]:
    check_names(stored, inputs, where)
    arrays = {spec.name: StoredArray.find(*stored[spec.name]) for spec in inputs}
    for spec in inputs:
        array = arrays[spec.name]
        check_type(array.dtype, spec, where)
        if stack_axis(array.shape, spec) is None:
            raise UsageError(
                f"{array.where} has the shape {list(array.shape)}; input {spec} wants "
                f"{_expected(spec)}, N being the number of samples"
            )
    counts = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(f"{where}: the inputs have different numbers of samples: {counts}")
    if not all(counts.values()):
        raise UsageError(f"{where} holds no samples")
    labels = next((StoredArray.find(*stored[name]) for name in LABEL_NAMES if name in stored), None)
    unused = sorted(set(stored) - set(arrays) - set(LABEL_NAMES))
    notes = [f"{where}: not used, being no input of the model: {', '.join(unused)}"] if unused else []
    return ArraySource(arrays, inputs, _labels(labels, next(iter(counts.values())))), notes


def _expected(spec: InputSpec) -> str:
    stacked = spec.shape[1:] if len(spec.shape) >= 2 else spec.shape
    return "[" + ", ".join(["N", *map(str, stacked)]) + "]"


def _labels(stored: StoredArray | None, count: int) -> Array | None:
    if stored is None:
        return None
    if stored.shape != (count,) or stored.dtype.kind not in "iu":
        raise UsageError(f"{stored.where} should be {count} whole numbers, one class per sample")
    return np.asarray(list(stored.rows(range(count))))
