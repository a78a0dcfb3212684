"""`mask-map`: COCO's mean average precision of outlines."""

from dataclasses import dataclass
from typing import Any, ClassVar

from onnxopt.data import Boxes, ImageInfo
from onnxopt.evaluation.decoding import Detections, Reader
from onnxopt.evaluation.metrics.coco import MeanAveragePrecision
from onnxopt.evaluation.metrics.metric import Metric
from onnxopt.evaluation.metrics.results import Fields, mask_fields


def mask_map(reader: Reader) -> Metric:
    """Return the metric `mask-map`."""
    return MaskPrecision.metric(reader)


@dataclass
class MaskPrecision(MeanAveragePrecision):
    """Objects overlap as their outlines do."""

    name: ClassVar[str] = "mask-map"
    needs: ClassVar[str] = "outlines"
    iou_type: ClassVar[str] = "segm"

    def labelled(self, truth: Boxes) -> bool:
        """Tell whether there are outlines."""
        return truth.outlines is not None or not len(truth)

    def present(self, found: Detections) -> bool:
        """Tell whether the model gives masks."""
        return found.masks is not None

    def described(self, found: Detections, image: ImageInfo) -> Fields:
        """Return run-length encoded masks of the original's size."""
        return mask_fields(found, image)

    def real(self, truth: Boxes, index: int) -> dict[str, Any]:
        """Return an outline."""
        assert truth.outlines is not None
        return {"segmentation": truth.outlines[index]}
