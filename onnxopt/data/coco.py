"""A COCO json as a data set for detectors.

The format is that of https://cocodataset.org/#format-data.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onnxopt.data.folder import Role
from onnxopt.data.pictures import UNLABELLED, Known, Lookup, Picture
from onnxopt.data.sample import Array, Boxes, Categories
from onnxopt.errors import UsageError


def list_coco(path: Path, role: Role = "evaluation") -> tuple[list[Picture], list[str]]:  # noqa: ARG001 - has no splits
    """Return the pictures of a COCO json with their boxes, in the file's order, and notes on those not found.

    Raises:
        UsageError: The file is no COCO json, is inconsistent, or none of its pictures exists.
    """
    content = _load(path)
    try:
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        labels = _labels(content, path) if "annotations" in content else None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not laid out as a COCO json: one of its entries {_broken(error)}") from None
    if len(names) < len(content["images"]):
        raise UsageError(f"{path}: several images have the same id")
    lookup = Lookup(path)
    pictures: list[Picture] = []
    notes = [f"{path} has no annotations: its pictures are unlabelled"] if labels is None else _stray(content, path)
    for image_id, name in names.items():
        found = lookup.find(name)
        if found is None:
            notes.append(f"skipped {name}: named in {path}, but there is no such file")
        else:
            pictures.append(Picture(found, UNLABELLED if labels is None else Known(labels[image_id])))
    if not pictures:
        raise UsageError(f"none of the {len(names)} pictures that {path} names was found; looked in {lookup}")
    return pictures, notes


def _stray(content: Mapping[str, Any], path: Path) -> list[str]:
    """Say how many annotations belong to no picture."""
    listed = {int(image["id"]) for image in content["images"]}
    stray = sum(int(annotation["image_id"]) not in listed for annotation in content["annotations"])
    return [f"{path}: {stray} annotations are of images that it does not list; they are not used"] if stray else []


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a readable json file: {error}") from None
    except RecursionError:
        raise UsageError(f"{path} is not a COCO json: it is nested too deep") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UsageError(f"{path} is not a COCO json: it has no list 'images'")
    return content


def _labels(content: Mapping[str, Any], path: Path) -> dict[int, Boxes]:
    """Return the boxes of each picture; the model's classes are the categories in the order of their ids."""
    known = sorted((int(category["id"]), str(category["name"])) for category in content["categories"])
    categories = Categories(tuple(number for number, _ in known), tuple(name for _, name in known))
    position = {number: index for index, number in enumerate(categories.ids)}
    objects: dict[int, list[_Object]] = defaultdict(list)
    for place, annotation in enumerate(content["annotations"]):
        try:
            objects[int(annotation["image_id"])].append(_object(annotation, position))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            number = annotation.get("id", place) if isinstance(annotation, dict) else place
            raise UsageError(f"{path}: annotation {number} {_broken(error)}") from None
    return {
        image_id: _boxes(image_id, objects.get(image_id, ()), categories)
        for image_id in (int(image["id"]) for image in content["images"])
    }


def _broken(error: Exception) -> str:
    """What is wrong with a part of the file, in words."""
    return f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"


class _Object(NamedTuple):
    numbers: tuple[float, ...]  # class, x1, y1, x2, y2, area and crowd
    outline: Any
    keypoints: Array | None


def _object(annotation: Mapping[str, Any], position: Mapping[int, int]) -> _Object:
    box = np.asarray(annotation["bbox"], np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] < 0).any():
        raise ValueError(f"its bbox is {annotation['bbox']}, not left, top, width and height")
    left, top, width, height = box.tolist()
    area = float(annotation.get("area", width * height))
    crowd = float(bool(annotation.get("iscrowd", 0)))
    category = int(annotation["category_id"])
    if category not in position:
        raise ValueError(f"its category_id {category} is none of the {len(position)} categories")
    number = position[category]
    points = annotation.get("keypoints")
    return _Object(
        (number, left, top, left + width, top + height, area, crowd),
        annotation.get("segmentation") or None,
        np.asarray(points, np.float64).reshape(-1, 3) if points else None,
    )


def _boxes(image_id: int, objects: Sequence[_Object], categories: Categories) -> Boxes:
    table = np.asarray([each.numbers for each in objects], np.float64).reshape(-1, 7)
    outlines = [each.outline for each in objects]
    points = [each.keypoints for each in objects if each.keypoints is not None]
    pointed = points and len(points) == len(objects) and len({len(each) for each in points}) == 1
    return Boxes(
        image_id=image_id,
        classes=table[:, 0].astype(np.int64),
        xyxy=table[:, 1:5],
        area=table[:, 5],
        crowd=table[:, 6] > 0,
        categories=categories,
        outlines=outlines if None not in outlines else None,
        keypoints=np.stack(points) if pointed else None,
    )
