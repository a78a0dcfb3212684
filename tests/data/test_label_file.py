"""Lines of boxes, outlines and keypoints."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Categories, ImageInfo
from onnxopt.data.label_file import LabelFile
from onnxopt.errors import UsageError

SET = Categories((0, 1), ("a", "b"))
IMAGE = ImageInfo(Path("a.png"), height=10, width=20, scale=(1, 1), offset=(0, 0))


def read(tmp_path, text, keypoints=None):
    (tmp_path / "a.txt").write_text(text)
    return LabelFile(tmp_path / "a.txt", 3, SET, keypoints).read(IMAGE)


def test_outlines_are_those_of_all_objects_or_none(tmp_path):
    boxes = read(tmp_path, "1 0 0 0.5 0 0.5 1\n0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n")
    assert boxes.outlines == [[[0, 0, 10, 0, 10, 10]], [pytest.approx([2, 1, 4, 1, 4, 3, 2, 3])]]
    np.testing.assert_allclose(boxes.xyxy, [[0, 0, 10, 10], [2, 1, 4, 3]])
    assert read(tmp_path, "1 0 0 0.5 0 0.5 1\n0 0.5 0.5 0.2 0.4\n").outlines is None
    assert read(tmp_path, "").outlines == []


def test_what_reaches_over_the_border_a_little_is_read(tmp_path):
    assert len(read(tmp_path, "0 0.5 0.5 1.0000001 1\n1 -0.1 0.2 1.2 0.2 0.4 1.1\n")) == 2
    assert len(read(tmp_path, "0 0.5 0.5 0.2 0.4 0.5 0.9 2 1.1 0.5 1\n", (2, 3))) == 1


def test_keypoints_with_and_without_visibility(tmp_path):
    boxes = read(tmp_path, "0 0.5 0.5 0.2 0.4  0.1 0.2 2  0.3 0.4 0\n1 0.5 0.5 0.2 0.4\n", (2, 3))
    np.testing.assert_allclose(boxes.keypoints, [[[2, 2, 2], [6, 4, 0]], np.zeros((2, 3))])
    np.testing.assert_allclose(boxes.xyxy[0], [8, 3, 12, 7])
    np.testing.assert_allclose(boxes.area, [16 * 0.53] * 2)
    unseen = read(tmp_path, "0 0.5 0.5 0.2 0.4  0.1 0.2  -1 -1\n", (2, 2))
    assert unseen.keypoints[0, :, 2].tolist() == [2, 0]
    assert read(tmp_path, "", (2, 3)).keypoints.shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("line", "keypoints", "message"),
    [
        ("2 0.5 0.5 0.2 0.4", None, "line 1: class 2 is not among the 2 names"),
        ("-1 0.5 0.5 0.2 0.4", None, "class -1 is not among the 2 names"),
        ("0.5 0.5 0.5 0.2 0.4", None, "class 0.5 is not among the 2 names"),
        ("0 0.5 0.5 0.2", None, "3 numbers after the class, where a box has 4"),
        ("0 0.5 0.5 nan 0.2", None, "not a number"),
        ("0 a b c d", None, "could not convert"),
        ("0 10 5 4 2", None, "line 1: 10 is no share of the picture's size; divide x and width by"),
        ("0 0.5 0.5 1.2 0.4", None, "1.2 is no share"),
        ("0 1 1 5 1 5 4", None, "5 is no share"),
        ("0 0.5 0.5 0.2 0.4 0.5 9 2 0 0 0", (2, 3), "9 is no share"),
        ("0 0.5 0.5 0.2 0.4 0.1", (2, 3), "5 numbers after the class, where kpt_shape asks for 10"),
    ],
)
def test_broken_lines(tmp_path, line, keypoints, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, line, keypoints)
