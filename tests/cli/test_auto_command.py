"""`onnxopt auto`, as typed; with no time to spare it tries the cleaned-up model alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxopt import load
from onnxopt.auto.store import TRIAL
from onnxopt.cli.main import main

TESTDATA = Path(__file__).parents[2] / "testdata"
DATA = ("--data", TESTDATA / "patches" / "train.csv", "--preprocess", "imagenet", "--samples", "9")


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copy(TESTDATA / "patches_classifier.onnx", tmp_path / "m.onnx"))


def run(*words):
    return CliRunner().invoke(main, ["auto", *map(str, words)])


def test_out_of_time_it_writes_what_it_has_and_says_how_to_go_on(model, tmp_path):
    reports = ("--report", tmp_path / "r.json", "--report", tmp_path / "r.html")
    result = run(model, *DATA, "--minutes", "0", *reports)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "m.auto"
    names = sorted(f.name for f in folder.iterdir())
    assert names == ["cache", "m.balanced.onnx", "m.safe.onnx", "m.small.onnx", "pareto.csv", "pareto.svg"]
    assert "onnxopt.recipe" in load(folder / "m.balanced.onnx").metadata
    assert "run the same command again with more --minutes" in result.stderr
    assert "3 pictures are few to judge by" in result.stderr
    assert json.loads((tmp_path / "r.json").read_text())["stopped"] == "the time limit was reached"
    page = (tmp_path / "r.html").read_text()
    assert "<svg" in page
    assert "Layer by layer" in page
    assert "data:image/" in page
    assert len(page) < 1.5e6
    assert result.stdout == ""
    again = run(model, *DATA, "--minutes", "0", *reports)
    assert again.exit_code == 0, again.output
    assert "(known)" in again.stderr


def test_after_a_missed_gate_what_stays_of_an_earlier_search_is_named(model, tmp_path):
    assert run(model, *DATA, "--minutes", "0").exit_code == 0
    result = run(model, *DATA, "--minutes", "0", "--require", "size<=1kB")
    assert result.exit_code == 3, result.output
    assert f"of an earlier search, and still there: {tmp_path / 'm.auto' / 'm.safe.onnx'}" in result.stderr


def test_a_gate_that_nothing_keeps_is_exit_3_and_nothing_is_written(model, tmp_path):
    result = run(model, *DATA, "--minutes", "0", "--require", "size<=1kB", "-o", tmp_path / "o")
    assert result.exit_code == 3, result.output
    assert "size<=1kB is missed" in result.stderr
    assert "earlier search" not in result.stderr
    assert [f.name for f in (tmp_path / "o").iterdir()] == ["cache"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--data"),
        ((*DATA, "-o", TESTDATA / "patches" / "train.csv"), "is a file; give a folder"),
        ((*DATA, "--target", "tensorrt"), "auto ranks by latency"),
        ((*DATA, "--target", "auto", "--device", "ssh://nowhere"), "--device takes one target"),
        ((*DATA, "--report", "r.txt"), "neither"),
        ((*DATA, "--max-drop", "much"), "max drop"),
        ((*DATA, "--minutes", "nan"), "minutes is nan"),
        ((*DATA, "--require", "spedup>=2"), "did you mean 'speedup'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(model, words, said):
    result = run(model, *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert [f.name for f in model.parent.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("name", ["m.small.onnx", "pareto.csv", "pareto.svg"])
def test_files_of_others_are_not_replaced(name, model, tmp_path):
    (tmp_path / "m.auto").mkdir()
    mine = tmp_path / "m.auto" / name
    mine.write_bytes(b"mine")
    result = run(model, *DATA)
    assert result.exit_code == 2, result.output
    assert "onnxopt did not write it" in result.stderr
    assert mine.read_bytes() == b"mine"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted_it_writes_what_it_has(model, tmp_path):
    command = "from onnxopt.cli.main import main; main()"
    words = [sys.executable, "-c", command, "auto", str(model), *map(str, DATA)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "m.auto").glob(f"cache/*/{TRIAL}")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted: run the same command again to go on from here" in said
    assert (tmp_path / "m.auto" / "m.balanced.onnx").is_file()
