"""An Ultralytics `data.yaml` as a data set for detectors.

Format: https://docs.ultralytics.com/datasets/detect. `train` and `val` are a folder, a `.txt` that lists pictures,
or a list of these, relative to `path`, which is relative to the yaml. Labels lie in `labels/` where pictures lie
in `images/`, otherwise beside them; see `label_file`. Calibration reads `train` and never `val`; evaluation reads
`val`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from onnxopt.data.folder import Role
from onnxopt.data.label_file import LabelFile
from onnxopt.data.pictures import Picture, is_picture, pictures_below
from onnxopt.data.sample import Categories
from onnxopt.errors import UsageError

NO_LABELS = frozenset({"classes.txt", "train.txt", "val.txt", "test.txt"})  # of labelling tools, and of splits
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
    remarks += _unpaired(paths, files)
    keypoints = _keypoint_shape(content, path)
    labelled = zip(paths, files, strict=True)
    return [
        Picture(picture, LabelFile(file, number, categories, keypoints))
        for number, (picture, file) in enumerate(labelled, 1)
    ], remarks


def _unpaired(pictures: Sequence[Path], files: Sequence[Path]) -> list[str]:
    """Say which pictures have no labels, and which labels no picture."""
    remarks = []
    bare = [picture for picture, file in zip(pictures, files, strict=True) if not file.is_file()]
    if bare:
        remarks.append(
            f"{len(bare)} of {len(pictures)} pictures have no label file, {bare[0]} being the first: "
            "they are taken to show no objects"
        )
    known = set(files)
    beside = sorted({file.parent for file in files})
    stray = [file for folder in beside for file in sorted(folder.glob("*.txt")) if file not in known]
    stray = [file for file in stray if file.name not in NO_LABELS]
    if stray:
        remarks.append(f"{len(stray)} label files have no picture, {stray[0]} being the first: they are not used")
    return remarks


def _keypoint_shape(content: Mapping[str, Any], path: Path) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise UsageError(f"{path}: 'kpt_shape' should be how many keypoints there are and 2 or 3, as in [17, 3]")
    if shape[1] not in {2, 3}:
        raise UsageError(f"{path}: 'kpt_shape' {shape} should end in 2 (x, y) or 3 (and visibility)")
    return shape[0], shape[1]


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not a readable yaml file: {reason}") from None
    except RecursionError:
        raise UsageError(f"{path} is not an Ultralytics data.yaml: it is nested too deep") from None
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
