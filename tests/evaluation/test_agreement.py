"""Distances and agreement of two models."""

import math

import numpy as np
import pytest

from onnxopt.data import Sample
from onnxopt.errors import OptimizationError
from onnxopt.evaluation import Comparison

VECTOR = Sample({"x": np.zeros((1, 4), np.float32)})
PICTURE = Sample({"x": np.zeros((1, 3, 64, 64), np.float32)})
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def compare(pairs, sample=VECTOR):
    comparison = Comparison()
    for a, b in pairs:
        comparison.update({"y": np.asarray(a)}, {"y": np.asarray(b)}, sample)
    return comparison.result()


def test_distances_over_all_samples_at_once():
    random = np.random.default_rng(0)
    a = random.normal(size=(5, 1, 7)).astype(np.float32)
    b = (a + random.normal(scale=0.1, size=a.shape)).astype(np.float32)
    found = compare(zip(a, b, strict=True)).outputs["y"]
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert found.sqnr_db == pytest.approx(10 * math.log10((x @ x) / ((x - y) @ (x - y))))
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert found.max_error == np.abs(x - y).max()


def test_known_values():
    assert compare([([3.0, 4.0], [3.0, 4.5])]).outputs["y"].sqnr_db == pytest.approx(20)
    equal = compare([([1.0], [1.0])]).outputs["y"]
    assert (equal.sqnr_db, equal.cosine, equal.max_error) == (math.inf, 1, 0)
    silent = compare([([0.0], [1.0])]).outputs["y"]
    assert silent.sqnr_db == -math.inf
    assert math.isnan(silent.cosine)
    assert compare([([0.0], [0.0])]).outputs["y"].sqnr_db == math.inf


def test_nan_is_not_hidden():
    for pair in ([math.nan], [1.0]), ([1.0], [math.nan]):
        found = compare([([1.0], [1.0]), pair]).outputs["y"]
        assert math.isnan(found.sqnr_db)
        assert math.isnan(found.max_error)


def test_infinities():
    assert compare([([1.0], [math.inf])]).outputs["y"].sqnr_db == -math.inf
    assert math.isnan(compare([([math.inf], [-math.inf])]).outputs["y"].cosine)
    assert compare([([math.inf], [-math.inf])]).outputs["y"].max_error == math.inf


def test_the_same_infinities_are_no_error():
    masked = [1.0, -math.inf, 3.0]
    assert compare([(masked, masked)]).outputs["y"].sqnr_db == math.inf
    assert compare([([math.inf, 3.0, 4.0], [math.inf, 3.0, 4.5])]).outputs["y"].sqnr_db == pytest.approx(20)


def test_other_shapes_are_counted_and_other_names_refused():
    found = compare([([1.0, 2.0], [1.0]), ([1.0], [1.0])]).outputs["y"]
    assert (found.mismatched, found.sqnr_db) == (1, math.inf)
    assert math.isnan(compare([([1.0, 2.0], [1.0])]).outputs["y"].sqnr_db)
    with pytest.raises(OptimizationError, match="no output 'y'"):
        Comparison().update({"y": np.ones(1)}, {"z": np.ones(1)}, VECTOR)


def test_top1_agreement():
    found = compare([([[1.0, 2.0]], [[0.0, 9.0]]), ([[1.0, 2.0], [2.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]])])
    assert found.top1 == pytest.approx(2 / 3)
    assert (found.detections, found.samples) == (None, 2)


def test_the_worst_output_is_told():
    comparison = Comparison()
    comparison.update({"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1), "b": np.full(1, 1.1)}, VECTOR)
    assert comparison.result().worst_sqnr_db == pytest.approx(20)


def head(*rows):
    """A YOLO head of two classes that holds these rows of class, score, centre and size."""
    array = np.zeros((1, 6, CELLS), np.float32)
    for cell, (number, confidence, *box) in enumerate(rows):
        array[0, :4, cell] = box
        array[0, 4 + number, cell] = confidence
    return array


LEFT, RIGHT = (15, 15, 20, 20), (45, 45, 20, 20)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (head((0, 0.9, *LEFT), (1, 0.8, *RIGHT)), 1),
        (head((0, 0.3, 16, 15, 20, 20), (1, 0.9, *RIGHT)), 1),
        (head((0, 0.9, *LEFT), (1, 0.2, *RIGHT)), 2 / 3),
        (head((0, 0.9, *LEFT), (0, 0.8, *RIGHT)), 1 / 2),
        (head((0, 0.9, 30, 15, 20, 20), (1, 0.9, *RIGHT)), 1 / 2),
        (head((0, 0.9, *LEFT), (1, 0.9, *RIGHT), (1, 0.9, *LEFT), (0, 0.9, *RIGHT)), 2 / 3),
        (head(), 0),
    ],
)
def test_detection_agreement(other, expected):
    found = compare([(head((0, 0.9, *LEFT), (1, 0.8, *RIGHT)), other)], PICTURE)
    assert found.detections == pytest.approx(expected)
    assert found.top1 is None


def test_nothing_found_by_either_is_no_agreement():
    assert compare([(head(), head())], PICTURE).detections is None


def test_ruined_scores_show_beside_boxes_that_are_larger():
    head = np.random.default_rng(0).uniform(0, 64, (1, 6, CELLS))
    head[0, 4:] /= 64
    ruined = head.copy()
    ruined[0, 4:] = 0.5
    found = compare([(head, ruined)], PICTURE)
    assert found.worst_sqnr_db > 30
    assert found.parts["y (boxes)"].sqnr_db == math.inf
    assert found.parts["y (scores)"].sqnr_db < 10


def test_tables_of_another_length_are_matched_all_the_same():
    def table(count):
        return np.array([[[9.0 * i, 0, 9 * i + 8, 8, 0.9, 1] for i in range(1, count + 1)]])

    assert compare([(table(3), table(1))], PICTURE).detections == 0.5


def test_texts_are_the_same_or_not():
    comparison = Comparison({"character": "a\nb\n"})
    for other in ([1, 2], [2, 2], [1, 1, 2], [0, 1, 2]):
        steps = np.eye(4)[[*other, *[0] * (4 - len(other))]][None]
        comparison.update({"y": np.eye(4)[[1, 2, 0, 0]][None]}, {"y": steps}, PICTURE)
    found = comparison.result()
    assert (found.texts, found.top1, found.detections) == (0.75, None, None)
