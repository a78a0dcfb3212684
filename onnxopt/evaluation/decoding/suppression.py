"""Of objects that overlap, only the most confident stays: greedy non-maximum suppression, class by class."""

import numpy as np

from onnxopt.data import Array
from onnxopt.evaluation.decoding.readings import Detections
from onnxopt.kernels import keep_boxes

# A model that has gone wrong may fire everywhere, and greedy suppression is quadratic.
MAX_CANDIDATES = 30_000
_SLIVER = 1e-7


def strongest(found: Detections, iou: float, limit: int) -> Detections:
    """Return the objects that stay, the most confident first, `limit` at most."""
    ordered = found.pick(np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES])
    return ordered.pick(suppress(ordered, iou, limit))


def suppress(found: Detections, iou: float, limit: int = 300) -> Array:
    """Return the indices that greedy class-wise suppression keeps, of objects sorted by score."""
    if not len(found):
        return np.zeros(0, np.int64)
    if found.rotated is None:
        return keep_boxes(found.xyxy, found.classes, iou, limit)
    # Objects of different classes are moved apart, so that one run serves all classes.
    apart = (found.classes * (found.xyxy.max() - found.xyxy.min() + 1.0))[:, None]
    boxes = np.concatenate([found.rotated[:, :2] + apart, found.rotated[:, 2:]], axis=1)
    rest = np.arange(len(boxes))
    kept: list[int] = []
    while rest.size and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        rest = rest[rotated_overlap(boxes[best : best + 1], boxes[rest])[0] <= iou]
    return np.asarray(kept, np.int64)


def overlap(a: Array, b: Array) -> Array:
    """Return intersection over union of each box of `a` float[n, 4] with each of `b` float[m, 4], float[n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0.0, None), axis=2)
    area_a = np.prod(np.clip(a[:, 2:] - a[:, :2], 0.0, None), axis=1)
    area_b = np.prod(np.clip(b[:, 2:] - b[:, :2], 0.0, None), axis=1)
    union = area_a[:, None] + area_b[None, :] - common
    return np.asarray(common / np.maximum(union, 1e-12))


def rotated_overlap(a: Array, b: Array) -> Array:
    """Return how far rotated boxes float[n, 5] and float[m, 5] overlap, 0..1, float[n, m].

    Each box is taken for a Gaussian of its own spread; the value is 1 - Hellinger distance. Llerena et al. 2021,
    "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection"; what Ultralytics
    suppresses by.
    """
    (ax, ay), (aa, ab, ac) = a[:, None, :2].transpose(2, 0, 1), (v[:, None] for v in _covariance(a))
    (bx, by), (ba, bb, bc) = b[None, :, :2].transpose(2, 0, 1), (v[None, :] for v in _covariance(b))
    sa, sb, sc = aa + ba, ab + bb, ac + bc
    spread = np.maximum(sa * sb - sc**2, _SLIVER)
    apart = ((sa * (ay - by) ** 2 + sb * (ax - bx) ** 2) / 4 + sc * (bx - ax) * (ay - by) / 2) / spread
    own = np.sqrt(np.maximum(aa * ab - ac**2, 0) * np.maximum(ba * bb - bc**2, 0))
    shape = np.log(spread / (4 * own + _SLIVER) + _SLIVER) / 2
    distance = np.clip(apart + shape, _SLIVER, 100.0)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + _SLIVER))


def _covariance(boxes: Array) -> tuple[Array, Array, Array]:
    """Variances along x and y, and covariance, of boxes float[n, 5] seen as even spreads."""
    wide, high = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return wide * cos**2 + high * sin**2, wide * sin**2 + high * cos**2, (wide - high) * cos * sin
