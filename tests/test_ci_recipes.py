"""The recipes for continuous integration: what they run is run here, on the repository's own classifier."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "ci"


def commands(document: object) -> list[str]:
    """What a recipe runs in a shell, in order: the steps' `run` of GitHub, the `script` of GitLab."""
    if isinstance(document, list):
        return [command for item in document for command in commands(item)]
    if not isinstance(document, dict):
        return []
    own = [document["run"]] if "run" in document else list(document.get("script", ()))
    return own + [command for value in document.values() for command in commands(value)]


@pytest.fixture
def repository(tmp_path):
    """A user's repository: a model, its data and the recipe."""
    shutil.copy(ROOT / "testdata" / "patches_classifier.onnx", tmp_path / "model.onnx")
    shutil.copytree(ROOT / "testdata" / "patches", tmp_path / "data")
    shutil.copy(RECIPES / "recipe.toml", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "onnxopt").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from onnxopt.cli.main import main; main()' \"$@\"\n"
    )
    (programs / "onnxopt").chmod(0o755)
    return tmp_path


def run(command: str, repository: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{repository / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "GITHUB_STEP_SUMMARY": str(repository / "model.md"),
    }
    return subprocess.run(
        ["sh", "-c", command], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_they_are_short_and_install_what_they_need(name):
    text = (RECIPES / f"{name}.yml").read_text()
    assert len(text.splitlines()) <= 10
    first, *rest = commands(yaml.safe_load(text))
    assert first == "pip install 'onnxopt[eval]'"  # is not run here: it is what is tested
    assert all(command.startswith("onnxopt ") for command in rest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_what_they_run_passes(name, repository):
    for command in commands(yaml.safe_load((RECIPES / f"{name}.yml").read_text()))[1:]:
        done = run(command, repository)
        assert done.returncode == 0, done.stderr
    assert (repository / "model.opt.onnx").is_file()
    assert ET.parse(repository / "model.xml").getroot().attrib == {"tests": "1", "failures": "0", "errors": "0"}
    assert "✅ | model.onnx" in (repository / "model.md").read_text().replace("\\_", "_")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gates", "regressed"),
    [
        ("top1>=-2pt,speedup>=1.1,size<=1MB", "top1>=+5pt"),
        ("speedup>=1.1", "speedup>=1000"),
        ("size<=1MB", "size<=1kB"),
    ],
)
def test_a_regression_fails_the_merge_request(gates, regressed, repository):
    _, command = commands(yaml.safe_load((RECIPES / "gitlab.yml").read_text()))
    assert gates in command
    done = run(command.replace(gates, regressed), repository)
    assert done.returncode == 3
    assert not (repository / "model.opt.onnx").exists()
    assert ET.parse(repository / "model.xml").getroot().get("failures") == "1"
    shown = (repository / "model.md").read_text()
    assert "❌" in shown
    assert " x faster ± " in shown  # what was measured is shown all the same
