"""The page on evaluation: every command on it is run, and its example of an extension is one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.evaluation.decoding import DECODERS, Reader, families
from onnxopt.evaluation.metrics import METRICS, load_metric
from onnxopt.plugins import entries

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the page supposes to be there."""
    folder = tmp_path_factory.mktemp("page")
    testdata = ROOT / "testdata"
    shutil.copytree(testdata / "shapes", folder, dirs_exist_ok=True)
    shutil.copytree(testdata / "patches", folder / "patches")
    shutil.copy(testdata / "shapes_detector.onnx", folder / "model.onnx")
    shutil.copy(testdata / "patches_classifier.onnx", folder / "classifier.onnx")
    made = optimize(folder / "model.onnx", "quantize", data=folder / "data.yaml", samples=32, keep_anyway=True)
    made.save(folder / "model.opt.onnx")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_it_runs(command, place):
    if "openvino" in command:
        pytest.importorskip("openvino")
    if ".html" in command:
        pytest.importorskip("matplotlib")
    words = [sys.executable, "-c", "from onnxopt.cli.main import main; main()", *shlex.split(command)[1:]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "samples a second" in done.stdout
    for name in re.findall(r"(?:--report|--save-predictions) (\S+)", command):
        assert (place / name).stat().st_size > 0


def test_it_names_every_decoder_and_metric():
    for name in (*families(), *entries(METRICS)):
        assert f"`{name}" in PAGE, name


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert link.startswith("http") or (ROOT / "docs" / link).exists(), link


def test_the_example_of_an_extension_is_one(distribute, tmp_path):
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Centers" in block)
    groups = {DECODERS: {"centers": "page_of_eval:CENTERS"}, METRICS: {"precision": "page_of_eval:precision"}}
    distribute("page", groups, page_of_eval=code)
    outputs = {"distances": np.array([[3.0, 1, 2]])}
    decoder = Reader().decoder(outputs, {"x": np.zeros((1, 3, 8, 8))})
    assert decoder.name == "centers"
    assert decoder.decode(outputs).scores.argmax() == 1
    assert load_metric("precision").point == 0.01
    (tmp_path / "a.jpg").touch()
    namespace: dict[str, object] = {}
    exec(compile(code, "page", "exec", dont_inherit=True), namespace)
    assert len(namespace["shelf"](tmp_path, "evaluation")[0]) == 1
