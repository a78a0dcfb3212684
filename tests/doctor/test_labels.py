"""Labels against what the model sees, with a model that sees well."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo
from onnxopt.doctor.box_labels import boxes, outside
from onnxopt.doctor.class_labels import label_range, object_classes, picture_classes
from onnxopt.doctor.instruments import Seen
from onnxopt.doctor.reading import Probabilities
from onnxopt.evaluation.decoding import Detections

NAMES = ("cat", "dog", "bird", "fish")
CATEGORIES = Categories((0, 1, 2, 3), NAMES)
WIDTH, HEIGHT = 200, 100
SIZE = np.asarray([WIDTH, HEIGHT, WIDTH, HEIGHT])
IMAGE = ImageInfo(Path("p.jpg"), HEIGHT, WIDTH, (0.5, 0.5), (0.0, 7.0))


def seen(count=20, classes=lambda c: c, written=lambda xyxy: xyxy):
    """Pictures of two objects each, their labels written in some way."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        low = random.uniform(0, 0.5, (2, 2)) * SIZE[:2]
        true = np.concatenate([low, low + random.uniform(0.2, 0.5, (2, 2)) * SIZE[:2]], axis=1)
        kinds = random.integers(0, 4, 2)
        in_input = (true + random.normal(0, 1, true.shape)) * 0.5 + np.asarray([0, 7, 0, 7])
        label = Boxes.from_corners(number, np.asarray([classes(k) for k in kinds]), written(true), CATEGORIES)
        reading = Detections(kinds, np.asarray([0.9, 0.8]), in_input)
        found.append(Seen(reading, None, None, label, IMAGE, {0: 0, 1: 1, 2: 2, 3: 3}))
    return found


def centred(xyxy):
    return np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def from_centre(xywh):
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1)


def cornered(xyxy):
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def from_corner(xywh):
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


MISTAKES = {
    "normalized twice": lambda b: b / SIZE,
    "are pixels": lambda b: b * SIZE,
    "two corners (xyxy), and centre": from_centre,
    "two corners (xyxy), and corner": from_corner,
    "top left corner and size, and centre": lambda b: from_centre(cornered(b)),
    "centre and size, and top left": lambda b: from_corner(centred(b)),
    "x and y swapped": lambda b: (b / SIZE)[:, [1, 0, 3, 2]] * SIZE,
    "pixels of the model's input": lambda b: b * 0.5 + np.asarray([0, 7, 0, 7]),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_boxes_written_otherwise(words):
    [finding] = boxes(seen(written=MISTAKES[words]))
    assert finding.fault == "box-format"
    assert words in finding.says
    assert finding.sure > 0.95


def test_right_labels_have_no_fault():
    right = seen()
    assert list(boxes(right)) == []
    assert list(object_classes(right, NAMES)) == []
    assert list(outside([(one.label, one.image) for one in right])) == []


def test_noise_and_few_pictures_are_no_evidence():
    random = np.random.default_rng(1)
    elsewhere = seen(written=lambda b: random.uniform(0, 0.4, b.shape) * SIZE + np.asarray([0, 0, 90, 40]))
    assert list(boxes(elsewhere)) == []
    assert list(boxes(seen(4, written=MISTAKES["normalized twice"]))) == []
    assert list(object_classes(seen(4, classes=lambda c: (c + 1) % 4), NAMES)) == []
    assert list(object_classes(seen(classes=lambda c: random.integers(4)), NAMES)) == []


@pytest.mark.parametrize(("step", "advice"), [(1, "subtract 1"), (-1, "add 1")])
def test_classes_shifted(step, advice):
    [finding] = object_classes(seen(classes=lambda c: c + step), NAMES)
    assert finding.fault == "classes-shifted"
    assert advice in finding.advice


def test_classes_in_another_order():
    [finding] = object_classes(seen(classes=lambda c: (2, 3, 1, 0)[c]), NAMES)
    assert finding.fault == "classes-differ"
    assert "'cat' is seen as 'fish'" in finding.says


def test_classifiers():
    table = np.eye(10)
    shown = [Seen(Probabilities(table[i % 10]), None, None, (i % 10 + 1), None) for i in range(30)]
    [finding] = picture_classes(shown)
    assert finding.fault == "classes-shifted"
    right = [Seen(Probabilities(table[i % 10]), None, None, i % 10, None) for i in range(30)]
    assert list(picture_classes(right)) == []


def test_class_numbers_that_the_model_lacks():
    [finding] = label_range([1, 5, 10], 10)
    assert "subtract 1" in finding.advice
    [finding] = label_range([0, 12], 10)
    assert "class 12" in finding.says
    assert list(label_range([0, 9], 10)) == []
    assert list(label_range([0, 9], None)) == []


def test_boxes_beyond_the_picture_or_without_extent():
    def labelled(xyxy):
        return Boxes.from_corners(1, np.zeros(len(xyxy)), np.asarray(xyxy), CATEGORIES), IMAGE

    beyond = [labelled([[10, 10, 400, 50]])] * 4
    assert [finding.fault for finding in outside(beyond)] == ["boxes-outside"]
    empty = [labelled([[10, 10, 10, 50]])] * 4
    assert [finding.fault for finding in outside(empty)] == ["boxes-empty"]
    assert list(outside([labelled([[0, 0, 201, 100]])] * 4)) == []
