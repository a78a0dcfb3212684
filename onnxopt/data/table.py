"""A csv of `file,label` as a data set for classifiers."""

import csv
from collections.abc import Iterator
from pathlib import Path

from onnxopt.data.pictures import UNLABELLED, Known, Label, Lookup, Picture
from onnxopt.errors import UsageError


def list_table(path: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures that a csv names with their class numbers, and notes on those not found.

    The header must have a column `file`; `label` may be missing, other columns are ignored.

    Raises:
        UsageError: The file is no such csv, a label is no class number, or none of the pictures exists.
    """
    lookup = Lookup(path)
    pictures: list[Picture] = []
    missing: list[str] = []
    for name, label in _rows(path):
        found = lookup.find(name)
        if found is None:
            missing.append(f"skipped {name}: named in {path}, but there is no such file")
        else:
            pictures.append(Picture(found, label))
    if not pictures and missing:
        raise UsageError(f"none of the {len(missing)} pictures that {path} names was found; looked in {lookup}")
    if not pictures:
        raise UsageError(f"{path} names no pictures")
    return pictures, missing


def _rows(path: Path) -> Iterator[tuple[str, Label]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [cell.strip().lower() for cell in next(rows, [])]
            if "file" not in header:
                raise UsageError(f"{path} has no header line with the columns file,label")
            file_column = header.index("file")
            label_column = header.index("label") if "label" in header else None
            for row in filter(None, rows):
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise UsageError(f"{where}: {len(row)} columns where the header has {len(header)}")
                label = UNLABELLED if label_column is None else Known(_label(row[label_column], where))
                yield row[file_column].strip(), label
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a readable csv file: {error}") from None


def _label(text: str, where: str) -> int:
    try:
        label = int(text)
    except ValueError:
        raise UsageError(f"{where}: the label '{text}' is not a class number") from None
    if label < 0:
        raise UsageError(f"{where}: the class number {label} is negative")
    return label
