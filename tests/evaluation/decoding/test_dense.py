"""Reading boxes from every known head."""

import numpy as np
import pytest

from onnxopt.evaluation.decoding import Reader, Thresholds

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
    found = Reader(metadata).objects(outputs, FEEDS, Thresholds(0.5, every_class))
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
    ],
)
def test_what_is_no_detector_is_left_alone(shape, metadata):
    assert Reader(metadata).objects({"out": np.zeros(shape, np.float32)}, FEEDS) is None


def test_the_size_comes_from_the_picture_input():
    last = {"flag": np.zeros(1), "images": np.zeros((1, 64, 96, 3), np.float32)}
    assert Reader().decoder({"out": raw_yolox()}, last).extra.size == (64, 96)
    assert Reader().decoder({"out": raw_yolox()}, {"x": np.zeros((1, 5))}) is None


def test_two_scales_and_their_strides():
    cells = 8 * 8 + 4 * 4
    decoder = Reader().decoder({"out": np.zeros((1, cells, 8))}, {"x": np.zeros((1, 3, 64, 64))})
    assert decoder.strides == (8, 16)


def test_a_place_may_hold_two_classes():
    outputs = {"out": rows(6, [*BOX, 0.6, 0.7]).transpose(0, 2, 1)}
    reader = Reader()
    assert reader.objects(outputs, FEEDS, Thresholds(0.5, every_class=True)).classes.tolist() == [1, 0]
    assert reader.objects(outputs, FEEDS, Thresholds(0.5, every_class=False)).classes.tolist() == [1]
    assert len(reader.objects(outputs, FEEDS, Thresholds(0.9, every_class=True))) == 0
