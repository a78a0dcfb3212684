"""Of objects that overlap, the most confident stays."""

import numpy as np
import pytest

from onnxopt.evaluation.decoding import Detections, overlap
from onnxopt.evaluation.decoding.suppression import rotated_overlap, suppress


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
    kept = suppress(found, 0.65)
    assert 3 < len(kept) < 80
    assert kept.tolist() == naive_suppression(found, 0.65)


def test_overlap():
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 3]])
    np.testing.assert_allclose(overlap(a, b), [[1, 1 / 3, 0, 0]])


def test_rotated_boxes_are_apart_if_turned_or_moved():
    long = np.array([[50.0, 50, 60, 6, 0]])
    others = np.array([[50.0, 50, 60, 6, 0], [50, 50, 60, 6, np.pi], [50, 50, 60, 6, np.pi / 2], [50, 90, 60, 6, 0]])
    same, half_turn, crossed, moved = rotated_overlap(long, others)[0]
    assert same == pytest.approx(1, abs=1e-3)
    assert half_turn == pytest.approx(1, abs=1e-3)
    assert crossed < 0.4
    assert moved < 0.01


def test_a_crossed_box_stays_where_upright_ones_would_hide_it():
    rotated = np.array([[50.0, 50, 60, 6, np.pi / 4], [50, 50, 60, 6, -np.pi / 4], [50, 50, 58, 6, np.pi / 4]])
    around = np.tile([25.0, 25, 75, 75], (3, 1))
    found = Detections(np.zeros(3, np.int64), np.array([0.9, 0.8, 0.7]), around, rotated=rotated)
    assert suppress(found, iou=0.65).tolist() == [0, 1]
