"""The report of an evaluation: JSON that any parser reads, a table, a page."""

import json
import math

import pytest

from onnxopt.evaluation.interval import Interval
from onnxopt.report.evaluation import Compared, Evaluation, Speed
from onnxopt.report.evaluation_summary import evaluation_document, evaluation_figures, evaluation_summary
from onnxopt.report.run import is_report

MODEL = {"source": "folder/m.onnx", "digest": "ab", "bytes": 2048}
COMPARED = Compared(MODEL, 0.9, 0.1, Interval(-0.05, 0.2, 500), parts={"a": 30.0, "b": math.inf}, top1=0.75)


def report(**changes):
    kept = {
        "model": MODEL,
        "target": {"name": "ort", "runtime": "onnxruntime 1"},
        "inputs": ["x: float32[1, 3, 8, 8]"],
        "data": {"source": "9 pictures of here", "digest": "cd", "samples": 9},
        "speed": Speed(per_second=40.0, milliseconds=25.0, batch=4, threads=2),
        "metric": "coco-map",
        "score": 0.8,
        "interval": Interval(0.7, 0.9, 500),
        "details": {"map50": 0.95, "per_class": {"cat": 0.7, "dog": 0.9}},
        "warnings": ["something was guessed"],
    }
    return Evaluation(**(kept | changes))


def test_json_has_no_infinities(tmp_path):
    text = report(compared=COMPARED).to_json()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (found["kind"], found["schema_version"]) == ("onnxopt-evaluation", 1)
    assert found["compared"]["parts"] == {"a": 30.0, "b": "inf"}
    assert (found["compared"]["worst_part"], found["compared"]["worst_sqnr_db"]) == ("a", 30.0)
    assert found["interval"]["low"] == 0.7
    (tmp_path / "r.json").write_text(text)
    assert is_report(tmp_path / "r.json")


def test_a_part_that_is_not_a_number_is_the_worst():
    assert Compared(MODEL, parts={"a": -5.0, "b": math.nan}).worst_part == "b"
    assert Compared(MODEL).worst_sqnr_db is None


def test_the_share_is_that_of_what_the_model_answers():
    assert Compared(MODEL, top1=0.5).share == Compared(MODEL, texts=0.5).share == 0.5
    assert Compared(MODEL, detections=0.25).share == 0.25
    assert Compared(MODEL).share is None


def test_the_table():
    text = evaluation_summary(report(compared=COMPARED, gates=[{"text": "score>=0.5 is kept"}]))
    for line in (
        r"coco-map                0.8000",
        "95% interval 0.7000 to 0.9000",
        "  lost                  +0.1000",
        "95% interval -0.0500 to 0.2000",
        "top-1 agreement         75.0%",
        "25.00 ms each, 4 at once, 2 threads, onnxruntime 1",
        "30.0 dB",
        "dog      0.9000",
        "score>=0.5 is kept",
        "note: something was guessed",
    ):
        assert line in text, line


def test_without_labels_the_score_has_no_line():
    bare = report(metric=None, score=None, interval=None, details={}, compared=Compared(MODEL, texts=0.5))
    assert set(evaluation_figures(bare)) == {"texts agreeing", "speed", "file size", "samples"}


def test_the_page_has_the_classes_and_the_facts():
    page = evaluation_document(report(compared=COMPARED))
    assert page.title == "m.onnx"
    assert [tile.label for tile in page.tiles] == ["coco-map", "lost", "top-1 agreement", "SQNR", "speed"]
    assert [row.name for row in page.tables[0].rows] == ["cat", "dog"]
    assert page.warnings == ("something was guessed",)
