"""A source of picture files with their labels, and where pictures are looked for on disk."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onnxopt.data.dataset import Digest, read_ahead
from onnxopt.data.images import SUFFIXES, UNREADABLE_PICTURE, PictureInput
from onnxopt.data.sample import ImageInfo, Sample


class Label(Protocol):
    """A label that is read together with its picture, because it needs the picture's size."""

    def read(self, image: ImageInfo) -> Any:
        """Return the label.

        Raises:
            UsageError: The label is broken; the message names its file.
        """


@dataclass(frozen=True)
class Known:
    """A label that needs nothing of its picture."""

    value: Any

    def read(self, image: ImageInfo) -> Any:  # noqa: ARG002 - the protocol's signature
        """Return the label."""
        return self.value


UNLABELLED = Known(None)


@dataclass(frozen=True)
class Picture:
    """A picture file and its label.

    Attributes:
        path: The file.
        label: Its label.
        where: File and line in which that stands, where one line of a file holds it.
    """

    path: Path
    label: Label = UNLABELLED
    where: str = ""


@dataclass
class PictureSource:
    """Pictures on disk, decoded two at a time a few ahead of the reader."""

    pictures: Sequence[Picture]
    input: PictureInput
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the pictures' samples; an unreadable picture is recorded in `skipped` and left out."""
        for sample in read_ahead(self._load, self._chosen(indices)):
            if sample is not None:
                yield sample

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add the preprocessing and the bytes of the files; their paths do not matter."""
        digest.update(f"{self.input.spec} {self.input.preprocess}".encode())
        for index in self._chosen(indices):
            try:
                with self.pictures[index].path.open("rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
            except OSError as error:
                self._skip(index, error)
            digest.update(b"|")

    def _load(self, index: int) -> Sample | None:
        picture = self.pictures[index]
        try:
            tensor, image = self.input.load(picture.path)
        except UNREADABLE_PICTURE as error:
            self._skip(index, error)
            return None
        return Sample({self.input.spec.name: tensor}, picture.label.read(image), image, picture.where)

    def _skip(self, index: int, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.skipped[index] = f"skipped {self.pictures[index].path}: not readable ({reason})"

    def _chosen(self, indices: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.pictures)) if indices is None else indices


def pictures_below(folder: Path) -> list[Path]:
    """Return all picture files below a folder, sorted; links to folders are followed, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in files if is_picture(name)]
    return sorted(found)


def is_picture(name: str) -> bool:
    """Tell whether a file's name is that of a picture; hidden files are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


class Lookup:
    """Finds the pictures that an annotation file names.

    They may lie beside the file, then in `NAME/`, `images/` and `images/NAME/`, NAME being the file's stem.
    """

    def __init__(self, annotations: Path) -> None:
        beside, stem = annotations.parent, annotations.stem
        self.folders = [beside, beside / stem, beside / "images", beside / "images" / stem]

    def find(self, name: str) -> Path | None:
        """Return the file of this name (which may contain folders), or None."""
        return next((path for folder in self.folders if (path := folder / name).is_file()), None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders))
