"""The page on deployment: every command on it is run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
DEVICE = "--device ssh://pi@board"


@pytest.fixture
def place(tmp_path):
    """What the page supposes to be there."""
    shutil.copy(ROOT / "testdata" / "patches_classifier.onnx", tmp_path / "model.onnx")
    shutil.copytree(ROOT / "testdata" / "patches", tmp_path / "data")
    shutil.copy(ROOT / "docs" / "ci" / "recipe.toml", tmp_path)
    return tmp_path


def test_the_page_has_commands_of_every_kind():
    for word in ("bench", "eval", "run", "batch"):
        assert any(command.startswith(f"onnxopt {word} ") for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("onnxopt ")])
def test_it_runs(command, place, request):
    if " --target openvino" in command:
        pytest.importorskip("openvino")
    if DEVICE in command:
        device = request.getfixturevalue("device")
        command = command.replace(DEVICE, shlex.join(["--device", device.url(), *device.arguments]))
    words = [sys.executable, "-c", "from onnxopt.cli.main import main; main()", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=place, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"(?:-o|--junit|--markdown) (\S+)", command):
        assert (place / name).exists()


@pytest.mark.slow
def test_the_service_runs(place):
    (command,) = (c for c in COMMANDS if c.startswith("python "))
    shutil.copy(ROOT / "docs" / "service" / "serve.py", place)
    shutil.copy(place / "model.onnx", place / "model.opt.onnx")
    words = [sys.executable, *command.replace(" 8000", " 0").split()[1:]]
    with subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert answer.status == 200
        process.terminate()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert link.startswith("http") or (ROOT / "docs" / link).exists(), link
