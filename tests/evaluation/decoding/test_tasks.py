"""Masks, keypoints and rotated boxes, from dense and from end-to-end heads, told by metadata and shapes."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import ImageInfo
from onnxopt.evaluation.decoding import SHOWING, Reader, rotated_corners

HEIGHT, WIDTH = 64, 96
FEEDS = {"images": np.zeros((1, 3, HEIGHT, WIDTH), np.float32)}
CELLS = 8 * 12 + 4 * 6 + 2 * 3
NAMES = "{0: 'cat', 1: 'dog'}"
BOX, CORNERS = (40.0, 20.0, 24.0, 16.0), (28.0, 12.0, 52.0, 28.0)
POINTS = (30.0, 14.0, 0.9, 50.0, 26.0, 0.1)
WHOLE = ImageInfo(Path("a.png"), HEIGHT, WIDTH, (1.0, 1.0), (0.0, 0.0))


def dense(*extra):
    """A v8 head with one object of class 1."""
    table = np.zeros((1, CELLS, 6 + len(extra)), np.float32)
    table[0, 17] = [*BOX, 0.1, 0.8, *extra]
    return np.swapaxes(table, 1, 2)


def rows(*extra, box=CORNERS):
    """An end-to-end head with the same object."""
    table = np.zeros((1, 300, 6 + len(extra)), np.float32)
    table[0, 0] = [*box, 0.8, 1, *extra]
    return table


def metadata(task, **more):
    return {"task": task, "names": NAMES, **more}


END = {"end2end": "True"}
POSE = {"kpt_shape": "[2, 3]"}


def prototypes():
    """The first is positive on the left of x = 40, the second above y = 20; both change by the pixel."""
    y, x = np.mgrid[0 : HEIGHT // 4, 0 : WIDTH // 4] * 4.0 + 2
    return np.stack([40 - x, 20 - y])[None].astype(np.float32)


@pytest.mark.parametrize("head", [dense, rows])
class TestMasks:
    def read(self, head, *coefficients):
        more = END if head is rows else {}
        outputs = {"masks": prototypes(), "out": head(*coefficients)}
        reader = Reader(metadata("segment", **more))
        assert reader.task(outputs, FEEDS) == "segment"
        return reader.objects(outputs, FEEDS, SHOWING)

    def test_a_mask_is_what_prototypes_make_of_the_box(self, head):
        found = self.read(head, 1.0, 0.0)
        (mask,) = found.masks.drawn(WHOLE, found.xyxy)
        wanted = np.zeros((HEIGHT, WIDTH), bool)
        wanted[12:28, 28:40] = True
        np.testing.assert_array_equal(mask, wanted)

    def test_on_a_letterboxed_original_of_twice_the_size(self, head):
        image = ImageInfo(Path("a.png"), 96, 192, (0.5, 0.5), (0.0, 8.0))
        found = self.read(head, 0.0, 1.0)
        (mask,) = found.masks.drawn(image, image.to_original(found.xyxy))
        ys, xs = np.nonzero(mask)
        assert (xs.min(), xs.max() + 1) == (56, 104)
        assert (ys.min(), ys.max() + 1) == (8, 24)  # (12 - 8) · 2 to (20 - 8) · 2

    def test_of_a_centre_crop_nothing_is_outside_what_was_seen(self, head):
        image = ImageInfo(Path("a.png"), HEIGHT, WIDTH + 60, (1.0, 1.0), (-30.0, 0.0))
        found = self.read(head, 1.0, 0.0)
        (mask,) = found.masks.drawn(image, image.to_original(found.xyxy))
        ys, xs = np.nonzero(mask)
        assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (58, 70, 12, 28)


class TestKeypoints:
    @pytest.mark.parametrize(("head", "more"), [(dense, POSE), (rows, POSE | END)])
    def test_with_confidence(self, head, more):
        found = Reader(metadata("pose", **more)).objects({"out": head(*POINTS)}, FEEDS, SHOWING)
        np.testing.assert_allclose(found.keypoints, [np.reshape(POINTS, (2, 3))], rtol=1e-6)
        np.testing.assert_allclose(found.xyxy, [CORNERS])

    def test_without(self):
        head = dense(30.0, 14.0, 50.0, 26.0)
        found = Reader(metadata("pose", kpt_shape="[2, 2]")).objects({"out": head}, FEEDS, SHOWING)
        np.testing.assert_allclose(found.keypoints, [[[30, 14, 1], [50, 26, 1]]])

    def test_where_their_shape_is_not_told_the_boxes_are_read(self):
        reader = Reader(metadata("pose"))
        assert reader.task({"out": dense(*POINTS)}, FEEDS) == "detect"
        assert reader.objects({"out": dense(*POINTS)}, FEEDS, SHOWING).keypoints is None


@pytest.mark.parametrize(("head", "more"), [(dense, {}), (lambda *e: rows(*e, box=BOX), END)])
def test_rotated_boxes(head, more):
    found = Reader(metadata("obb", **more)).objects({"out": head(np.pi / 2)}, FEEDS, SHOWING)
    np.testing.assert_allclose(found.rotated, [[*BOX, np.pi / 2]], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy, [[32, 8, 48, 32]], rtol=1e-5)


def test_corners_go_around_the_box():
    np.testing.assert_allclose(
        rotated_corners(np.array([[10.0, 20, 6, 2, 0]])), [[[13, 21], [13, 19], [7, 19], [7, 21]]]
    )
    turned = rotated_corners(np.array([[0.0, 0, 2, 0, np.pi / 6]]))[0]
    np.testing.assert_allclose(turned[0], [np.cos(np.pi / 6), np.sin(np.pi / 6)])


def test_parts_keep_what_follows_the_classes_apart():
    parts = Reader(metadata("pose", **POSE)).parts({"out": dense(*POINTS)}, FEEDS)
    assert {name: values.shape[-1] for name, values in parts.items()} == {
        "out (boxes)": 4,
        "out (scores)": 2,
        "out (keypoints)": 6,
    }
    assert list(Reader(metadata("obb", **END)).parts({"out": rows(0.5)}, FEEDS)) == [
        "out (boxes)",
        "out (scores)",
        "out (angles)",
    ]


class TestRowsWithoutMetadata:
    def test_the_last_column_must_hold_whole_numbers(self):
        assert Reader().task({"out": rows()}, FEEDS) == "detect"
        fractions = rows()
        fractions[0, 5, 5] = 0.5
        assert Reader().task({"out": fractions}, FEEDS) is None

    def test_shares_of_the_input_become_pixels(self):
        table = rows(box=(40 / WIDTH, 20 / HEIGHT, 24 / WIDTH, 16 / HEIGHT))
        np.testing.assert_allclose(Reader().objects({"out": table}, FEEDS, SHOWING).xyxy, [CORNERS], rtol=1e-6)

    def test_a_table_without_batch_of_any_length(self):
        reader = Reader()
        for count in (3, 1, 0):
            table = np.tile(np.array([*CORNERS, 0.8, 1], np.float32), (count, 1))
            assert len(reader.objects({"out": table}, FEEDS, SHOWING)) == count

    def test_six_classes_are_no_box(self):
        assert Reader().task({"out": np.array([[0.1, 2, -3, 0.5, 0.25, 1.5]])}, FEEDS) == "classify"
        assert Reader().task({"out": np.eye(6)[[5]]}, FEEDS) == "classify"


def test_yolov5_with_masks():
    table = np.zeros((1, 3 * CELLS, 5 + 2 + 2), np.float32)
    table[0, 7] = [*BOX, 0.9, 0.1, 0.9, 1, 0]
    table[0, 8, 0] = WIDTH
    found = Reader().objects({"out": table, "masks": prototypes()}, FEEDS, SHOWING)
    assert found.scores == pytest.approx([0.81])
    np.testing.assert_allclose(found.coefficients, [[1, 0]])
