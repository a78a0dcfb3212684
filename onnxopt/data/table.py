"""A csv of `file,label` as a data set for classifiers, or of `file,text` as one for recognizers of text.

A column `label` holds class numbers; if most of its cells are none, they are texts.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxopt.data.folder import Role
from onnxopt.data.pictures import UNLABELLED, Known, Label, Lookup, Picture
from onnxopt.errors import UsageError


def list_table(path: Path, role: Role = "evaluation") -> tuple[list[Picture], list[str]]:  # noqa: ARG001 - has no splits
    """Return the pictures that a csv names with their classes or texts, and notes on those not found.

    The header must have a column `file`; `label` and `text` may be missing, other columns are ignored.

    Raises:
        UsageError: The file is no such csv, a label is no class number, or none of the pictures exists.
    """
    lookup = Lookup(path)
    pictures: list[Picture] = []
    missing: list[str] = []
    rows = list(_rows(path))
    for row, label in zip(rows, _labels(rows), strict=True):
        found = lookup.find(row.name)
        if found is None:
            missing.append(f"skipped {row.name}: named in {path}, but there is no such file")
        else:
            pictures.append(Picture(found, label, row.where))
    if not pictures and missing:
        raise UsageError(f"none of the {len(missing)} pictures that {path} names was found; looked in {lookup}")
    if not pictures:
        raise UsageError(f"{path} names no pictures")
    return pictures, missing


@dataclass(frozen=True)
class _Row:
    where: str
    name: str
    label: str | None
    text: str | None


def _rows(path: Path) -> Iterator[_Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [cell.strip().lower() for cell in next(rows, [])]
            if "file" not in header:
                raise UsageError(f"{path} has no header line with the columns file,label or file,text")
            for row in filter(None, rows):
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise UsageError(f"{where}: {len(row)} columns where the header has {len(header)}")
                cells = dict(zip(header, row, strict=True))
                yield _Row(where, cells["file"].strip(), cells.get("label"), cells.get("text"))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a readable csv file: {error}") from None


def _labels(rows: Sequence[_Row]) -> Iterator[Label]:
    empty = [row for row in rows if row.label is not None and not row.label.strip()]
    if empty and len(empty) < len(rows):
        raise UsageError(f"{empty[0].where}: no label, as other lines have; leave the picture out, or all labels")
    # One odd cell among numbers is a mistake; one number among words is a word.
    words = sum(row.label is not None and _number(row.label) is None for row in rows)
    for row in rows:
        if row.text is not None:
            yield Known(row.text)
        elif row.label is None or empty:
            yield UNLABELLED
        elif 2 * words > len(rows):
            yield Known(row.label)
        else:
            yield Known(_class(row.label, row.where))


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _class(text: str, where: str) -> int:
    label = _number(text)
    if label is None:
        raise UsageError(f"{where}: the label '{text}' is not a class number, as those of other lines are")
    if label < 0:
        raise UsageError(f"{where}: the class number {label} is negative")
    return label
