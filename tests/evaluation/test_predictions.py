"""Saved predictions say what the model said, in forms that others read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.predictions import Predictions

CELLS = 8 * 8 + 4 * 4 + 2 * 2
SET = Categories((4, 9), ("early", "late"))
FEEDS = {"x": np.zeros((1, 3, 64, 64), np.float32)}
IMAGE = ImageInfo(Path("deep/a.png"), 128, 128, (0.5, 0.5), (0.0, 0.0))
NAMES = {"names": "{0: 'early', 1: 'late', 2: 'other'}", "task": "detect"}


def head(*rows):
    table = np.zeros((1, CELLS, 7), np.float32)
    for place, row in enumerate(rows):
        table[0, place] = row
    return {"out": np.swapaxes(table, 1, 2)}


FOUND = head([20, 20, 8, 8, 0, 0.75, 0], [50, 50, 8, 8, 0, 0, 0.5])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class TestObjects:
    def test_with_labels_in_their_numbers_and_pixels(self, tmp_path):
        said = Predictions(Reader(NAMES))
        label = Boxes.from_corners(77, np.zeros(0), np.zeros((0, 4)), SET)
        said.update(FOUND, Sample(FEEDS, label, IMAGE))
        said.save(tmp_path / "a.json")
        assert read(tmp_path / "a.json") == [
            {"image_id": 77, "category_id": 9, "bbox": [32, 32, 16, 16], "score": 0.75, "file": "a.png"}
        ]

    def test_without_in_the_models_own_and_counted(self, tmp_path):
        said = Predictions(Reader())
        for _ in range(2):
            said.update(FOUND, Sample(FEEDS))
        said.save(tmp_path / "a.json")
        assert [(row["image_id"], row["category_id"], row["file"]) for row in read(tmp_path / "a.json")] == [
            (1, 1, "0"),
            (1, 2, "0"),
            (2, 1, "1"),
            (2, 2, "1"),
        ]
        with pytest.raises(UsageError, match=r"objects do not fit a table; write a\.csv as \.json"):
            said.save(tmp_path / "a.csv")

    def test_nothing_found_is_an_empty_list(self, tmp_path):
        said = Predictions(Reader())
        said.update(head(), Sample(FEEDS))
        said.save(tmp_path / "a.json")
        assert read(tmp_path / "a.json") == []


def test_classes(tmp_path):
    said = Predictions(Reader())
    said.update({"y": np.array([[0.0, 3, 2, 1, 5, 4, -1]])}, Sample(FEEDS, 3, IMAGE))
    said.save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"file": "a.png", "label": "3", "predicted": "4", "score": "5.0", "top5": "4 5 1 2 3"}
        ]


def test_texts_with_signs_that_a_table_quotes(tmp_path):
    said = Predictions(Reader({"character": '"\n,\n'}))
    said.update({"y": np.eye(4)[[1, 2, 3]][None]}, Sample(FEEDS, "x,\n", IMAGE))
    said.save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["text"], row["read"], row["confidence"]) == ("x,\n", '", ', "1.0")


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match=r"predictions cannot be read from \{'y': \[1, 1, 64, 64\]\}; say --decode"):
        Predictions(Reader()).update({"y": np.zeros((1, 1, 64, 64))}, Sample(FEEDS))
    with pytest.raises(UsageError, match=r"not as a\.txt"):
        Predictions(Reader()).save(tmp_path / "a.txt")
