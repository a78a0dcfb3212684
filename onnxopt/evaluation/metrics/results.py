"""Found objects in COCO's format of results, https://cocodataset.org/#format-results, in pixels of the original."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from onnxopt.data import ImageInfo
from onnxopt.evaluation.decoding import Detections, rotated_corners

Fields: TypeAlias = list[dict[str, Any]]


def coco_results(shapes: Fields, found: Detections, image_id: int, ids: Mapping[int, int]) -> Fields:
    """Return found objects as results.

    Args:
        shapes: What each is like: fields of one or more of the functions below.
        found: The objects, all of classes that `ids` has.
        image_id: Number of the picture.
        ids: Class of the model to category of the labels.
    """
    return [
        {"image_id": image_id, "category_id": ids[number], **shape, "score": score}
        for shape, number, score in zip(shapes, found.classes.tolist(), found.scores.tolist(), strict=True)
    ]


def box_fields(found: Detections, image: ImageInfo) -> Fields:
    """Return upright boxes: left, top, width, height."""
    xyxy = image.to_original(found.xyxy)
    return [{"bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in xyxy.tolist()]


def mask_fields(found: Detections, image: ImageInfo) -> Fields:
    """Return run-length encoded masks of the original's size; needs pycocotools."""
    from pycocotools import mask  # noqa: PLC0415 - optional

    assert found.masks is not None
    drawn = found.masks.drawn(image, image.to_original(found.xyxy))
    encoded = [mask.encode(np.asfortranarray(one, np.uint8)) for one in drawn]
    return [{"segmentation": {"size": e["size"], "counts": e["counts"].decode()}} for e in encoded]


def keypoint_fields(found: Detections, image: ImageInfo) -> Fields:
    """Return keypoints as x, y and confidence, one after the other."""
    assert found.keypoints is not None
    points = np.concatenate([image.points_to_original(found.keypoints[..., :2]), found.keypoints[..., 2:]], axis=2)
    return [{"keypoints": one} for one in points.reshape(len(points), -1).tolist()]


def rotated_fields(found: Detections, image: ImageInfo) -> Fields:
    """Return the corners of rotated boxes as `poly`, x and y in turn, beside the upright boxes around them."""
    assert found.rotated is not None
    corners = image.points_to_original(rotated_corners(found.rotated)).reshape(-1, 8)
    return [box | {"poly": one} for box, one in zip(box_fields(found, image), corners.tolist(), strict=True)]


def all_fields(found: Detections, image: ImageInfo) -> Fields:
    """Return everything that is known of each object."""
    kinds = [rotated_fields if found.rotated is not None else box_fields]
    kinds += [mask_fields] if found.masks is not None else []
    kinds += [keypoint_fields] if found.keypoints is not None else []
    described = [kind(found, image) for kind in kinds]
    return [{name: value for fields in each for name, value in fields.items()} for each in zip(*described, strict=True)]
