"""`--device` of the commands beside `bench`: the same scores, measured there."""

import json
from pathlib import Path

import pytest

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER, PATCHES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches"


@pytest.mark.slow
def test_eval_scores_what_runs_there(onnxopt, device):
    words = ("eval", CLASSIFIER, "--data", PATCHES / "val.csv", "--preprocess", "imagenet", "--json")
    here, there = (
        json.loads(onnxopt(*words, *where).stdout) for where in ((), ("--device", device.url(), *device.arguments))
    )
    assert there["score"] == here["score"]
    assert there["environment"]["processor"] == here["environment"]["processor"]
    assert there["speed"]["milliseconds"] < 3 * here["speed"]["milliseconds"]  # the way there is not timed


@pytest.mark.slow
def test_auto_seeks_for_what_is_there(onnxopt, device, tmp_path):
    result = onnxopt(
        "auto", CLASSIFIER, "--data", PATCHES / "train.csv", "--eval-data", PATCHES / "val.csv",
        "--preprocess", "imagenet", "--samples", 8, "--minutes", 0.2, "-o", tmp_path / "out",
        "--device", device.url(), *device.arguments,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert list((tmp_path / "out").glob("*.onnx"))
