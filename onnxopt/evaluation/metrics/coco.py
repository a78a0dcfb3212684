"""COCO's mean average precision, by pycocotools: what boxes, masks, keypoints and rotated boxes have in common.

Definition: https://cocodataset.org/#detection-eval. Values are 0..1, the mean over classes and over the IoU (for
keypoints OKS) thresholds 0.50, 0.55 … 0.95.
"""

from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, ClassVar

import numpy as np

from onnxopt.data import Array, Boxes, Feeds, ImageInfo, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Detections, Reader, class_names
from onnxopt.evaluation.evidence import AveragePrecision, Evidence, Ratio
from onnxopt.evaluation.metrics.categories import category_ids
from onnxopt.evaluation.metrics.metric import PERCENT, Metric
from onnxopt.evaluation.metrics.results import Fields, box_fields, coco_results


def coco_map(reader: Reader) -> Metric:
    """Return the metric `coco-map`."""
    return MeanAveragePrecision.metric(reader)


@dataclass
class MeanAveragePrecision:
    """Gathers real and found objects; subclasses say what of an object is compared.

    Attributes:
        reader: Of the model's outputs.
        pictures: Real objects, and the size of each picture.
        found: Results in COCO's format.

    Raises:
        UsageError: pycocotools is not installed.
    """

    name: ClassVar[str] = "coco-map"
    needs: ClassVar[str] = "boxes"
    iou_type: ClassVar[str] = "bbox"

    reader: Reader
    pictures: list[tuple[Boxes, ImageInfo]] = field(default_factory=list)
    found: Fields = field(default_factory=list)
    _matched: Any = None  # the evaluation of what was gathered so far; matching is slow

    def __post_init__(self) -> None:
        pycocotools(self.name)

    @classmethod
    def metric(cls, reader: Reader) -> Metric:
        """Return the metric that gathers so."""
        pycocotools(cls.name)  # refuses here where it is missing
        return Metric(cls.name, lambda: cls(reader), point=PERCENT)

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one picture's objects, real and found.

        Raises:
            UsageError: The sample is not labelled with what is needed, or the model's outputs do not have it.
        """
        truth, image = sample.label, sample.image
        if not isinstance(truth, Boxes) or image is None or not self.labelled(truth):
            raise UsageError(f"metric {self.name} needs {self.needs}, as a COCO json or an Ultralytics data.yaml gives")
        found = self.reader.objects(outputs, sample.feeds)
        if found is None or not self.present(found):
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise UsageError(
                f"metric {self.name} cannot read {self.needs} from {shapes}; say --decode, or --metric module:function"
            )
        decoder = self.reader.decoder(outputs, sample.feeds)
        count = decoder.class_count if decoder is not None else None
        ids = category_ids(truth.categories, count, class_names(self.reader.metadata))
        known = found.pick(np.flatnonzero([number in ids for number in found.classes.tolist()]))
        self._matched = None
        self.pictures.append((truth, image))
        self.found += coco_results(self.described(known, image), known, truth.image_id, ids)

    def labelled(self, truth: Boxes) -> bool:  # noqa: ARG002 - for subclasses
        """Tell whether a picture's labels hold what is compared."""
        return True

    def present(self, found: Detections) -> bool:  # noqa: ARG002 - for subclasses
        """Tell whether found objects have what is compared."""
        return True

    def described(self, found: Detections, image: ImageInfo) -> Fields:
        """Return what is compared of each found object, in COCO's fields and in pixels of the original."""
        return box_fields(found, image)

    def real(self, truth: Boxes, index: int) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Return the same of a real object, beside its box."""
        return {}

    def evaluator(self, truth: Any, found: Any) -> Any:
        """Return pycocotools' evaluator of what is compared."""
        return pycocotools(self.name)[1](truth, found, self.iou_type)

    def compute(self) -> float:
        """Return the mean average precision of all pictures so far.

        Raises:
            UsageError: There are no real objects.
        """
        if not sum(len(truth) for truth, _ in self.pictures):
            raise UsageError(f"metric {self.name}: none of the pictures has a labelled box")
        precision = self._precision()
        return _mean(precision) if precision is not None else 0.0

    def details(self) -> Mapping[str, Any]:
        """Precision at an overlap of 0.5, and of each class that the labels have (0..1)."""
        precision = self._precision()
        if precision is None:
            return {"map50": 0.0, "per_class": {}}
        names: dict[int, str] = {}
        for truth, _ in self.pictures:
            names |= dict(zip(truth.categories.ids, truth.categories.names, strict=True))
        per_class = {
            names[number]: float(precision[:, :, place].mean())
            for place, number in enumerate(self._matched.params.catIds)
            if (precision[:, :, place] > -1).all()
        }
        return {"map50": _mean(precision[:1]), "per_class": per_class}

    def evidence(self) -> Evidence:
        """Return the matches, picture by picture."""
        matched = self.matched()
        return AveragePrecision(matched) if matched is not None else Ratio.mean([0.0] * len(self.pictures))

    def matched(self) -> Any | None:
        """Return pycocotools' `COCOeval` with the matches of each picture; None where nothing was found."""
        if not self.found or self._matched is not None:
            return self._matched
        with redirect_stdout(StringIO()):
            coco = pycocotools(self.name)[0]()
            coco.dataset = self.as_coco()
            coco.createIndex()
            # Loading adds to the results.
            evaluation = self.evaluator(coco, coco.loadRes([dict(result) for result in self.found]))
            # Objects of all sizes are what is quoted; small, medium and large ones apart take four times as long.
            settings = evaluation.params
            settings.areaRng, settings.areaRngLbl = settings.areaRng[:1], settings.areaRngLbl[:1]
            settings.maxDets = settings.maxDets[-1:]
            evaluation.evaluate()
        self._matched = evaluation
        return evaluation

    def _precision(self) -> Array | None:
        """Precision float64[overlaps, recalls, classes], -1 of classes without labels; None where nothing was found."""
        evaluation = self.matched()
        if evaluation is None:
            return None
        with redirect_stdout(StringIO()):
            evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"][:, :, :, 0, -1])

    def as_coco(self) -> dict[str, Fields]:
        """Return the labelled pictures in COCO's own format."""
        images: Fields = []
        annotations: Fields = []
        categories: dict[int, str] = {}
        for truth, image in self.pictures:
            images.append({"id": truth.image_id, "height": image.height, "width": image.width})
            categories.update(zip(truth.categories.ids, truth.categories.names, strict=True))
            for index in range(len(truth)):
                x1, y1, x2, y2 = truth.xyxy[index].tolist()
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": truth.categories.ids[truth.classes[index]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(truth.area[index]),
                    "iscrowd": int(truth.crowd[index]),
                }
                annotations.append(annotation | self.real(truth, index))
        named = [{"id": number, "name": name} for number, name in categories.items()]
        return {"images": images, "annotations": annotations, "categories": named}


def _mean(precision: Array) -> float:
    """Over all classes that have labels."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0


def pycocotools(metric: str) -> tuple[Any, Any]:
    """Return pycocotools' COCO and COCOeval, which are optional.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - optional
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError(f"metric {metric} needs pycocotools; pip install 'onnxopt[eval]'") from None
    return COCO, COCOeval
