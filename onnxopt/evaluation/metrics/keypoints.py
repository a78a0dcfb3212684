"""`keypoint-map`: COCO's mean average precision of keypoints, in object keypoint similarity (OKS)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxopt.data import Boxes, ImageInfo
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Detections, Reader
from onnxopt.evaluation.metrics.coco import MeanAveragePrecision
from onnxopt.evaluation.metrics.metric import Metric
from onnxopt.evaluation.metrics.results import Fields, keypoint_fields

COCO_KEYPOINTS = 17  # those of a person; pycocotools knows how precisely people mark each


def keypoint_map(reader: Reader) -> Metric:
    """Return the metric `keypoint-map`."""
    return KeypointPrecision.metric(reader)


@dataclass
class KeypointPrecision(MeanAveragePrecision):
    """Objects are as alike as their keypoints are near, in OKS."""

    name: ClassVar[str] = "keypoint-map"
    needs: ClassVar[str] = "keypoints"
    iou_type: ClassVar[str] = "keypoints"

    def labelled(self, truth: Boxes) -> bool:
        """Tell whether there are keypoints."""
        return truth.keypoints is not None or not len(truth)

    def present(self, found: Detections) -> bool:
        """Tell whether the model gives keypoints."""
        return found.keypoints is not None

    def described(self, found: Detections, image: ImageInfo) -> Fields:
        """Return keypoints as x, y and confidence."""
        return keypoint_fields(found, image)

    def real(self, truth: Boxes, index: int) -> dict[str, Any]:
        """Return keypoints as x, y and visibility; those that are not visible do not count."""
        assert truth.keypoints is not None
        points = truth.keypoints[index]
        return {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}

    def evaluator(self, truth: Any, found: Any) -> Any:
        """Return the evaluator, with equal tolerance for all points unless they are COCO's of a person.

        Raises:
            UsageError: The labels have another number of keypoints than the model.
        """
        evaluation = super().evaluator(truth, found)
        counts = {len(a["keypoints"]) // 3 for side in (truth, found) for a in side.dataset["annotations"]}
        if len(counts) > 1:
            raise UsageError(f"metric {self.name}: labels and model have {sorted(counts)} keypoints an object")
        (count,) = counts
        if count != COCO_KEYPOINTS:
            evaluation.params.kpt_oks_sigmas = np.full(count, 1 / count)  # as Ultralytics has it
        return evaluation
