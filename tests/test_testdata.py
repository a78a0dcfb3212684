"""The models and pictures of ``testdata/`` are what its README says: trained, whole, and redrawn from their seeds."""

import ast
import csv
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

TESTDATA = Path(__file__).parent.parent / "testdata"
sys.path.insert(0, str(TESTDATA))

import make_shapes  # noqa: E402
import score  # noqa: E402

MODELS = ("patches_classifier.onnx", "shapes_detector.onnx")


@pytest.fixture(scope="module")
def classifier() -> ort.InferenceSession:
    return score.session(TESTDATA / "patches_classifier.onnx")


@pytest.fixture(scope="module")
def detector() -> ort.InferenceSession:
    return score.session(TESTDATA / "shapes_detector.onnx")


@pytest.mark.parametrize("name", MODELS)
def test_model_passes_the_checker(name: str) -> None:
    model = onnx.load(TESTDATA / name)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert (TESTDATA / name).stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("patches_classifier.onnx", {"BatchNormalization", "Clip", "ReduceMean", "Gemm", "Add"}),
        (
            "shapes_detector.onnx",
            {"BatchNormalization", "Sigmoid", "Split", "Concat", "MaxPool", "Resize", "Softmax", "Transpose"},
        ),
    ],
)
def test_model_has_what_the_optimizer_must_cope_with(name: str, wanted: set[str]) -> None:
    graph = onnx.load(TESTDATA / name).graph
    assert wanted <= {node.op_type for node in graph.node}
    depthwise = [a.i for node in graph.node for a in node.attribute if a.name == "group" and a.i > 1]
    assert depthwise


def test_classifier_output_depends_on_the_input(classifier: ort.InferenceSession) -> None:
    pictures = [score.classified(TESTDATA / f"patches/val/{index:04d}.jpg") for index in (0, 3)]
    first, second = (classifier.run(None, {"input": picture})[0] for picture in pictures)
    assert np.abs(first - second).max() > 0.5 * np.abs(first).max()


def test_detector_output_depends_on_the_input(detector: ort.InferenceSession) -> None:
    first, second = (detector.run(None, {"images": picture})[0] for picture, _ in score.scenes(2))
    for rows in (slice(0, 4), slice(4, None)):  # boxes and scores
        assert np.abs(first[:, rows] - second[:, rows]).max() > 0.3 * np.abs(first[:, rows]).max()


def test_classifier_takes_batches(classifier: ort.InferenceSession) -> None:
    pictures = [score.classified(TESTDATA / f"patches/val/{index:04d}.jpg") for index in range(3)]
    (together,) = classifier.run(None, {"input": np.concatenate(pictures)})
    alone = [classifier.run(None, {"input": picture})[0] for picture in pictures]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=0, atol=1e-4)


def test_classifier_knows_the_patches(classifier: ort.InferenceSession) -> None:
    assert score.top1(classifier, count=50) >= 0.86


def test_detector_has_the_form_and_metadata_of_an_ultralytics_export(detector: ort.InferenceSession) -> None:
    metadata = detector.get_modelmeta().custom_metadata_map
    assert ast.literal_eval(metadata["names"]) == dict(enumerate(make_shapes.SCENE_CLASSES))
    assert (metadata["imgsz"], metadata["stride"], metadata["task"]) == ("[96, 96]", "16", "detect")
    (output,) = detector.get_outputs()
    assert (output.name, output.shape) == ("output0", [1, 4 + len(make_shapes.SCENE_CLASSES), 12**2 + 6**2])


def test_detector_finds_the_objects(detector: ort.InferenceSession) -> None:
    found = total = false = 0
    for picture, objects in score.scenes(20):
        (output,) = detector.run(None, {"images": picture})
        seen = score.detections(output, least_score=0.3)
        matched = [
            any(kind == row[0] and score.overlap(box, row[None, 1:])[0] > 0.5 for kind, _, box in seen)
            for row in objects
        ]
        found += sum(matched)
        false += max(0, len(seen) - sum(matched))
        total += len(objects)
    assert total >= 40
    assert found >= 0.8 * total
    assert false <= 0.5 * total


def test_committed_pictures_are_the_recorded_drawings() -> None:
    lines = (TESTDATA / "digests.txt").read_text().splitlines()
    recorded = {path: digest for digest, path in (line.split() for line in lines)}
    assert set(recorded) == {str(path.relative_to(TESTDATA)) for path in TESTDATA.glob("**/*.jpg")}
    for index in range(3):
        for split in ("train", "val"):
            for path, pixels in (
                (f"shapes/images/{split}/{index:04d}.jpg", make_shapes.scene(split, index).pixels),
                (f"patches/{split}/{index:04d}.jpg", make_shapes.patch(split, index)[0]),
            ):
                assert make_shapes.digest(pixels) == recorded[path]
                committed = np.asarray(Image.open(TESTDATA / path), np.int16)
                recoded = np.asarray(Image.open(io.BytesIO(make_shapes.jpeg(pixels))), np.int16)
                assert np.abs(committed - recoded).mean() < 1  # JPEG coders may differ, the picture may not


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_those_of_the_drawings(split: str) -> None:
    with (TESTDATA / f"patches/{split}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == make_shapes.PATCHES[split]
    for index in range(3):
        path = TESTDATA / f"shapes/labels/{split}/{index:04d}.txt"
        assert path.read_text() == make_shapes.label_rows(make_shapes.scene(split, index))
        assert rows[index] == {"file": f"{index:04d}.jpg", "label": str(make_shapes.patch(split, index)[1])}


def test_splits_share_no_picture() -> None:
    digests = [line.split()[0] for line in (TESTDATA / "digests.txt").read_text().splitlines()]
    assert len(set(digests)) == len(digests) == sum(make_shapes.SCENES.values()) + sum(make_shapes.PATCHES.values())
