"""`--report` of `run`: pages and JSON."""

import json
import re
import shutil
from pathlib import Path

import pytest

TESTDATA = Path(__file__).parents[2] / "testdata"


@pytest.fixture
def classifier(tmp_path):
    return Path(shutil.copy(TESTDATA / "patches_classifier.onnx", tmp_path / "m.onnx"))


@pytest.mark.slow
def test_a_page_shows_layers_tensors_and_pictures(onnxopt, classifier, tmp_path):
    page, told = tmp_path / "r.html", tmp_path / "r.json"
    data = TESTDATA / "patches" / "train.csv"
    shown = ["--data", data, "--preprocess", "imagenet", "--metric", "top1"]
    result = onnxopt("run", classifier, "--passes", "quantize", *shown, "--report", page, "--report", told)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert len(text) < 5_000_000
    anchors = re.findall(r'<section id="([\w-]+)">', text)
    assert anchors == ["figures", "stages", "pictures", "layers", "spectra", "reproduce"]
    assert text.count("data:image/jpeg") == 12
    assert "peak memory of a process" in text
    assert "m.opt.onnx" in text
    assert json.loads(told.read_text())["metric"] == "top1"
    assert onnxopt("run", classifier, "--passes", "eliminate-dead", "--report", page).exit_code == 0


def test_another_ending_is_refused_before_work(onnxopt, classifier, tmp_path):
    result = onnxopt("run", classifier, "--passes", "quantize", "--report", tmp_path / "r.pdf")
    assert result.exit_code == 2
    assert "a report is a .html page or .json" in result.stderr
    assert not (tmp_path / "m.opt.onnx").exists()


def test_somebody_elses_page_is_kept(onnxopt, classifier, tmp_path):
    (tmp_path / "r.html").write_text("<!DOCTYPE html>mine")
    result = onnxopt("run", classifier, "--passes", "quantize", "--report", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "no report of onnxopt" in result.stderr
    assert (tmp_path / "r.html").read_text() == "<!DOCTYPE html>mine"


def test_a_link_stays(onnxopt, classifier, tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("r.json", "j.xml", "o.onnx"):
        (tmp_path / name).symlink_to(tmp_path / "kept" / name)
    places = ["--report", tmp_path / "r.json", "--junit", tmp_path / "j.xml", "-o", tmp_path / "o.onnx"]
    result = onnxopt("run", classifier, "--passes", "eliminate-dead", *places)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["j.xml", "o.onnx", "r.json"]
    assert all((tmp_path / name).is_symlink() for name in ("r.json", "j.xml", "o.onnx"))
    (tmp_path / "astray.json").symlink_to(tmp_path / "nowhere" / "r.json")
    result = onnxopt("run", classifier, "--passes", "eliminate-dead", "--report", tmp_path / "astray.json")
    assert (result.exit_code, "nowhere does not exist" in result.stderr) == (2, True)


def test_one_file_given_twice(onnxopt, classifier, tmp_path):
    reports = ["--report", tmp_path / "r.json", "--report", tmp_path / "." / "r.json"]
    result = onnxopt("run", classifier, "--passes", "quantize", *reports)
    assert result.exit_code == 2
    assert "given twice" in result.stderr


def test_missing_packages_are_told_before_work(onnxopt, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr("onnxopt.report.html.find_spec", lambda name: None)
    result = onnxopt("run", classifier, "--passes", "quantize", "--report", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "pip install 'onnxopt[report]'" in result.stderr
    assert not (tmp_path / "m.opt.onnx").exists()
