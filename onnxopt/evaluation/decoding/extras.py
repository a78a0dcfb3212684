"""What follows box and classes in a prediction: mask coefficients, keypoints or an angle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.data import Array, Feeds
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding.decoder import Head, Task
from onnxopt.evaluation.decoding.readings import rotated_corners

PROTOTYPE_STRIDE = 4  # pixels of the input per point of a prototype mask
CALLED: Mapping[Task, str] = {"detect": "rest", "segment": "masks", "pose": "keypoints", "obb": "angles"}


@dataclass(frozen=True)
class Extra:
    """The columns behind the classes.

    Attributes:
        task: What they are for.
        width: How many there are; 0 for plain boxes, whose further columns, if any, are not read.
        size: (height, width) of the model's input.
        values: 2 (x, y) or 3 (and confidence) of each keypoint.
        prototypes: Name of the output with mask prototypes.
    """

    task: Task
    width: int
    size: tuple[int, int]
    values: int = 0
    prototypes: str = ""

    def read(self, boxes: Array, columns: Array, outputs: Feeds) -> dict[str, Any]:
        """Return what `Detections` has beside classes and scores.

        Args:
            boxes: Corners of upright boxes, or centres and sizes of rotated ones, float[n, 4].
            columns: The columns behind the classes, float[n, c].
            outputs: All outputs of the model.
        """
        if self.task == "obb":
            rotated = np.concatenate([boxes, columns[:, :1]], axis=1)
            corners = rotated_corners(rotated)
            return {"rotated": rotated, "xyxy": np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)}
        found: dict[str, Any] = {"xyxy": boxes}
        if self.task == "pose":
            points = columns[:, : self.width].reshape(len(columns), -1, self.values)
            sure = points[..., 2:] if self.values == 3 else np.ones((*points.shape[:2], 1))
            found["keypoints"] = np.concatenate([points[..., :2], sure], axis=2)
        if self.task == "segment":
            found |= {"coefficients": columns[:, : self.width], "prototypes": outputs[self.prototypes][0]}
            found["size"] = self.size
        return found


def find_extra(head: Head, task: Task, options: Mapping[str, str]) -> Extra | None:
    """Return the extra columns that a head of a task has; None where it cannot be of this task.

    Args:
        head: The outputs.
        task: `detect`, `segment`, `pose` or `obb`.
        options: `keypoints` as `17x3`, where the metadata does not say.

    Raises:
        UsageError: `keypoints` is not of that form.
    """
    if head.size is None:
        return None
    if task == "segment":
        name = prototypes(head)
        return Extra(task, head.outputs[name].shape[1], head.size, prototypes=name) if name else None
    if task == "pose":
        shape = _keypoints(options["keypoints"]) if "keypoints" in options else head.keypoint_shape
        return Extra(task, shape[0] * shape[1], head.size, values=shape[1]) if shape else None
    return Extra(task, int(task == "obb"), head.size)


def prototypes(head: Head) -> str:
    """Return the name of the output that holds mask prototypes, or nothing."""
    assert head.size is not None
    wanted = tuple(side // PROTOTYPE_STRIDE for side in head.size)
    return next((n for n, a in head.outputs.items() if a.ndim == 4 and a.shape[0] == 1 and a.shape[2:] == wanted), "")


def _keypoints(text: str) -> tuple[int, int]:
    count, _, values = text.partition("x")
    if not count.isdecimal() or not int(count) or values not in {"2", "3"}:
        raise UsageError(f"keypoints={text} should be their number and how many values each has, such as 17x3")
    return int(count), int(values)
