"""The benchmarks start: each file imports, explains itself, and finds the models that every checkout has."""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SHARED = {"workbench", "peers", "sweeps"}
FILES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)


@pytest.fixture
def folder_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As when a file is run as a script; other tests see none of its modules."""
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in [*SHARED, *FILES]:
        sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("folder_on_path")
@pytest.mark.parametrize("name", FILES)
def test_each_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(name)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 0
    assert module.__doc__
    said = " ".join(capsys.readouterr().out.split())  # the parser may wrap lines
    assert module.__doc__.splitlines()[0] in said


def test_the_list_names_every_file() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in [*FILES, *SHARED] if f"`{name}.py`" not in text] == []


@pytest.mark.usefixtures("folder_on_path")
def test_the_models_of_testdata_are_found_with_their_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workbench = load("workbench")
    nowhere = argparse.Namespace(shared=tmp_path, ocr=None, only=None)
    subjects = workbench.find_subjects(nowhere, workbench.SUBJECTS)
    assert [subject.name for subject in subjects] == ["patches_classifier", "shapes_detector"]
    for subject in subjects:
        assert len(subject.samples(8)) == 8
        assert next(iter(subject.samples(1, "evaluation"))).label is not None
    said = capsys.readouterr().err
    assert "yolox_nano" in said  # what is missing is named, with the argument that tells where it is
    assert "--shared" in said
    assert "--ocr" in said


@pytest.mark.usefixtures("folder_on_path")
def test_a_ratio_to_the_first_candidate_is_inverted_with_its_spread() -> None:
    latency_ort = load("latency_ort")
    from onnxopt.runtime.latency import Latency, Spread

    slow = Latency("float", Spread(20.0, 1.0), speedup=Spread(0.5, 0.05))
    assert latency_ort.ratio(slow) == {"ratio": 2.0, "ratio_spread": 0.2}


@pytest.mark.usefixtures("folder_on_path")
def test_peers_without_an_environment_are_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    peers = load("peers")
    assert peers.foreign_makers(classifier(), None, 2, peers.FOREIGN) == []
    said = capsys.readouterr().err
    assert all(name in said for name in peers.FOREIGN)
    assert "--peers-python" in said


@pytest.mark.usefixtures("folder_on_path")
def test_a_peer_that_is_not_installed_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = load("peers")
    monkeypatch.setitem(peers.FOREIGN, "somebody's", ("with_nobody", ".onnx"))
    makers = peers.foreign_makers(classifier(), Path(sys.executable), 2, ["somebody's"])
    assert peers.make_all(classifier(), makers, tmp_path) == {}
    assert (
        "somebody's failed: RuntimeError: ModuleNotFoundError: No module named 'with_nobody'" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("folder_on_path")
def test_a_peer_gets_the_model_and_the_stacked_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = """
def quantize(model, arrays, output):
    output.write_text(f"{model.name} {[(name, array.shape) for name, array in arrays.items()]}")
"""
    (tmp_path / "with_somebody.py").write_text(tool, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peers = load("peers")
    monkeypatch.setitem(peers.FOREIGN, "somebody's", ("with_somebody", ".txt"))
    makers = peers.foreign_makers(classifier(), Path(sys.executable), 2, ["somebody's"])
    made = peers.make_all(classifier(), makers, tmp_path)
    expected = f"patches_classifier.onnx [('{classifier().inputs[0].name}', (2, 1, 3, 64, 64))]"
    assert made["somebody's"].read_text(encoding="utf-8") == expected


def classifier() -> Any:
    workbench = sys.modules["workbench"]
    nowhere = argparse.Namespace(shared=Path(), ocr=None, only=None)
    return workbench.find_subjects(nowhere, ["patches_classifier"])[0]


@pytest.mark.usefixtures("folder_on_path")
def test_candidates_that_lie_in_the_folder_are_taken_from_there(tmp_path: Path) -> None:
    peers = load("peers")
    made = tmp_path / "patches_classifier.0.onnx"
    made.touch()
    makers = [peers.Maker("kept", Path.unlink), peers.Maker("new", Path.touch, ".xml")]
    files = peers.make_all(classifier(), makers, tmp_path)
    assert files == {"kept": made, "new": tmp_path / "patches_classifier.1.xml"}
    assert all(file.is_file() for file in files.values())


@pytest.mark.usefixtures("folder_on_path")
def test_a_model_in_two_files_is_weighed_with_both(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"123")
    (tmp_path / "a.bin").write_bytes(b"1234")
    (tmp_path / "a.onnx").write_bytes(b"12")
    size = load("latency_openvino").size
    assert [size(tmp_path / name) for name in ("a.xml", "a.onnx")] == [7, 2]


@pytest.mark.usefixtures("folder_on_path")
def test_a_sweep_is_timed_from_the_side_of_its_data() -> None:
    """The sum of two portions over the mean of their plain runs, the first images left out."""
    timed = load("sweeps").Timed([{}] * 4, session=None)
    timed.sweeps = [[9.0, 9.0, 1.0, 2.0], [9.0, 9.0, 2.0, 4.0]]
    timed.plain = [[9.0, 9.0, 1.0, 1.0], [9.0, 9.0, 3.0, 1.0]]
    assert list(timed.ratios) == [1.5, 6.0]


@pytest.mark.usefixtures("folder_on_path")
def test_tables_align_and_numbers_are_flush_right() -> None:
    workbench = load("workbench")
    text = workbench.markdown(("model", "ms"), [("a", workbench.number(1.5)), ("bb", workbench.number(None))])
    assert text == "| model |   ms |\n| ----- | ---: |\n| a     | 1.50 |\n| bb    |    - |"


@pytest.mark.usefixtures("folder_on_path")
def test_figures_are_written_as_strict_json(tmp_path: Path) -> None:
    workbench = load("workbench")
    workbench.write_results(tmp_path / "results" / "a.json", "a", {}, [{"sqnr_db": float("inf"), "points": 1.0}])
    assert '"sqnr_db": null' in (tmp_path / "results" / "a.json").read_text(encoding="utf-8")
