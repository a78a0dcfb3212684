"""Agreement with the float model as a score."""

import numpy as np
import pytest

from onnxopt.data import Sample
from onnxopt.evaluation.likeness import Likeness

FEEDS = {"x": np.zeros((1, 3, 64, 64), np.float32)}


def value(pairs, metadata=None):
    likeness = Likeness(metadata or {})
    for reference, other in pairs:
        likeness.update({"y": reference}, {"y": other}, Sample(FEEDS))
    evidence = likeness.evidence()
    return likeness.name, float(evidence.values(np.ones((1, evidence.pictures), np.int64))[0])


def test_classes():
    one = np.eye(3, dtype=np.float32)
    name, found = value([(one[[0]], one[[0]]), (one[[1]], one[[2]])])
    assert name.endswith("(top class)")
    assert found == 0.5


def boxes(*cells):
    head = np.zeros((1, 6, 8 * 8 + 4 * 4 + 2 * 2), np.float32)
    for cell in cells:
        head[0, :, cell] = [10 + cell, 10, 8, 8, 0.9, 0]
    return head


def test_detections():
    name, found = value([(boxes(0, 30), boxes(0)), (boxes(), boxes())])
    assert name.endswith("(F1 of detections)")
    assert found == pytest.approx(2 / 3)
    assert value([(boxes(), boxes())])[1] == 1


def words(*letters):
    """Probabilities of a blank and two characters, place by place."""
    return np.eye(3, dtype=np.float32)[None, letters]


def test_texts():
    characters = {"character": "a\nb"}
    name, found = value([(words(1, 0, 2), words(1, 1, 2)), (words(1, 2), words(2, 1))], characters)
    assert name.endswith("(texts)")
    assert found == 0.5
    assert value([(words(1, 2), words(1, 2)[..., :2])], characters)[1] == 0


def test_other_outputs_by_energy():
    plane = np.full((1, 2, 8, 8), 2.0, np.float32)
    name, found = value([(plane, plane * 1.1)])
    assert name.endswith("(share of output energy)")
    assert found == pytest.approx(0.99, abs=1e-6)
    assert value([(plane, plane[:, :1])])[1] == 0
    assert value([(plane, plane * np.nan)])[1] == 0
