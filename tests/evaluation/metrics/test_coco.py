"""COCO's mean average precision of boxes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation import load_metric, score
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.metrics.coco import MeanAveragePrecision

SET = Categories((3, 7), ("early", "late"))
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def picture(number, classes, xyxy, crowd=None):
    """A picture of 128 x 128, which the model sees at 64 x 64."""
    boxes = Boxes.from_corners(number, np.array(classes), np.array(xyxy, np.float64), SET)
    if crowd is not None:
        boxes = Boxes(number, boxes.classes, boxes.xyxy, boxes.area, np.array(crowd), SET)
    image = ImageInfo(Path(f"{number}.png"), 128, 128, (0.5, 0.5), (0.0, 0.0))
    return Sample({"x": np.full((1, 3, 64, 64), number, np.float32)}, boxes, image)


def detector(answers):
    """A model that answers picture i with answers[i]: rows of class, score, corners in the original."""

    def run(feeds):
        head = np.zeros((1, 6, CELLS))
        for cell, (number, confidence, x1, y1, x2, y2) in enumerate(answers[int(feeds["x"].flat[0])]):
            head[0, :4, cell] = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / 2
            head[0, 4 + number, cell] = confidence
        return {"head": head}

    return run


A, B = (10, 10, 50, 50), (60, 60, 120, 100)


class TestMeanAveragePrecision:
    @pytest.fixture(autouse=True)
    def needs_pycocotools(self):
        pytest.importorskip("pycocotools")

    def value(self, pictures, answers):
        return score(load_metric("coco-map"), detector(answers), pictures).value

    def test_perfect_and_nothing(self):
        pictures = [picture(0, [0, 1], [A, B]), picture(1, [], np.zeros((0, 4)))]
        assert self.value(pictures, [[(0, 0.9, *A), (1, 0.8, *B)], []]) == pytest.approx(1)
        assert self.value(pictures, [[], []]) == 0

    def test_thresholds_classes_and_false_alarms(self):
        pictures = [picture(0, [0], [A])]
        # An overlap of 0.8 passes the seven thresholds up to 0.80.
        assert self.value(pictures, [[(0, 0.9, 10, 10, 50, 42.01)]]) == pytest.approx(0.7)
        assert self.value(pictures, [[(1, 0.9, *A)]]) == 0
        assert self.value(pictures, [[(0, 0.95, *B), (0, 0.9, *A)]]) == pytest.approx(0.5)

    def test_crowds_are_neither_hits_nor_misses(self):
        pictures = [picture(0, [0, 0], [A, B], crowd=[False, True])]
        assert self.value(pictures, [[(0, 0.95, *B), (0, 0.9, *A)]]) == pytest.approx(1)

    def test_prints_nothing(self, capsys):
        self.value([picture(0, [0], [A])], [[(0, 0.9, *A)]])
        assert capsys.readouterr() == ("", "")

    def test_refusals(self):
        metric = load_metric("coco-map")
        with pytest.raises(UsageError, match="needs boxes"):
            score(metric, detector([[]]), [Sample({"x": np.zeros((1, 3, 64, 64))}, 3)])
        with pytest.raises(UsageError, match=r"cannot read boxes from {'y': \[1, 10\]}"):
            score(metric, lambda _: {"y": np.zeros((1, 10))}, [picture(0, [0], [A])])
        with pytest.raises(UsageError, match="none of the pictures has a labelled box"):
            score(metric, detector([[]]), [picture(0, [], np.zeros((0, 4)))])

    def test_without_pycocotools(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
        with pytest.raises(UsageError, match=r"pip install 'onnxopt\[eval\]'"):
            load_metric("coco-map")
        with pytest.raises(UsageError, match="pycocotools"):
            MeanAveragePrecision(Reader())
