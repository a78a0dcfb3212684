"""An Ultralytics `data.yaml` as a data set for detectors.

Format: https://docs.ultralytics.com/datasets/detect. `train` and `val` are a folder, a `.txt` that lists pictures,
or a list of these, relative to `path`, which is relative to the yaml. Labels lie in `labels/` where pictures lie
in `images/`, otherwise beside them; each line is a class and a centred box, or a class and an outline, in shares
of the picture's size. Calibration reads `train` and never `val`; evaluation reads `val`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from onnxopt.data.folder import Role
from onnxopt.data.pictures import Picture, is_picture, pictures_below
from onnxopt.data.sample import Array, Boxes, Categories, ImageInfo
from onnxopt.errors import UsageError

SPLITS: Mapping[Role, str] = {"calibration": "train", "evaluation": "val"}


def list_ultralytics(path: Path, role: Role) -> tuple[list[Picture], list[str]]:
    """Return the labelled pictures of the split that a role reads, and what was guessed.

    Raises:
        UsageError: The yaml is broken or lacks the split, or the split holds no pictures.
    """
    content = _load(path)
    split = SPLITS[role]
    remarks = [f"{path}: the split '{split}' is read"]
    root = _root(content, path, remarks)
    paths = _split_paths(content, split, path, root, remarks)
    if not paths:
        raise UsageError(f"{path}: '{split}' holds no pictures")
    if content.get("train") == content.get("val"):
        remarks.append(f"{path}: train and val are the same pictures, so a score says nothing about new ones")
    categories = _categories(content, path)
    files = [_label_file(picture) for picture in paths]
    if not any(file.is_file() for file in files):
        remarks.append(f"no labels were found for {split} of {path} (looked for {files[0]} and so on)")
        return [Picture(picture) for picture in paths], remarks
    keypoints = "kpt_shape" in content
    labelled = zip(paths, files, strict=True)
    return [
        Picture(picture, BoxFile(file, number, categories, keypoints))
        for number, (picture, file) in enumerate(labelled, 1)
    ], remarks


@dataclass(frozen=True)
class BoxFile:
    """A label file of Ultralytics' format; a missing one means a picture without objects."""

    path: Path
    image_id: int
    categories: Categories
    keypoints: bool = False

    def read(self, image: ImageInfo) -> Boxes:
        """Return the boxes in pixels of the picture.

        Raises:
            UsageError: A line cannot be read, or its class is not among the names.
        """
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the labels {self.path} cannot be read: {error}") from None
        classes: list[int] = []
        corners: list[Array] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                values = np.asarray([float(value) for value in line.split()])
                corners.append(self._corners(values[1:]))
                classes.append(self._class(values[0]))
            except ValueError as error:
                raise UsageError(f"labels {self.path}, line {number}: {error}") from None
        size = np.asarray([image.width, image.height] * 2)
        xyxy = np.asarray(corners, np.float64).reshape(-1, 4) * size
        return Boxes.from_corners(self.image_id, np.asarray(classes), xyxy, self.categories)

    def _class(self, value: float) -> int:
        if value not in self.categories.ids:
            raise ValueError(f"class {value:g} is not among the {len(self.categories.ids)} names of the yaml")
        return self.categories.ids.index(int(value))

    def _corners(self, values: Array) -> Array:
        """Return x1, y1, x2, y2 as shares of the picture."""
        if not np.isfinite(values).all():
            raise ValueError("not a number")
        if len(values) == 4 or (self.keypoints and len(values) > 4):
            x, y, width, height = values[:4]
            return np.asarray([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        if len(values) < 6 or len(values) % 2:
            raise ValueError(f"{len(values)} numbers after the class, where a box has 4 and an outline 6, 8, …")
        outline = values.reshape(-1, 2)
        return np.concatenate([outline.min(axis=0), outline.max(axis=0)])


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not a readable yaml file: {reason}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not an Ultralytics data.yaml: it has no 'train' and 'val'")
    return content


def _categories(content: Mapping[str, Any], path: Path) -> Categories:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and isinstance(content.get("nc"), int):
        names = {number: str(number) for number in range(content["nc"])}
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise UsageError(f"{path}: 'names' should list the classes, as in 'names: {{0: cat, 1: dog}}'")
    return Categories(tuple(sorted(names)), tuple(str(names[number]) for number in sorted(names)))


def _root(content: Mapping[str, Any], path: Path, remarks: list[str]) -> Path:
    """Return the folder that train and val are relative to."""
    given = content.get("path")
    if given is None:
        return path.parent
    root = path.parent / str(given)
    if root.is_dir():
        return root
    remarks.append(f"{path}: its 'path', {given}, does not exist here; the yaml's own folder is used")
    return path.parent


def _split_paths(content: Mapping[str, Any], split: str, path: Path, root: Path, remarks: list[str]) -> list[Path]:
    entry = content.get(split)
    if not entry:
        have = ", ".join(name for name in ("train", "val", "test") if content.get(name)) or "no split at all"
        raise UsageError(f"{path} has no '{split}', which is needed here; it has {have}")
    entries = entry if isinstance(entry, list) else [entry]
    return [picture for one in entries for picture in _expand(str(one), split, path, root, remarks)]


def _expand(entry: str, split: str, path: Path, root: Path, remarks: list[str]) -> list[Path]:
    place = root / entry
    if not place.exists() and entry.startswith("../") and (root / entry[3:]).exists():
        # Some exporters write paths relative to a folder that is not there.
        place = root / entry[3:]
        remarks.append(f"{path}: '{split}' is taken for {place}, since {root / entry} does not exist")
    if place.is_dir():
        return pictures_below(place)
    if place.is_file() and place.suffix == ".txt":
        return _listed(place, root, remarks)
    if place.is_file() and is_picture(place.name):
        return [place]
    raise UsageError(f"{path}: '{split}' names {place}, which is neither a folder nor a .txt list of pictures")


def _listed(listing: Path, root: Path, remarks: list[str]) -> list[Path]:
    """Return the pictures of a .txt, one a line, relative to the .txt or to the data set."""
    pictures: list[Path] = []
    for line in filter(None, map(str.strip, listing.read_text(encoding="utf-8").splitlines())):
        found = next((place / line for place in (listing.parent, root) if (place / line).is_file()), None)
        if found is None:
            remarks.append(f"skipped {line}: named in {listing}, but there is no such file")
        else:
            pictures.append(found)
    return pictures


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")
