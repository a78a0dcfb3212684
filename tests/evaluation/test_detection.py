"""Reading boxes from every known head, and suppression."""

import numpy as np
import pytest

from onnxopt.evaluation.detection import Detections, class_names, detect, find_layout, overlap, suppress

# An input of 64 x 96 has 8*12 + 4*6 + 2*3 = 126 cells at strides 8, 16 and 32.
FEEDS = {"images": np.zeros((1, 3, 64, 96), np.float32)}
CELLS = 126
NAMES = {"names": "{0: 'cat', 1: 'dog'}", "task": "detect"}
# One object: class 1, centre (40, 20), size 24 x 16, in cell (x=2, y=1) of stride 16.
BOX = (40.0, 20.0, 24.0, 16.0)
CORNERS = [28, 12, 52, 28]
PLACE = 8 * 12 + 1 * 6 + 2


def rows(columns, values, count=CELLS):
    table = np.zeros((1, count, columns), np.float32)
    table[0, PLACE, : len(values)] = values
    return table


def decoded_centres(table):
    """Give the empty rows the spread of centres that a decoded head has."""
    table[0, :PLACE, 0] = np.linspace(0, 96, PLACE)
    return table


def raw_yolox():
    return rows(7, [0.5, 0.25, np.log(24 / 16), np.log(16 / 16), 0.9, 0.1, 0.8])


HEADS = {
    "ultralytics": ({"out": rows(6, [*BOX, 0.1, 0.72]).transpose(0, 2, 1)}, {}),
    "ultralytics with names": ({"out": rows(6, [*BOX, 0.1, 0.72]).transpose(0, 2, 1)}, NAMES),
    "ultralytics with masks": (
        {
            "out": rows(6 + 32, [*BOX, 0.1, 0.72, *[9.0] * 32]).transpose(0, 2, 1),
            "masks": np.ones((1, 32, 16, 24), np.float32),
        },
        {},
    ),
    "keypoints with names": ({"out": rows(9, [*BOX, 0.1, 0.72, 9, 9, 9]).transpose(0, 2, 1)}, NAMES),
    "transposed with names": ({"out": rows(6, [*BOX, 0.1, 0.72])}, NAMES),
    "yolox": ({"out": raw_yolox()}, {}),
    "yolox decoded": ({"out": decoded_centres(rows(7, [*BOX, 0.9, 0.1, 0.8]))}, {}),
    "yolov5": ({"out": decoded_centres(rows(7, [*BOX, 0.9, 0.1, 0.8], 3 * CELLS))}, {}),
    "end to end": ({"out": rows(6, [*CORNERS, 0.72, 1], 300)}, {}),
    "end to end with masks": ({"out": rows(6 + 32, [*CORNERS, 0.72, 1], 300)}, {**NAMES, "end2end": "True"}),
    "among other outputs": ({"features": np.ones((1, 8, 8, 8), np.float32), "out": raw_yolox()}, {}),
}


@pytest.mark.parametrize("every_class", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_the_same_object(head, every_class):
    outputs, metadata = HEADS[head]
    layout = find_layout(outputs, FEEDS, metadata)
    assert layout is not None
    found = detect(outputs, layout, confidence=0.5, every_class=every_class)
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy, [CORNERS], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "metadata"),
    [
        ((1, 1000), {}),
        ((1, 97, 192), {}),
        ((1, 24, 6625), {}),
        ((1, 300, 32), {}),
        ((2, 6, CELLS), {}),
        ((1, 4, CELLS), {}),
        ((1, 7, CELLS), {**NAMES, "task": "obb"}),
    ],
)
def test_what_is_no_detector_is_left_alone(shape, metadata):
    assert find_layout({"out": np.zeros(shape, np.float32)}, FEEDS, metadata) is None


def test_the_size_comes_from_the_picture_input():
    last = {"flag": np.zeros(1), "images": np.zeros((1, 64, 96, 3), np.float32)}
    layout = find_layout({"out": raw_yolox()}, last, {})
    assert layout is not None
    assert layout.size == (64, 96)
    assert find_layout({"out": raw_yolox()}, {"x": np.zeros((1, 5))}, {}) is None


def test_two_scales_and_their_strides():
    cells = 8 * 8 + 4 * 4
    layout = find_layout({"out": np.zeros((1, cells, 8))}, {"x": np.zeros((1, 3, 64, 64))}, {})
    assert layout is not None
    assert layout.strides == (8, 16)


def test_a_place_may_hold_two_classes():
    outputs = {"out": rows(6, [*BOX, 0.6, 0.7]).transpose(0, 2, 1)}
    layout = find_layout(outputs, FEEDS, {})
    assert layout is not None
    assert detect(outputs, layout, confidence=0.5).classes.tolist() == [1, 0]
    assert detect(outputs, layout, confidence=0.5, every_class=False).classes.tolist() == [1]
    assert len(detect(outputs, layout, confidence=0.9)) == 0


def test_suppression_is_by_class_and_greedy():
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 5], [50, 50, 60, 60]], np.float64)
    found = Detections(np.array([0, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.5]), xyxy)
    assert suppress(found, iou=0.65).tolist() == [0, 2, 3, 4]
    assert suppress(found, iou=0.65, limit=2).tolist() == [0, 2]
    assert suppress(found, iou=0.4).tolist() == [0, 2, 4]


def naive_suppression(found, iou):
    kept = []
    for index in range(len(found)):
        rivals = [k for k in kept if found.classes[k] == found.classes[index]]
        if not rivals or overlap(found.xyxy[index : index + 1], found.xyxy[rivals]).max() <= iou:
            kept.append(index)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_suppression_against_its_definition(seed):
    random = np.random.default_rng(seed)
    low = random.uniform(-10, 50, (80, 2))
    xyxy = np.concatenate([low, low + random.uniform(5, 40, (80, 2))], axis=1)
    found = Detections(random.integers(0, 3, 80), np.sort(random.random(80))[::-1], xyxy)
    kept = suppress(found)
    assert 3 < len(kept) < 80
    assert kept.tolist() == naive_suppression(found, 0.65)


def test_overlap():
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 3]])
    np.testing.assert_allclose(overlap(a, b), [[1, 1 / 3, 0, 0]])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'a', 1: 'b'}", {0: "a", 1: "b"}),
        ("['a']", {0: "a"}),
        ("", None),
        ("import os", None),
        ("{}", None),
        ("7", None),
    ],
)
def test_class_names(text, names):
    assert class_names({"names": text}) == names
