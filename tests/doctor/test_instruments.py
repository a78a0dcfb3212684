"""Scores of which the model is the instrument."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo
from onnxopt.doctor.batch_norm import TrainingStatistics
from onnxopt.doctor.instruments import Seen, by_certainty, by_labels, by_mirror, by_variety, pairs
from onnxopt.doctor.reading import Probabilities, as_probabilities
from onnxopt.evaluation.decoding import Detections
from onnxopt.testing import parse_graph

IMAGE = ImageInfo(Path("p.jpg"), 100, 100, (1.0, 1.0), (0.0, 0.0))
TRUTH = Boxes.from_corners(
    1, np.asarray([0, 1]), np.asarray([[0, 0, 10, 10], [50, 50, 70, 70]]), Categories((0, 1), ("a", "b"))
)


def found(*rows):
    table = np.asarray(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, 0].astype(np.int64), table[:, 1], table[:, 2:])


RIGHT = found((0, 0.9, 0, 0, 10, 10), (1, 0.5, 50, 50, 70, 70))


@pytest.mark.parametrize(
    ("reading", "score"),
    [
        (RIGHT, 2 * 1.4 / (1.4 + 2)),
        (found(), 0),
        (found((1, 0.9, 0, 0, 10, 10)), 0),  # the class is wrong
        (found((0, 0.9, 20, 0, 30, 10)), 0),  # so is the place
        (found((0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 10)), 2 * 0.9 / (1.7 + 2)),  # found twice, counted once
    ],
)
def test_labels_of_objects(reading, score):
    assert by_labels([Seen(reading, None, None, TRUTH, IMAGE, {0: 0, 1: 1})])[0] == pytest.approx(score)


def test_labels_of_pictures():
    seen = Seen(Probabilities(np.asarray([0.2, 0.8])), None, None, 1, None)
    assert by_labels([seen])[0] == 0.8
    assert np.isnan(by_labels([Seen(seen.reading, None, None, None, None)])[0])
    assert np.isnan(by_labels([Seen(seen.reading, None, None, 7, None)])[0])


def test_mirror():
    both = Seen(RIGHT, RIGHT, None, None, None)
    assert by_mirror([both])[0] == pytest.approx(2.8 / 3.8)
    weaker = Seen(RIGHT, found((0, 0.4, 0, 0, 10, 10)), None, None, None)
    assert by_mirror([weaker])[0] == pytest.approx(0.8 / 2.8)
    assert by_mirror([Seen(found(), found(), None, None, None)])[0] == 0


def test_variety_is_information():
    sure = [Seen(Probabilities(row), None, None, None, None) for row in np.eye(4)]
    assert by_variety(sure).mean() == pytest.approx(np.log(4))
    assert by_certainty(sure).mean() == pytest.approx(0, abs=1e-9)
    stuck = [Seen(Probabilities(np.eye(4)[0]), None, None, None, None)] * 4
    assert by_variety(stuck).mean() == pytest.approx(0, abs=1e-9)
    assert np.isnan(by_variety([Seen(RIGHT, None, None, None, None)])).all()


def test_confident_ones_choose_first():
    fits = np.asarray([[0.6, 0.9], [0.7, 0.8]])
    assert pairs(fits, np.asarray([0.3, 0.5])) == [(0, 0.5), (1, 0.3)]
    assert pairs(np.zeros((0, 2)), np.asarray([0.3, 0.5])) == []


def test_scores_become_probabilities_once():
    assert as_probabilities(np.asarray([0.25, 0.75])).tolist() == [0.25, 0.75]
    assert as_probabilities(np.asarray([1.0, 1.0])).tolist() == [0.5, 0.5]
    assert as_probabilities(np.asarray([1000.0, 0.0])).tolist() == [1, 0]


NORMALIZED = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
<float[2] g = {1, 1}, float[2] b = {0, 0}, float[2] m = {3, -1}, float[2] v = {4, 0.25}>
{ h = Relu (x) y = BatchNormalization (h, g, b, m, v) }
"""


def test_batch_norm_knows_what_it_was_trained_on():
    known = TrainingStatistics.find(parse_graph(NORMALIZED))
    assert known.tensor == "h"
    random = np.random.default_rng(0)
    like = (
        random.normal(0, 1, (1, 2, 64, 64)) * np.asarray([2, 0.5])[:, None, None] + np.asarray([3, -1])[:, None, None]
    )
    assert known.strangeness(like) < 0.01
    assert known.strangeness(like * 255) > 5
    assert known.strangeness(like / 255) > 0.5


def test_batch_norm_of_the_input_is_passed_over():
    first = NORMALIZED.replace("h = Relu (x) y = BatchNormalization (h,", "y = BatchNormalization (x,")
    assert TrainingStatistics.find(parse_graph(first)) is None


def test_batch_norm_that_was_never_trained_knows_nothing():
    fresh = NORMALIZED.replace("m = {3, -1}", "m = {0, 0}").replace("v = {4, 0.25}", "v = {1, 1}")
    assert TrainingStatistics.find(parse_graph(fresh)) is None
