"""A COCO json as a data set for detectors.

The format is that of https://cocodataset.org/#format-data; outlines are not read, only boxes.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.data.pictures import UNLABELLED, Known, Lookup, Picture
from onnxopt.data.sample import Boxes, Categories
from onnxopt.errors import UsageError


def list_coco(path: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures of a COCO json with their boxes, in the file's order, and notes on those not found.

    Raises:
        UsageError: The file is no COCO json, is inconsistent, or none of its pictures exists.
    """
    content = _load(path)
    try:
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        labels = _labels(content, path) if "annotations" in content else None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not laid out as a COCO json: {error!r}") from None
    if len(names) < len(content["images"]):
        raise UsageError(f"{path}: several images have the same id")
    lookup = Lookup(path)
    pictures: list[Picture] = []
    notes = [] if labels is not None else [f"{path} has no annotations: its pictures are unlabelled"]
    for image_id, name in names.items():
        found = lookup.find(name)
        if found is None:
            notes.append(f"skipped {name}: named in {path}, but there is no such file")
        else:
            pictures.append(Picture(found, UNLABELLED if labels is None else Known(labels[image_id])))
    if not pictures:
        raise UsageError(f"none of the {len(names)} pictures that {path} names was found; looked in {lookup}")
    return pictures, notes


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a readable json file: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UsageError(f"{path} is not a COCO json: it has no list 'images'")
    return content


def _labels(content: Mapping[str, Any], path: Path) -> dict[int, Boxes]:
    """Return the boxes of each picture; the model's classes are the categories in the order of their ids."""
    known = sorted((int(category["id"]), str(category["name"])) for category in content["categories"])
    categories = Categories(tuple(number for number, _ in known), tuple(name for _, name in known))
    position = {number: index for index, number in enumerate(categories.ids)}
    rows: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for place, annotation in enumerate(content["annotations"]):
        try:
            rows[int(annotation["image_id"])].append(_row(annotation, position))
        except (KeyError, TypeError, ValueError) as error:
            number = annotation.get("id", place) if isinstance(annotation, dict) else place
            raise UsageError(f"{path}: annotation {number} is broken: {error!r}") from None
    return {
        image_id: _boxes(image_id, rows.get(image_id, ()), categories)
        for image_id in (int(image["id"]) for image in content["images"])
    }


def _row(annotation: Mapping[str, Any], position: Mapping[int, int]) -> tuple[float, ...]:
    """Return class, x1, y1, x2, y2, area and crowd of one object."""
    left, top, width, height = map(float, annotation["bbox"])
    if not np.isfinite([left, top, width, height]).all() or width < 0 or height < 0:
        raise ValueError(f"bbox {annotation['bbox']}")
    area = float(annotation.get("area", width * height))
    crowd = float(bool(annotation.get("iscrowd", 0)))
    return position[int(annotation["category_id"])], left, top, left + width, top + height, area, crowd


def _boxes(image_id: int, rows: Iterable[tuple[float, ...]], categories: Categories) -> Boxes:
    table = np.asarray(list(rows), np.float64).reshape(-1, 7)
    return Boxes(
        image_id=image_id,
        classes=table[:, 0].astype(np.int64),
        xyxy=table[:, 1:5],
        area=table[:, 5],
        crowd=table[:, 6] > 0,
        categories=categories,
    )
