"""The page of the docs about reports: its pictures are there and small, its examples run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LARGEST = 300_000  # bytes of a picture


def test_pictures_are_there_and_small():
    text = (DOCS / "report.md").read_text()
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert names
    assert [name for name in names if (DOCS / name).stat().st_size > LARGEST] == []


def test_links_lead_somewhere():
    for page in ("report.md", "profile.md"):
        targets = re.findall(r"\]\(([\w./-]+\.md)\)", (DOCS / page).read_text())
        assert targets
        assert [target for target in targets if not (DOCS / target).is_file()] == []


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    (tmp_path / "testdata").symlink_to(ROOT / "testdata")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}  # the second example goes on from the first
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "report.md").read_text(), re.DOTALL):
        exec(block, names)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert "It was made smaller." in (tmp_path / "mine.html").read_text()
