"""The rules of the house that a machine can hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [f for folder in ("onnxopt", "passes", "tests", "docs", "testdata") for f in (ROOT / folder).rglob("*.py")]
MOST_LINES = 500
HEAVY = ("numba", "onnxruntime", "openvino", "onnxopt_passes", "onnx", "numpy", "onnx_graphsurgeon")


def test_no_file_is_too_long():
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_no_junk_drawers():
    assert [f for f in SOURCES if f.stem in {"utils", "util", "helpers", "helper", "common", "misc"}] == []


def test_passes_are_leaves():
    """No pass imports another."""
    assert [f for f in (ROOT / "passes").rglob("*.py") if "onnxopt_passes" in f.read_text()] == []


def imported(program: str) -> set[str]:
    """Which heavy packages a program imports."""
    text = f"{program}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split())


def test_import_costs_nothing():
    assert imported("import onnxopt") == set()
    program = "import sys; before = set(sys.modules); import onnxopt; print('typing' in set(sys.modules) - before)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def test_the_public_names_are_there():
    import onnxopt

    for name in onnxopt.__all__:
        assert getattr(onnxopt, name) is not None
    assert set(dir(onnxopt)) == set(onnxopt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onnxopt.nothing


def test_a_pass_can_be_written_without_a_runtime():
    """Neither compiled kernels, nor a runtime, nor the built-in passes are needed to import the pass API."""
    assert not imported("from onnxopt import Pass, Context, Graph, option") & {"numba", "openvino", "onnxopt_passes"}


def test_nothing_reaches_for_the_environment():
    """Results depend on arguments alone."""
    readers = [f for f in SOURCES if f.is_relative_to(ROOT / "onnxopt") or f.is_relative_to(ROOT / "passes")]
    assert [f for f in readers if "os.environ" in f.read_text() or "getenv" in f.read_text()] == []


@pytest.mark.slow
def test_import_contracts():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_generated_docs_are_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
