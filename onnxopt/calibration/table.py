"""The calibration table: the range of each tensor, where it came from, and its file.

The file is JSON with one line per tensor, sorted by name, so that two tables compare well in a diff. Numbers are
written so that they read back exactly.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.errors import UsageError
from onnxopt.model_io import write_text

FORMAT = "onnxopt calibration table"
VERSION = 1
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CalibrationEntry:
    """The range of one tensor.

    Attributes:
        low: lower end, finite, <= 0.
        high: upper end, finite, >= 0.
        method: how it was chosen, see `methods`; for `auto` the method that won.
        images: how many images were seen.
        derived_from: the tensors whose statistics it follows from; empty if it was measured.
    """

    low: float
    high: float
    method: str
    images: int
    derived_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, which is above high, {self.high}")
        if not -LARGEST <= self.low <= 0.0 <= self.high <= LARGEST:
            raise ValueError(f"the range [{self.low}, {self.high}] is not finite in float32 or does not contain 0")


class CalibrationTable:
    """Ranges by tensor name.

    Attributes:
        model: digest of the weights that the ranges belong to, see `store.weights_digest`; None where it is not known,
            as in a table written by hand.
        statistics: histograms and all, for passes of the same run; kept in memory only and may be empty.
    """

    def __init__(self, model: str | None = None) -> None:
        self._entries: dict[str, CalibrationEntry] = {}
        self.model = model
        self.statistics: dict[str, TensorStatistics] = {}

    def __setitem__(self, name: str, entry: CalibrationEntry) -> None:
        self._entries[name] = entry

    def __getitem__(self, name: str) -> CalibrationEntry:
        if name not in self._entries:
            raise UsageError(f"the calibration table has no range for tensor '{name}'; calibrate this model again")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that have no range, in the order given."""
        return [name for name in names if name not in self._entries]

    def to_json(self) -> str:
        """Text of the file: one line per tensor, in order of name."""
        rows = [f"    {json.dumps(name)}: {json.dumps(asdict(self._entries[name]))}" for name in self]
        model = f'  "model": {json.dumps(self.model)},\n' if self.model is not None else ""
        head = f'{{\n  "format": {json.dumps(FORMAT)},\n  "version": {VERSION},\n{model}  "tensors": {{\n'
        return head + ",\n".join(rows) + "\n  }\n}\n"

    def save(self, path: str | Path) -> None:
        """Write the table, whole or not at all.

        Raises:
            UsageError: the folder cannot be written, or the disk is full.
        """
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "CalibrationTable":
        """Read a table that `save` wrote.

        Raises:
            UsageError: the file cannot be read, is no calibration table, of another version, or damaged.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{path}: the calibration table cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: not a calibration table: {error}") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise UsageError(f'{path}: not a calibration table: no "format": "{FORMAT}" in it')
        if document.get("version") != VERSION:
            raise UsageError(
                f"{path}: calibration table of version {document.get('version')!r}; this is for version {VERSION}"
            )
        tensors, model = document.get("tensors"), document.get("model")
        if not isinstance(tensors, dict):
            raise UsageError(f'{path}: the calibration table has no "tensors"')
        if not isinstance(model, str | None):
            raise UsageError(f'{path}: "model" is a digest in quotes, not {model!r}; leave it out if it is not known')
        table = cls(model)
        for name, row in tensors.items():
            table[name] = _entry(path, name, row)
        return table


def _entry(path: str | Path, name: str, row: Any) -> CalibrationEntry:
    """Make an entry of a row of the file."""
    try:
        return CalibrationEntry(
            low=float(row["low"]),
            high=float(row["high"]),
            method=str(row["method"]),
            images=int(row["images"]),
            derived_from=tuple(str(source) for source in row["derived_from"]),
        )
    except KeyError as error:
        raise UsageError(f"{path}: tensor '{name}' has no {error} in the calibration table") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{path}: tensor '{name}' is damaged in the calibration table: {error}") from None
