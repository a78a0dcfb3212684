"""`obb-map`: COCO's mean average precision of rotated boxes, matched by pycocotools and overlapped by shapely."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxopt.data import Array, Boxes, ImageInfo
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Detections, Reader
from onnxopt.evaluation.metrics.coco import MeanAveragePrecision, pycocotools
from onnxopt.evaluation.metrics.metric import Metric
from onnxopt.evaluation.metrics.results import Fields, rotated_fields


def obb_map(reader: Reader) -> Metric:
    """Return the metric `obb-map`."""
    _shapely()
    return RotatedPrecision.metric(reader)


@dataclass
class RotatedPrecision(MeanAveragePrecision):
    """Objects overlap as their rotated boxes do, by shapely."""

    name: ClassVar[str] = "obb-map"
    needs: ClassVar[str] = "rotated boxes"

    def labelled(self, truth: Boxes) -> bool:
        """Tell whether there are outlines, each a single one."""
        outlines = truth.outlines if len(truth) else ()
        return outlines is not None and all(isinstance(one, list) and len(one) == 1 for one in outlines)

    def present(self, found: Detections) -> bool:
        """Tell whether the model gives rotated boxes."""
        return found.rotated is not None

    def described(self, found: Detections, image: ImageInfo) -> Fields:
        """Return the corners as `poly`, beside the upright box."""
        return rotated_fields(found, image)

    def real(self, truth: Boxes, index: int) -> dict[str, Any]:
        """Return the corners; an outline of more is given the smallest rectangle around it."""
        assert truth.outlines is not None
        shapely = _shapely()
        points = np.reshape(truth.outlines[index][0], (-1, 2))
        if len(points) != 4:
            around = shapely.oriented_envelope(shapely.MultiPoint(points))
            points = shapely.get_coordinates(around)[:4]
        return {"poly": points.ravel().tolist()}

    def evaluator(self, truth: Any, found: Any) -> Any:
        """Return an evaluator that overlaps rotated boxes."""
        return _rotated_evaluator()(truth, found, "bbox")


def _rotated_evaluator() -> Any:
    """Return pycocotools' evaluator with the overlap of `poly` instead of `bbox`."""

    class RotatedEvaluator(pycocotools("obb-map")[1]):  # type: ignore[misc]
        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - pycocotools' names
            real = self._gts[imgId, catId]
            found = sorted(self._dts[imgId, catId], key=lambda one: -one["score"])[: self.params.maxDets[-1]]
            if not real and not found:
                return []
            return polygon_overlap(*(np.reshape([one["poly"] for one in s], (-1, 4, 2)) for s in (found, real)))

    return RotatedEvaluator


def polygon_overlap(a: Array, b: Array) -> Array:
    """Return intersection over union of polygons float[n, 4, 2] and float[m, 4, 2], float64[n, m]."""
    shapely = _shapely()
    # A rectangle pulled apart by an uneven scale is convex still, so its hull is itself.
    first, second = (shapely.convex_hull(shapely.polygons(points)) for points in (a, b))
    common = shapely.area(shapely.intersection(first[:, None], second[None, :]))
    union = shapely.area(first)[:, None] + shapely.area(second)[None, :] - common
    return np.asarray(common / np.maximum(union, 1e-12))


def _shapely() -> Any:
    try:
        import shapely  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError("metric obb-map needs shapely; pip install 'onnxopt[eval]'") from None
    return shapely
