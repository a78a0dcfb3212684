"""Heads that have dropped overlapping objects already: one row for each object.

`[1, N, 6+extra]` (YOLOv10, end-to-end YOLO26) or `[N, 6]` (exports with a suppression inside): corners, score, class,
then mask coefficients or keypoints. Rotated boxes are `[1, N, 7]`: centre, size, score, class, angle. That a table is
such a one is believed where the metadata says `end2end`, or where there are six columns of which the last holds whole
numbers. Where no coordinate exceeds 1, they are centres and sizes in shares of the input, as RT-DETR gives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxopt.data import Array, Feeds
from onnxopt.evaluation.decoding.decoder import SCORING, Decoder, Family, Head, Task, Thresholds
from onnxopt.evaluation.decoding.extras import CALLED, Extra, find_extra
from onnxopt.evaluation.decoding.readings import Detections

COLUMNS = 6  # box, score, class
MOST_ROWS = 1000


@dataclass(frozen=True)
class Rows(Decoder):
    """A table of objects.

    Attributes:
        output: Name of the output.
        extra: What follows the class.
        class_count: Never known: the class is a number in a column.
    """

    output: str
    extra: Extra
    name: str = "rows"
    class_count: None = None

    @property
    def task(self) -> Task:  # type: ignore[override]
        """What the extra columns are for."""
        return self.extra.task

    def decode(self, outputs: Feeds, thresholds: Thresholds = SCORING) -> Detections:
        """Return the rows that are confident enough."""
        values = np.asarray(outputs[self.output], np.float64)
        values = values.reshape(-1, values.shape[-1])
        rest = self.extra.read(self._in_pixels(values[:, :4]), values[:, COLUMNS:], outputs)
        found = Detections(values[:, 5].astype(np.int64), values[:, 4], **rest)
        order = np.argsort(-found.scores, kind="stable")[: thresholds.limit]
        return found.pick(order[found.scores[order] > thresholds.confidence])

    def _in_pixels(self, boxes: Array) -> Array:
        if not boxes.size or boxes.max() > 1 or self.task == "obb":
            return boxes
        height, width = self.extra.size
        half = boxes[:, 2:] / 2
        corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        return corners * [width, height, width, height]

    def parts(self, outputs: Feeds) -> dict[str, Array]:
        """Boxes, scores with class numbers, and what follows apart."""
        whole = dict(outputs)
        values = whole.pop(self.output)
        whole[f"{self.output} (boxes)"] = values[..., :4]
        whole[f"{self.output} (scores)"] = values[..., 4:COLUMNS]
        if values.shape[-1] > COLUMNS:
            whole[f"{self.output} ({CALLED[self.task]})"] = values[..., COLUMNS:]
        return whole


def find_rows(head: Head, options: Mapping[str, str]) -> Rows | None:
    """Return the decoder of a table of objects."""
    tasks: dict[str, Task] = {"segment": "segment", "pose": "pose", "obb": "obb"}
    told = find_extra(head, tasks.get(head.task, "detect"), options)
    plain = find_extra(head, "detect", options)
    for output, array in head.outputs.items():
        if array.dtype.kind != "f" or not _is_table(array, head):
            continue
        if told is not None and array.shape[-1] == COLUMNS + told.width:
            return Rows(output, told)
        if plain is not None and head.task != "obb":
            return Rows(output, plain)
    return None


def _is_table(array: Array, head: Head) -> bool:
    if array.ndim == 3 and array.shape[0] == 1:
        rows, columns = array.shape[1:]
    elif array.ndim == 2 and (array.shape[0] != 1 or head.named or _one_object(array)):
        rows, columns = array.shape
    else:
        return False
    if rows > MOST_ROWS or columns < COLUMNS:
        return False
    whole = columns == COLUMNS and bool((array[..., 5] == np.round(array[..., 5])).all())
    return head.named or head.end_to_end or whole


def _one_object(array: Array) -> bool:
    """Whether [1, 6], which may be the scores of six classes, is the box, score and class of an object."""
    if array.shape[1] != COLUMNS:
        return False
    x1, y1, x2, y2, score, number = array[0].tolist()
    return bool(x2 > x1 and y2 > y1 and max(x2, y2) > 1 and 0 < score <= 1 and number == round(number) >= 0)


ROWS = Family(find_rows, "objects one a row, [1, N, 6] or [N, 6]: corners, score, class", 60, frozenset({"keypoints"}))
