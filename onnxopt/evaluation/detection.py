"""Reads boxes out of a detector's raw output, whatever family it is of.

With H and W the size of the model's input and cells the number of grid points of its strides (H/8·W/8 + H/16·W/16 +
H/32·W/32 for the usual three), an output is told by its shape:

1. `[1, 4+nc+extra, cells]`: Ultralytics v8 and later. Centre, size, class scores; pixels. Extra rows (masks,
   keypoints) are ignored; how many there are follows from the number of class names in the metadata, or else from
   a second output of mask prototypes.
2. `[1, cells, 4+nc]`: the same transposed; only where the metadata's class names say so.
3. `[1, cells, 5+nc]`: YOLOX. Centre, size, objectness, class scores. Raw head if no centre lies beyond a quarter of
   the input, for then the values are offsets within a cell and logarithms; otherwise decoded, in pixels.
4. `[1, 3·cells, 5+nc]`: YOLOv5 and v7, three anchors a cell, decoded.
5. `[1, N ≤ 1000, 6+extra]`, N no number of cells: end-to-end. Corners, score, class. Extra columns only where the
   metadata says `end2end`.

Rotated boxes (metadata task `obb`) are not read. Boxes leave here as corners in pixels of the model's input.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from onnxopt.data import Array, Feeds

# Settings under which COCO's mean average precision is usually measured, and those for boxes worth showing.
SCORING_CONFIDENCE = 0.001
SHOWING_CONFIDENCE = 0.25
NMS_IOU = 0.65
MAX_DETECTIONS = 300
# Before suppression: a model that has gone wrong may fire everywhere, and greedy suppression is quadratic.
MAX_CANDIDATES = 30_000


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, the most confident first.

    Attributes:
        classes: Class numbers, int64[n].
        scores: Confidences in 0..1, float64[n].
        xyxy: Corners x1, y1, x2, y2 in pixels of the model's input, float64[n, 4].
    """

    classes: Array
    scores: Array
    xyxy: Array

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Layout:
    """Where a detector's boxes are: `kind` is one of the five shapes above (2 is read as 1).

    Attributes:
        output: Name of the output.
        kind: `columns`: 1 and 2; `objectness`: 3 and 4; `end-to-end`: 5.
        transposed: Boxes are rows, although `kind` is `columns`.
        class_count: Number of classes; None where the output does not tell (end-to-end).
        strides: Pixels per grid cell of each scale, finest first, where the output is raw or may be.
        size: (height, width) of the model's input.
    """

    output: str
    kind: Literal["columns", "objectness", "end-to-end"]
    size: tuple[int, int]
    class_count: int | None = None
    transposed: bool = False
    strides: tuple[int, ...] = ()


