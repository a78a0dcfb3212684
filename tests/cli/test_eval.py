"""`onnxopt eval`: what it prints and writes, and what it refuses."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER, PATCHES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches" / "val.csv"
DETECTOR, SHAPES = TESTDATA / "shapes_detector.onnx", TESTDATA / "shapes" / "data.yaml"
SMALL = ["--data", PATCHES, "--preprocess", "imagenet", "--samples", "8"]


def test_a_detector_against_itself(onnxopt):
    result = onnxopt("eval", DETECTOR, "--data", SHAPES, "--samples", 6, "--reference", DETECTOR)
    assert result.exit_code == 0, result.output
    for text in ("coco-map", "at an overlap of 0.5", "lost", "inf dB", "95% interval"):
        assert text in result.stdout, text
    assert re.search(r"detections agreeing +100\.0%", result.stdout)
    assert "samples a second" in result.stdout
    assert "the split 'val' is read" in result.stdout


def test_files_and_json(onnxopt, tmp_path):
    said, told, page = tmp_path / "p.csv", tmp_path / "r.json", tmp_path / "r.html"
    written = ["--save-predictions", said, "--report", told, "--report", page]
    result = onnxopt("eval", CLASSIFIER, *SMALL, "--batch", 4, "--json", *written)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads(told.read_text())
    assert (printed["kind"], printed["metric"], printed["data"]["samples"]) == ("onnxopt-evaluation", "top1", 8)
    with said.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["label"] == row["predicted"] for row in rows) == 8 * printed["score"]
    assert "patches_classifier.onnx" in page.read_text()
    assert onnxopt("eval", CLASSIFIER, *SMALL, "--report", told).exit_code == 0


def test_a_page_of_a_detector_has_its_classes(onnxopt, tmp_path):
    page = tmp_path / "r.html"
    result = onnxopt("eval", DETECTOR, "--data", SHAPES, "--samples", 6, "--reference", DETECTOR, "--report", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert all(name in text for name in ("Per class", "circle", "detections agreeing"))


def test_a_missed_gate_writes_no_report(onnxopt, tmp_path):
    told, junit = tmp_path / "r.json", tmp_path / "j.xml"
    result = onnxopt("eval", CLASSIFIER, *SMALL, "--require", "top1>=1.5", "--report", told, "--junit", junit)
    assert result.exit_code == 3
    assert "refused: top1>=1.5 is missed" in result.stderr
    assert not told.exists()
    assert "failure" in junit.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "topp1"], "metric 'topp1' is not known; did you mean 'top1'"),
        (["--decode", "yolox"], "decoder 'yolox' does not fit logits [1, 10]"),
        (["--save-predictions", "p.txt"], "predictions are written as .json (any model) or .csv"),
        (["--save-predictions", "nowhere/p.csv"], "the folder nowhere does not exist"),
        (["--report", "r.txt"], "a report is a .html page or .json"),
        (["--provider", "cuda"], "ONNX Runtime has no execution provider 'cuda' here; give one of "),
        (["--reference", str(DETECTOR)], "the reference cannot be compared"),
        (["--target", "tpu"], "unknown target 'tpu'"),
        (["--ssh-option", "a=b"], "--ssh-option goes with --device"),
    ],
)
def test_refusals(onnxopt, options, message):
    result = onnxopt("eval", CLASSIFIER, *SMALL, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_data_that_are_not_there(onnxopt):
    result = onnxopt("eval", CLASSIFIER, "--data", "nowhere")
    assert result.exit_code == 2
    assert "the data nowhere does not exist" in result.stderr


def test_files_that_are_there_are_kept(onnxopt, tmp_path):
    mine = tmp_path / "p.csv"
    mine.write_text("mine")
    result = onnxopt("eval", CLASSIFIER, *SMALL, "--save-predictions", mine)
    assert (result.exit_code, mine.read_text()) == (2, "mine")
    assert "is there already; give --force" in result.stderr
    assert onnxopt("eval", CLASSIFIER, *SMALL, "--save-predictions", mine, "--force").exit_code == 0
    assert mine.read_text().startswith("file,label")
    model = tmp_path / "m.json"
    model.write_bytes(CLASSIFIER.read_bytes())
    result = onnxopt("eval", model, *SMALL, "--save-predictions", model, "--force")
    assert (result.exit_code, model.read_bytes()) == (2, CLASSIFIER.read_bytes())


METRICS = """
def nan(outputs, sample):
    return float("nan")

def raising(outputs, sample):
    raise KeyError("mine")

def stopping(outputs, sample):
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("nan", 1, "0000.jpg: ValueError('the metric is nan')"),
        ("raising", 1, "0000.jpg: KeyError('mine')"),
        ("stopping", 130, "Interrupted."),
    ],
)
def test_a_metric_that_goes_wrong_writes_nothing(onnxopt, tmp_path, monkeypatch, name, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("metrics_of_eval.py").write_text(METRICS)
    files = ["--save-predictions", "p.csv", "--report", "r.json"]
    result = onnxopt("eval", CLASSIFIER, *SMALL, "--metric", f"metrics_of_eval:{name}", *files)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"metrics_of_eval.py"}


def test_a_disk_without_room_leaves_no_half_a_report(tmp_path):
    """A limit on the size of files stands in for it: what writes cannot tell them apart but by the reason."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); "
        "from onnxopt.cli.main import main; sys.argv[0] = 'onnxopt'; main()"
    )
    told = tmp_path / "r.json"
    command = [sys.executable, "-B", "-c", program, "eval", CLASSIFIER, *SMALL, "--report", told]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"{told}: cannot be written (File too large)" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "top1" in done.stdout


def test_on_a_device_it_says_the_same(onnxopt, device):
    here, there = (
        json.loads(onnxopt("eval", CLASSIFIER, *SMALL, "--reference", CLASSIFIER, "--json", *where).stdout)
        for where in ((), ("--device", device.url(), *device.arguments))
    )
    assert (there["score"], there["compared"]["top1"]) == (here["score"], 1.0)
    assert any("samples travel to the device" in warning for warning in there["warnings"])


@pytest.mark.slow
def test_a_page_shows_what_both_models_see(onnxopt, tmp_path):
    page = tmp_path / "e.html"
    result = onnxopt("eval", DETECTOR, "--data", SHAPES, "--samples", 8, "--reference", DETECTOR, "--report", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/jpeg") == 8
    assert '<section id="layers">' in text
