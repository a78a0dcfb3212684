"""Greedy non-maximum suppression of upright boxes."""

import numpy as np
import numpy.typing as npt

from onnxopt.kernels.compilation import kernel

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@kernel()
def _keep(xyxy: Float64Array, classes: Int64Array, iou: float, kept: Int64Array) -> int:
    count = 0
    for i in range(len(xyxy)):
        if count == len(kept):
            break
        left, top, right, bottom = xyxy[i]
        area = max(right - left, 0.0) * max(bottom - top, 0.0)
        free = True
        for place in range(count):
            rival = kept[place]
            if classes[rival] != classes[i]:
                continue
            wide = min(right, xyxy[rival, 2]) - max(left, xyxy[rival, 0])
            high = min(bottom, xyxy[rival, 3]) - max(top, xyxy[rival, 1])
            if wide <= 0 or high <= 0:
                continue
            common = wide * high
            other = (xyxy[rival, 2] - xyxy[rival, 0]) * (xyxy[rival, 3] - xyxy[rival, 1])
            if common / max(area + other - common, 1e-12) > iou:
                free = False
                break
        if free:
            kept[count] = i
            count += 1
    return count


def keep_boxes(xyxy: npt.NDArray[np.floating], classes: npt.NDArray[np.integer], iou: float, limit: int) -> Int64Array:
    """Return the indices of the boxes that stay, of boxes sorted by score: the most confident first.

    A box goes if it overlaps one of its class that stays. Neubeck and Van Gool 2006, "Efficient Non-Maximum
    Suppression".

    Args:
        xyxy: Corners, float[n, 4].
        classes: Class of each, int[n].
        iou: The largest intersection over union that two boxes of a class may have.
        limit: How many stay at most.
    """
    kept = np.empty(min(limit, len(xyxy)), np.int64)
    count = _keep(np.ascontiguousarray(xyxy, np.float64), np.ascontiguousarray(classes, np.int64), iou, kept)
    return kept[:count]
