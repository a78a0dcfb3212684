"""Which runtimes are here."""

from dataclasses import replace

import pytest

from onnxopt.registry import load_target
from onnxopt.runtime.adapter import load_runtime


@pytest.mark.parametrize("cause", ["None", "ValueError()"])
def test_a_runtime_that_cannot_be_imported_is_not_here(cause, tmp_path, monkeypatch):
    assert load_runtime(_broken(cause, tmp_path, monkeypatch)) is None


def test_an_import_that_ctrl_c_broke_is_no_missing_runtime(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        load_runtime(_broken("KeyboardInterrupt()", tmp_path, monkeypatch))


def _broken(cause, folder, monkeypatch):
    """A target whose runtime fails as a module in C++ does that is interrupted while it is imported."""
    (folder / "broken_runtime.py").write_text(f"raise ImportError('initialization failed') from {cause}\n")
    monkeypatch.syspath_prepend(folder)
    return replace(load_target("ort"), adapter="broken_runtime:Runtime")
