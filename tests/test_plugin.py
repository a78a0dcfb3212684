"""A real plug-in, installed as its users would: listed, documented, used from the command line and from Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxopt import load, save
from onnxopt.testing import parse_graph

PLUGIN = Path(__file__).parent / "plugin"
TUTORIAL = Path(__file__).parents[1] / "docs" / "write-a-pass.md"
TWICE = "(float[1,3] x) => (float[1,3] y) { a = Relu (x)  b = Relu (a)  y = Sigmoid (b) }"


@pytest.mark.parametrize(
    "file", ["onnxopt_example_plugin/merge_relus.py", "tests/test_merge_relus.py", "pyproject.toml"]
)
def test_the_tutorial_shows_the_plugin_s_own_code(file):
    assert (PLUGIN / file).read_text().strip() in TUTORIAL.read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment in which the plug-in is installed."""
    pytest.importorskip("hatchling")
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, PLUGIN], check=True)
    return os.environ | {"PYTHONPATH": str(site)}


def run(program: str, environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def onnxopt(environment: dict[str, str], *arguments: object) -> str:
    done = run("from onnxopt.cli.main import main; main()", environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_listed(installed):
    line = next(line for line in onnxopt(installed, "passes", "list").splitlines() if line.startswith("merge-relus"))
    assert line.split(maxsplit=2) == ["merge-relus", "exact", "Remove a Relu that reads the output of a Relu."]


@pytest.mark.slow
def test_it_is_documented(installed):
    text = onnxopt(installed, "passes", "show", "merge-relus")
    assert "from:    onnxopt-example-plugin" in text
    assert "When to use it: on exports that activate twice" in text
    assert "whole number, at least 0" in text


@pytest.mark.slow
def test_it_runs_from_the_command_line(installed, tmp_path):
    save(parse_graph(TWICE), tmp_path / "model.onnx")
    onnxopt(installed, "run", tmp_path / "model.onnx", "--passes", "merge-relus{most=3}", "--keep-anyway")
    assert [n.op for n in load(tmp_path / "model.opt.onnx").nodes] == ["Relu", "Sigmoid"]


@pytest.mark.slow
def test_it_runs_from_python(installed, tmp_path):
    save(parse_graph(TWICE), tmp_path / "model.onnx")
    program = (
        "import sys\n"
        "from onnxopt import optimize\n"
        "result = optimize(sys.argv[1], passes='merge-relus', keep_anyway=True, verify='full')\n"
        "print([n.op for n in result.graph.nodes])"
    )
    assert run(program, installed, tmp_path / "model.onnx").stdout == "['Relu', 'Sigmoid']\n"


@pytest.mark.slow
def test_its_options_are_checked(installed, tmp_path):
    save(parse_graph(TWICE), tmp_path / "model.onnx")
    program = "from onnxopt.cli.main import main; main()"
    done = run(program, installed, "run", tmp_path / "model.onnx", "--passes", "merge-relus{most=-1}")
    assert done.returncode == 2
    assert "merge-relus: most=-1 is below 0" in done.stderr


@pytest.mark.slow
def test_its_own_tests_pass(installed):
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", PLUGIN / "tests"]
    done = subprocess.run(command, env=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
