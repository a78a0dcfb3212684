"""Heads with one prediction per grid cell and anchor, not yet suppressed.

With H and W the size of the model's input and cells the number of grid points of its strides (H/8·W/8 + H/16·W/16 +
H/32·W/32 for the usual three):

1. `[1, 4+nc+extra, cells]`: Ultralytics v8 and later, v5u, v9, 11, 12, 26. Centre, size, class scores; pixels. The
   extra rows are mask coefficients (`-seg`), keypoints (`-pose`) or an angle (`-obb`).
2. `[1, cells, 4+nc+extra]`: the same transposed; only where the metadata's class names say so.
3. `[1, cells, 5+nc]`: YOLOX. Centre, size, objectness, class scores. Raw head if no centre lies beyond a quarter of
   the input, for then the values are offsets within a cell and logarithms; otherwise decoded, in pixels.
4. `[1, 3·cells, 5+nc+extra]`: YOLOv5 and v7, three anchors a cell, decoded; extra being mask coefficients.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxopt.data import Array, Feeds
from onnxopt.evaluation.decoding.decoder import SCORING, Decoder, Family, Head, Task, Thresholds
from onnxopt.evaluation.decoding.extras import CALLED, Extra, find_extra, prototypes
from onnxopt.evaluation.decoding.grids import cell_counts, from_cells
from onnxopt.evaluation.decoding.readings import Detections
from onnxopt.evaluation.decoding.suppression import strongest

BOX = 4  # numbers of a box, always first


@dataclass(frozen=True)
class Dense(Decoder):
    """A dense head.

    Attributes:
        name: Of its family.
        output: Name of the output.
        extra: What follows the classes.
        class_count: Number of classes.
        objectness: Whether a fifth column says how likely there is anything at all.
        columns_last: Whether predictions are rows.
        strides: Pixels per grid cell of each scale, finest first, where the output may be raw; else empty.
    """

    name: str
    output: str
    extra: Extra
    class_count: int
    objectness: bool = False
    columns_last: bool = False
    strides: tuple[int, ...] = ()

    @property
    def task(self) -> Task:  # type: ignore[override]
        """What the extra columns are for."""
        return self.extra.task

    def decode(self, outputs: Feeds, thresholds: Thresholds = SCORING) -> Detections:
        """Return the objects after class-wise suppression."""
        rows = self._rows(outputs)
        boxes, scores = rows[:, :BOX], self.confidences(rows)
        if thresholds.every_class:
            places, classes = np.nonzero(scores > thresholds.confidence)
        else:
            classes = scores.argmax(axis=1)
            places = np.flatnonzero(scores.max(axis=1) > thresholds.confidence)
            classes = classes[places]
        boxes = self._boxes(boxes)[places]
        rest = self.extra.read(boxes, rows[places, self._first_extra :], outputs)
        return strongest(Detections(classes, scores[places, classes], **rest), thresholds.iou, thresholds.limit)

    def confidences(self, rows: Array) -> Array:
        """Return class scores [..., nc] of predictions [..., columns], times objectness where there is one."""
        scores = rows[..., BOX + self.objectness : self._first_extra]
        return scores * rows[..., BOX : BOX + 1] if self.objectness else scores

    def parts(self, outputs: Feeds) -> dict[str, Array]:
        """Boxes, scores (objectness among them) and what follows apart, float[1, n, …]."""
        whole = dict(outputs)
        values = whole.pop(self.output)
        rows = values if self.columns_last else np.swapaxes(values, 1, 2)
        whole[f"{self.output} (boxes)"] = rows[..., :BOX]
        whole[f"{self.output} (scores)"] = rows[..., BOX : self._first_extra]
        if rows.shape[-1] > self._first_extra:
            whole[f"{self.output} ({CALLED[self.task]})"] = rows[..., self._first_extra :]
        return whole

    @property
    def _first_extra(self) -> int:
        return BOX + self.objectness + self.class_count

    def _rows(self, outputs: Feeds) -> Array:
        values = np.asarray(outputs[self.output][0], np.float64)
        return values if self.columns_last else values.T

    def _boxes(self, boxes: Array) -> Array:
        """Return corners of upright boxes, centres and sizes of rotated ones, in pixels."""
        if self.strides and np.abs(boxes[:, :2]).max() <= min(self.extra.size) / 4:
            boxes = from_cells(boxes, self.extra.size, self.strides)
        if self.task == "obb":
            return boxes
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _tables(head: Head) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the name and the last two sizes of each output that may be a table of predictions."""
    for name, array in head.outputs.items():
        if array.ndim == 3 and array.shape[0] == 1 and array.dtype.kind == "f":
            yield name, (array.shape[1], array.shape[2])


