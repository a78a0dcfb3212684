"""`onnxopt doctor`."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxopt.cli.main import main

TESTDATA = Path(__file__).parents[2] / "testdata"
DETECTOR, SHAPES = str(TESTDATA / "shapes_detector.onnx"), str(TESTDATA / "shapes" / "data.yaml")
CLASSIFIER, PATCHES = str(TESTDATA / "patches_classifier.onnx"), str(TESTDATA / "patches" / "train.csv")


def doctor(*words):
    return CliRunner().invoke(main, ["doctor", *words])


def test_nothing_wrong(tmp_path):
    result = doctor(DETECTOR, "--data", SHAPES, "--samples", "16", "-o", str(tmp_path / "seen"))
    assert result.exit_code == 0, result.output
    assert "Nothing wrong was found" in result.output
    drawn = sorted((tmp_path / "seen").iterdir())
    assert [file.name for file in drawn] == [f"doctor-{number}.png" for number in range(1, 5)]
    # Right inputs look like the picture; what is found is drawn in orange, what is labelled in green.
    pixels = np.asarray(Image.open(drawn[0]), np.int64)
    original = np.asarray(Image.open(TESTDATA / "shapes" / "images" / "train" / "0000.jpg").resize((384, 384), 0))
    assert np.median(np.abs(pixels - original)) == 0
    for color in ((255, 140, 0), (0, 220, 90)):
        assert (pixels == color).all(axis=2).any()


def test_a_fault_is_named_with_the_cure(tmp_path):
    result = doctor(
        DETECTOR, "--data", SHAPES, "--samples", "16", "--preprocess", "yolo,scale=1", "--json", "--no-pictures"
    )
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    [finding] = document["findings"]
    assert (finding["fault"], finding["preprocess"], document["sound"]) == ("value-range", "yolo", False)
    assert finding["word"] == "almost certain"
    assert document["pictures"] == []


def test_a_classifier_is_drawn_with_its_three_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctor(CLASSIFIER, "--data", PATCHES, "--samples", "16", "--preprocess", "imagenet")
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open(tmp_path / "patches_classifier.doctor" / "doctor-1.png"))
    assert (drawn[3:45, 3:60] == 0).all(axis=2).mean() > 0.3  # text on black


def test_help_does_not_promise_synthetic_pictures(onnxopt):
    text = " ".join(onnxopt("doctor", "--help").stdout.split())
    assert "it has to be given" in text
    assert "synthetic" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give --data"),
        (("--data", "nowhere"), "does not exist"),
        (("--data", SHAPES, "--preprocess", "yolo,scale=no"), "scale=no"),
        (("--data", SHAPES, "--target", "otr"), "did you mean 'ort'"),
    ],
)
def test_wrong_requests_are_one_sentence(words, says):
    result = doctor(DETECTOR, *words)
    assert result.exit_code == 2
    assert says in result.output
