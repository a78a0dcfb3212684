"""Mean average precision of masks, keypoints and rotated boxes, from perfect, shifted and missing objects."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation import load_metric, score
from onnxopt.evaluation.metrics.rotated import polygon_overlap

pytest.importorskip("pycocotools")

SET = Categories((4, 9), ("early", "late"))
SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
IMAGE = ImageInfo(Path("a.png"), SIDE, SIDE, (1.0, 1.0), (0.0, 0.0))
NAMES = "{0: 'early', 1: 'late'}"


def sample(xyxy, classes=(1,), **more):
    xyxy = np.array(xyxy, np.float64).reshape(-1, 4)
    label = Boxes.from_corners(5, np.array(classes), xyxy, SET, **more)
    return Sample({"images": np.zeros((1, 3, SIDE, SIDE), np.float32)}, label, IMAGE)


def head(centre, extra, score=0.9):
    table = np.zeros((1, 6 + len(extra), CELLS), np.float32)
    table[0, :, 3] = [*centre, 0, score, *extra]
    return {"out": table}


def value(name, metadata, outputs, labelled):
    return score(load_metric(name, metadata={"names": NAMES, **metadata}), lambda _: outputs, [labelled])


# A prototype that is positive on the left of x = 30.
LEFT = {"masks": np.tile(30 - (np.arange(16) * 4 + 2), (1, 1, 16, 1)).astype(np.float32)}


class TestMasks:
    BOX = (32, 32, 48, 48)  # 8 to 56, of which the mask leaves 8 to 30

    def outlined(self, right):
        outline = [[8, 8, right, 8, right, 56, 8, 56]]
        return sample([[8, 8, 56, 56]], outlines=[outline])

    def test_the_outline_counts_and_not_the_box(self):
        outputs = head(self.BOX, [1.0]) | LEFT
        metadata = {"task": "segment"}
        assert value("mask-map", metadata, outputs, self.outlined(30)).value == pytest.approx(1)
        assert value("mask-map", metadata, outputs, self.outlined(56)).value == 0
        assert value("coco-map", metadata, outputs, self.outlined(30)).value == pytest.approx(1)

    def test_refusals(self):
        outputs = head(self.BOX, [1.0]) | LEFT
        with pytest.raises(UsageError, match="mask-map needs outlines"):
            value("mask-map", {}, outputs, sample([[8, 8, 56, 56]]))
        with pytest.raises(UsageError, match=r"cannot read outlines from \{'out': \[1, 6, 84\]\}"):
            value("mask-map", {}, head(self.BOX, []), self.outlined(30))


class TestKeypoints:
    BOX = (32, 32, 40, 40)

    def pointed(self, *points):
        return sample([[12, 12, 52, 52]], keypoints=np.array([points], np.float64).reshape(1, -1, 3))

    def read(self, labelled, points):
        return value("keypoint-map", {"task": "pose", "kpt_shape": "[2, 3]"}, head(self.BOX, points), labelled).value

    def test_near_points_count_and_hidden_ones_do_not(self):
        points = [20, 20, 0.9, 40, 40, 0.8]
        assert self.read(self.pointed(20, 20, 2, 40, 40, 2), points) == pytest.approx(1)
        assert self.read(self.pointed(20, 20, 2, 0, 0, 0), points) == pytest.approx(1)
        assert self.read(self.pointed(60, 60, 2, 1, 1, 2), points) < 0.2

    def test_all_points_of_other_things_than_people_are_told_as_well(self):
        # OKS = exp(-d² / (2 · area · (2 / k)²)), here exp(-1 / 8) for each of two points ten pixels away.
        distance = np.sqrt(2 * 1600 * 1.0 / 8)
        moved = [20 + distance, 20, 0.9, 40 + distance, 40, 0.8]
        assert self.read(self.pointed(20, 20, 2, 40, 40, 2), moved) == pytest.approx(0.8)

    def test_refusals(self):
        with pytest.raises(UsageError, match="needs keypoints"):
            self.read(sample([[12, 12, 52, 52]]), [20, 20, 0.9, 40, 40, 0.8])
        with pytest.raises(UsageError, match=r"labels and model have \[2, 3\] keypoints"):
            self.read(self.pointed(*[20, 20, 2] * 3), [20, 20, 0.9, 40, 40, 0.8])

    def test_pictures_without_objects_are_fine(self):
        metadata = {"names": NAMES, "task": "pose", "kpt_shape": "[2, 3]"}
        found = head(self.BOX, [20, 20, 1, 40, 40, 1])
        full = self.pointed(20, 20, 2, 40, 40, 2)
        empty = Sample(full.feeds, Boxes.from_corners(6, np.zeros(0), np.zeros((0, 4)), SET), IMAGE)
        both = [empty, full]
        assert 0 < score(load_metric("keypoint-map", metadata=metadata), lambda _: found, both).value < 1


class TestRotated:
    @pytest.fixture(autouse=True)
    def needs_shapely(self):
        pytest.importorskip("shapely")

    def turned(self, corners):
        return sample([[10, 10, 54, 54]], outlines=[[np.ravel(corners).tolist()]])

    def test_the_angle_counts(self):
        diamond = [[32, 12], [52, 32], [32, 52], [12, 32]]
        side = float(np.hypot(20, 20))
        for angle, wanted in ((np.pi / 4, 1.0), (0.0, 0.45)):
            outputs = head((32, 32, side, side), [angle])
            found = value("obb-map", {"task": "obb"}, outputs, self.turned(diamond)).value
            assert found == pytest.approx(wanted, abs=0.06)

    def test_an_outline_of_more_corners_is_boxed(self):
        octagon = [[12, 12], [32, 12], [52, 12], [52, 32], [52, 52], [12, 52]]
        outputs = head((32, 32, 40, 40), [0.0])
        assert value("obb-map", {"task": "obb"}, outputs, self.turned(octagon)).value == pytest.approx(1)

    def test_overlap_against_its_value_by_hand(self):
        square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]], np.float64)
        diamond = np.array([[[1, 0], [2, 1], [1, 2], [0, 1]]], np.float64)
        np.testing.assert_allclose(polygon_overlap(square, np.concatenate([diamond, square + 1])), [[0.5, 1 / 7]])

    def test_refusals(self):
        with pytest.raises(UsageError, match="needs rotated boxes"):
            value("obb-map", {"task": "obb"}, head((32, 32, 40, 40), [0.0]), sample([[10, 10, 54, 54]]))


def test_details_name_the_classes_that_have_labels():
    found = value("coco-map", {}, head((32, 32, 40, 40), []), sample([[12, 12, 52, 52], [0, 0, 9, 9]], (1, 1)))
    details = found.details()
    assert set(details["per_class"]) == {"late"}
    assert details["per_class"]["late"] == pytest.approx(found.value)
    assert details["map50"] == pytest.approx(51 / 101)