def find_yolo(head: Head, options: Mapping[str, str], *, task: Task) -> Dense | None:
    """Return the decoder of shapes 1 and 2."""
    extra = find_extra(head, task, options)
    suits = head.named or head.task == task or (head.task == "" and task == "segment")
    if task == "detect":  # also what is left of the others where their extra columns cannot be told
        suits = suits or head.task != "obb"
    if extra is None or not suits:
        return None
    name = "yolo" if task == "detect" else f"yolo-{task.removesuffix('ment')}"
    for output, shape in _tables(head):
        for columns_last in (False, True):
            count = _class_count(head, extra, shape[::-1] if columns_last else shape, transposed=columns_last)
            if count is not None:
                return Dense(name, output, extra, count, columns_last=columns_last)
    return None


def _class_count(head: Head, extra: Extra, shape: tuple[int, int], *, transposed: bool) -> int | None:
    """Return the number of classes of a head of (columns, predictions); None where these cannot be such."""
    columns, predictions = shape
    known = len(head.class_names) if head.class_names else None
    exact = known is not None and columns == BOX + known + extra.width
    usual = predictions in cell_counts(extra.size)
    if head.named:
        told = exact or predictions > columns
    else:
        told = exact and usual if transposed else usual or (exact and predictions > columns)
    return _room(columns, extra, known) if told else None


def _room(columns: int, extra: Extra, known: int | None) -> int | None:
    count = known or columns - BOX - extra.width
    fits = BOX + count + extra.width == columns or (not extra.width and BOX + count <= columns)
    return count if count >= 1 and fits else None


def find_objectness(head: Head, options: Mapping[str, str], *, anchors: int) -> Dense | None:  # noqa: ARG001
    """Return the decoder of shape 3 (one anchor a cell) or 4 (three)."""
    if head.size is None or not (head.named or head.task in {"", "detect", "segment"}):
        return None
    grids = cell_counts(head.size)
    masks = find_extra(head, "segment", {}) if anchors == 3 and prototypes(head) else None
    for output, (rows, columns) in _tables(head):
        usual = rows % anchors == 0 and rows // anchors in grids
        # Named, it need not have the usual number of cells; but then one that is a table the wrong way round is not it.
        if columns < BOX + 2 or not (usual or (head.named and rows > columns)):
            continue
        known = len(head.class_names) if head.class_names and anchors == 3 else None
        for extra in filter(None, (masks, Extra("detect", 0, head.size))):
            count = known or columns - BOX - 1 - extra.width
            if count < 1 or BOX + 1 + count + extra.width > columns:
                continue
            strides = grids[rows] if anchors == 1 and usual else ()
            name = "yolox" if anchors == 1 else "yolov5"
            return Dense(name, output, extra, count, objectness=True, columns_last=True, strides=strides)
    return None


SEGMENT = Family(partial(find_yolo, task="segment"), "YOLO with mask prototypes, [1, 4+classes+masks, cells]", 20)
POSE = Family(
    partial(find_yolo, task="pose"),
    "YOLO with keypoints, [1, 4+classes+keypoints, cells]",
    20,
    frozenset({"keypoints"}),
)
OBB = Family(partial(find_yolo, task="obb"), "YOLO with rotated boxes, [1, 4+classes+1, cells]", 20)
YOLO = Family(partial(find_yolo, task="detect"), "YOLO of Ultralytics, [1, 4+classes, cells] or transposed", 30)
YOLOX = Family(partial(find_objectness, anchors=1), "YOLOX, raw or decoded, [1, cells, 5+classes]", 40)
YOLOV5 = Family(partial(find_objectness, anchors=3), "YOLOv5 and v7, [1, 3·cells, 5+classes+masks]", 50)