def class_names(metadata: Mapping[str, str]) -> dict[int, str] | None:
    """Return the class names in an Ultralytics model's metadata, or None."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError):
        return None
    if isinstance(names, list):
        names = dict(enumerate(names))
    return {int(k): str(v) for k, v in names.items()} if isinstance(names, dict) and names else None


def input_size(feeds: Feeds) -> tuple[int, int] | None:
    """Return (height, width) of the first input that is a picture, or None."""
    for array in feeds.values():
        if array.ndim == 4:
            first, second, third = array.shape[1:]
            return (first, second) if third in (1, 3, 4) and first not in (1, 3, 4) else (second, third)
    return None


def find_layout(outputs: Feeds, feeds: Feeds, metadata: Mapping[str, str]) -> Layout | None:
    """Return where the boxes are in a detector's outputs, or None if this is no detector that is known.

    Args:
        outputs: What the model gave for one sample.
        feeds: What it was fed.
        metadata: The model's `metadata_props`.
    """
    size = input_size(feeds)
    if size is None or metadata.get("task") == "obb":
        return None
    names = class_names(metadata)
    end_to_end = metadata.get("end2end") == "True"
    extra = next((array.shape[1] for array in outputs.values() if array.ndim == 4), 0)
    for output, array in outputs.items():
        if array.ndim != 3 or array.shape[0] != 1 or array.dtype.kind != "f":
            continue
        found = _grid_layout(output, array.shape[1:], size, len(names) if names else None, extra)
        if found is not None:
            return found
        _, rows, columns = array.shape
        if rows <= 1000 and (columns == 6 or (columns > 6 and end_to_end)):
            return Layout(output, "end-to-end", size)
    return None


def _grid_layout(
    output: str, shape: tuple[int, ...], size: tuple[int, int], named: int | None, extra: int
) -> Layout | None:
    """Return the layout of an output of shapes 1 to 4, `named` being the number of class names if known."""
    first, second = shape
    grids = dict(_grids(size))
    is_named_head = named is not None and first == 4 + named and second > first
    if second in grids or is_named_head:
        classes = named or first - 4 - extra
        return Layout(output, "columns", size, classes) if 1 <= classes <= first - 4 else None
    if first in grids and named is not None and second == 4 + named:
        return Layout(output, "columns", size, named, transposed=True)
    if second < 6:
        return None
    if first in grids:
        return Layout(output, "objectness", size, second - 5, strides=grids[first])
    if first % 3 == 0 and first // 3 in grids:
        return Layout(output, "objectness", size, named or second - 5)
    return None


def _grids(size: tuple[int, int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the number of cells and the strides of the usual sets of scales, the most usual last."""
    powers = (4, 8, 16, 32, 64)
    spans = sorted(combinations(range(len(powers) + 1), 2), key=lambda span: span == (1, 4))
    for start, stop in spans:
        strides = powers[start:stop]
        # A single scale would take any feature map for a detector.
        if len(strides) >= 2 and size[0] % strides[-1] == 0 and size[1] % strides[-1] == 0:
            yield sum((size[0] // stride) * (size[1] // stride) for stride in strides), strides


def detect(
    outputs: Feeds, layout: Layout, *, confidence: float = SCORING_CONFIDENCE, every_class: bool = True
) -> Detections:
    """Return the boxes of one picture after class-wise non-maximum suppression, `MAX_DETECTIONS` at most.

    Args:
        outputs: What the model gave.
        layout: Where the boxes are.
        confidence: Boxes scored no higher are dropped.
        every_class: A place may be reported once per class, as is usual in scoring; otherwise for its best only.
    """
    values = np.asarray(outputs[layout.output][0], np.float64)
    if layout.kind == "end-to-end":
        found = Detections(values[:, 5].astype(np.int64), values[:, 4], values[:, :4])
        order = np.argsort(-found.scores, kind="stable")[:MAX_DETECTIONS]
        return _pick(found, order[found.scores[order] > confidence])
    xyxy, scores = _decode(values, layout)
    if every_class:
        places, classes = np.nonzero(scores > confidence)
    else:
        classes = scores.argmax(axis=1)
        places = np.flatnonzero(scores.max(axis=1) > confidence)
        classes = classes[places]
    found = Detections(classes, scores[places, classes], xyxy[places])
    found = _pick(found, np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES])
    return _pick(found, suppress(found))


def _pick(found: Detections, indices: Array) -> Detections:
    return Detections(found.classes[indices], found.scores[indices], found.xyxy[indices])


def _decode(values: Array, layout: Layout) -> tuple[Array, Array]:
    """Return corners float64[n, 4] in input pixels and class scores float64[n, nc]."""
    assert layout.class_count is not None
    rows = values if layout.transposed or layout.kind == "objectness" else values.T
    boxes, scores = rows[:, :4], rows[:, 4 : 4 + layout.class_count]
    if layout.kind == "objectness":
        scores = rows[:, 4:5] * rows[:, 5 : 5 + layout.class_count]
        if layout.strides and np.abs(boxes[:, :2]).max() <= min(layout.size) / 4:
            boxes = _decode_grid(boxes, layout)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1), scores


def _decode_grid(boxes: Array, layout: Layout) -> Array:
    """Return centres and sizes in pixels of a raw YOLOX head.

    Ge et al. 2021, "YOLOX: Exceeding YOLO Series in 2021": centre = (t_xy + cell) · stride,
    size = exp(t_wh) · stride; cells row by row, finest scale first.
    """
    height, width = layout.size
    cells, strides = [], []
    for stride in layout.strides:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), float(stride)))
    cell, stride_of = np.concatenate(cells), np.concatenate(strides)
    # Sizes beyond e^20 pixels are nonsense already; the bound keeps them from becoming infinite.
    extent = np.exp(np.minimum(boxes[:, 2:], 20.0)) * stride_of
    return np.concatenate([(boxes[:, :2] + cell) * stride_of, extent], axis=1)


def suppress(found: Detections, iou: float = NMS_IOU, limit: int = MAX_DETECTIONS) -> Array:
    """Return the indices that greedy class-wise non-maximum suppression keeps, of detections sorted by score."""
    if not len(found):
        return np.zeros(0, np.int64)
    # Boxes of different classes are moved apart, so that one run serves all classes.
    span = found.xyxy.max() - found.xyxy.min() + 1.0
    boxes = found.xyxy + (found.classes * span)[:, None]
    rest = np.arange(len(found))
    kept: list[int] = []
    while rest.size and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        rest = rest[overlap(boxes[best : best + 1], boxes[rest])[0] <= iou]
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
