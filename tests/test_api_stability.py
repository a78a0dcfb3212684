"""The policy for stability speaks of what there is."""

import re
import tomllib
from pathlib import Path

import onnxopt
from onnxopt import lock, recipe, testing

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api-stability.md").read_text()


def named(row: str) -> list[str]:
    """What a row of the table of public things names."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {row} |"))
    return re.findall(r"`([^`]+)`", line.split("|")[2])


def test_public_names_are_those_of_the_package():
    assert named("Python names of `onnxopt`") == sorted(set(onnxopt.__all__) - {"__version__"})
    assert named("Python names of `onnxopt.testing`") == sorted(testing.__all__)


def test_entry_point_groups_are_those_that_are_read():
    groups = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"])
    sources = "".join(file.read_text() for file in (ROOT / "onnxopt").rglob("*.py"))
    assert groups <= set(named("what packages add to"))
    assert all(f'"{group}"' in sources for group in named("what packages add to"))


def test_versions_of_files_are_those_that_are_written():
    assert f"version = {recipe.VERSION}" in named("text")
    assert f"version = {lock.VERSION}" in named("files")


def test_metadata_keys_are_those_that_are_written():
    sources = "".join(file.read_text() for file in (ROOT / "onnxopt" / "optimization").rglob("*.py"))
    written = set(re.findall(r'set_metadata\("([^"]+)"', sources))
    assert written == {name for name in named("files") if name.startswith("onnxopt.")}
