"""`new-pass`: the package it makes installs, and its tests pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxopt.errors import UsageError
from onnxopt.new_pass import make_package

PLUGIN = Path(__file__).parent / "plugin"


def test_the_example_plugin_is_what_it_makes(tmp_path):
    made = make_package("merge-relus", tmp_path / "plugin", "onnxopt-example-plugin")
    for file in made:
        assert file.read_text() == (PLUGIN / file.relative_to(tmp_path / "plugin")).read_text()


@pytest.mark.parametrize(
    ("name", "package", "problem"),
    [
        ("Drop_It", None, "'Drop_It' is no name for a pass"),
        ("drop--it", None, "is no name for a pass"),
        ("import", None, "'import' is no name for a pass"),
        ("../x", None, "is no name for a pass"),
        ("drop-it", "a b", "'a b' is no name for a package"),
        ("class", None, "'class' is no name for a pass: Python has that word for itself"),
        ("none", None, "'none' is no name for a pass: Python has that word for itself"),
        ("drop-it", "class", "'class' is no name for a package: Python has that word for itself"),
        ("drop-it", "numpy", "'numpy' is no name for a package: one of that name is installed"),
        ("drop-it", "onnx-graphsurgeon", "one of that name is installed"),
        ("drop-it", "json", "'json' is no name for a package: it is a module of Python's own"),
        ("prune", None, "there is a pass or pipeline 'prune' already"),
        ("quantize", None, "there is a pass or pipeline 'quantize' already"),
    ],
)
def test_names_that_do_not_do(tmp_path, name, package, problem):
    with pytest.raises(UsageError, match=problem):
        make_package(name, tmp_path / "x", package)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_written_into(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="mine is there already"):
        make_package("drop-it", tmp_path / "mine")
    with pytest.raises(UsageError, match="cannot be written"):
        make_package("drop-it", tmp_path / "none" / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_it_installs_and_its_tests_pass(tmp_path):
    pytest.importorskip("hatchling")
    package = tmp_path / "onnxopt-drop-it"
    make = "from onnxopt.cli.main import main; main()"
    run(sys.executable, "-c", make, "new-pass", "drop-it", package)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", tmp_path / "site", package)
    installed = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", package / "tests", env=installed)
    assert "4 passed" in said
    assert "drop-it" in run(sys.executable, "-c", make, "passes", "list", env=installed)
    assert "from:    onnxopt-drop-it" in run(sys.executable, "-c", make, "passes", "show", "drop-it", env=installed)


@pytest.mark.slow
def test_it_is_typed_and_tidy(tmp_path):
    for package in ("ruff", "mypy"):
        pytest.importorskip(package)
    made = make_package("drop-it", tmp_path / "made")
    code = [file for file in made if file.suffix == ".py" and file.parent.name != "tests"]
    run(sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", *made[2:])
    run(sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", *made[2:])
    run(sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, *code)


def run(*command: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
