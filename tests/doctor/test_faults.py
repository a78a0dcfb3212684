"""Each fault, one at a time, on the repository's own models: named where it is there, and silence where none is."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxopt import load
from onnxopt.data import Dataset, open_dataset, parse_preprocess
from onnxopt.doctor import FAULTS, SHORT, THOROUGH, Diagnosis, examine, warnings
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.graph import Graph

TESTDATA = Path(__file__).parents[2] / "testdata"
DETECTOR, SHAPES = TESTDATA / "shapes_detector.onnx", TESTDATA / "shapes"
CLASSIFIER, PATCHES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches"
NORMALIZED = "mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225]"
QUICK = replace(THOROUGH, samples=32)
MACS = 30_000_000


class Patient:
    """A model with its data, prepared rightly or not."""

    def __init__(self, model: Path, data: Path, right: str) -> None:
        self.graph: Graph = load(model)
        self.inputs, _ = resolve_inputs(self.graph)
        self.data, self.right = data, right

    def pictures(self, preprocess: str | None = None, data: Path | None = None, role: str = "calibration") -> Dataset:
        return open_dataset(
            data or self.data,
            self.inputs,
            role=role,
            preprocess=preprocess or self.right,
            metadata=self.graph.metadata,
        )

    def arrays(self, change: Callable[[np.ndarray], np.ndarray], preprocess: str | None = None) -> Dataset:
        name = self.inputs[0].name
        items = [change(sample.feeds[name].copy()) for sample in self.pictures(preprocess)]
        return open_dataset(items, self.inputs, role="calibration")

    def examine(self, dataset: Dataset, **options: object) -> Diagnosis:
        return examine(self.graph, self.inputs, dataset, macs=MACS, depth=QUICK, **options)

    def faults(self, dataset: Dataset) -> list[str]:
        return [finding.fault for finding in self.examine(dataset).findings]


@pytest.fixture(scope="module")
def detector() -> Patient:
    return Patient(DETECTOR, SHAPES / "data.yaml", "yolo")


@pytest.fixture(scope="module")
def classifier() -> Patient:
    return Patient(CLASSIFIER, PATCHES / "train.csv", f"resize=stretch,{NORMALIZED}")


def relabelled(folder: Path, change: Callable[[int, np.ndarray], tuple[int, np.ndarray]]) -> Path:
    """A copy of the detector's set, its labels written otherwise."""
    shutil.copytree(SHAPES, folder)
    for file in folder.glob("labels/train/*.txt"):
        rows = [line.split() for line in file.read_text().splitlines()]
        changed = [change(int(row[0]), np.asarray(row[1:], np.float64)) for row in rows]
        file.write_text("".join(f"{number} {' '.join(map(str, box))}\n" for number, box in changed))
    return folder / "data.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("role", ["calibration", "evaluation"])
def test_right_ones_are_left_alone(detector, role):
    assert detector.faults(detector.pictures(role=role)) == []
    assert detector.faults(detector.arrays(lambda x: x)) == []


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_right_pictures_of_a_classifier_are_left_alone(classifier, split):
    assert classifier.faults(classifier.pictures(data=PATCHES / f"{split}.csv")) == []
    assert classifier.faults(classifier.pictures("imagenet", data=PATCHES / f"{split}.csv")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("yolo,scale=1", "value-range"),
        ("yolo,scale=1/65025", "value-range"),
        (f"yolo,{NORMALIZED}", "normalization"),
        ("yolo,mean=[0.5],std=[0.5]", "normalization"),
        ("yolo,color=bgr", "channel-order"),
        ("yolo,resize=crop,crop=0.5", "crop"),
    ],
)
def test_pictures_prepared_wrongly_for_a_detector(detector, given, fault):
    [finding] = detector.examine(detector.pictures(given)).findings
    assert (finding.fault, finding.preprocess) == (fault, "yolo")
    assert finding.sure >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "fault", "right"),
    [
        (f"scale=1,{NORMALIZED}", "value-range", f"resize=stretch,{NORMALIZED}"),
        ("scale=1", "value-range", f"resize=stretch,{NORMALIZED}"),
        ("resize=stretch", "normalization", f"resize=stretch,{NORMALIZED}"),
        ("mean=[0.5],std=[0.5]", "normalization", f"resize=stretch,{NORMALIZED}"),
    ],
)
def test_pictures_prepared_wrongly_for_a_classifier(classifier, given, fault, right):
    [finding] = classifier.examine(classifier.pictures(given)).findings
    assert finding.fault == fault
    assert parse_preprocess(finding.preprocess) == parse_preprocess(right)
    assert finding.sure >= 0.95


def dead(array: np.ndarray) -> np.ndarray:
    array[:, 1] = 0
    return array


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda x: x * np.float32(255), "value-range"),
        (lambda x: x / np.float32(255), "value-range"),
        (lambda x: (x - np.float32(0.45)) / np.float32(0.225), "normalization"),
        (dead, "dead-channel"),
        (lambda x: x * 0, "constant-input"),
        (lambda x: np.linspace(0, 1, x.size, dtype=np.float32).reshape(x.shape), "duplicates"),
    ],
)
def test_arrays_prepared_wrongly(detector, change, fault):
    assert fault in detector.faults(detector.arrays(change))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c, b: ((c + 1) % 8, b), "classes-shifted"),
        (lambda c, b: ((5, 2, 7, 0, 6, 1, 4, 3)[c], b), "classes-differ"),
        (lambda c, b: (c, b / 96), "box-format"),
        (lambda c, b: (c, np.concatenate([b[:2] - b[2:] / 2, b[:2] + b[2:] / 2])), "box-format"),
        (lambda c, b: (c, np.concatenate([b[:2] - b[2:] / 2, b[2:]])), "box-format"),
    ],
)
def test_labels_that_do_not_fit(detector, tmp_path, change, fault):
    data = relabelled(tmp_path / "set", change)
    assert detector.faults(detector.pictures(data=data)) == [fault]


@pytest.mark.slow
def test_without_a_preparation_one_is_found(classifier):
    diagnosis = classifier.examine(classifier.pictures("scale=1"), assumed=True)
    [finding] = diagnosis.findings
    assert finding.fault == "preprocess-missing"
    assert parse_preprocess(finding.preprocess) == parse_preprocess(classifier.right)


def test_the_short_form_warns_and_never_raises(detector):
    macs = MACS
    right = warnings(detector.graph, detector.inputs, detector.pictures(), macs)
    assert right == []
    [warning] = warnings(detector.graph, detector.inputs, detector.pictures("yolo,scale=1"), macs)
    assert "fed 0..255, and expects 0..1" in warning
    assert "--preprocess 'yolo'" in warning
    # A model too large for a few seconds is not run, and what shows without it still does.
    assert warnings(detector.graph, detector.inputs, detector.pictures("yolo,scale=1"), 10**13) == []
    [few] = warnings(detector.graph, detector.inputs, detector.pictures().take(3), 10**13)
    assert "3 samples" in few


def test_depth_follows_the_work():
    assert SHORT.count(10**8) == SHORT.samples
    assert SHORT.count(10**13) == 0
    assert THOROUGH.count(10**13) == THOROUGH.fewest


def test_faults_are_listed():
    assert {"value-range", "channel-order", "box-format", "few-samples"} <= set(FAULTS)
