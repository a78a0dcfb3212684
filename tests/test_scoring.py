"""What `evaluate` says of models, and what it refuses."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxopt import UsageError, optimize
from onnxopt.errors import GateMissed, OptimizationError
from onnxopt.scoring import evaluate
from onnxopt.testing import parse_graph

REPOSITORY = Path(__file__).parents[1]
TESTDATA = REPOSITORY / "testdata"
CLASSIFIER, PATCHES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches" / "val.csv"
DETECTOR, SHAPES = TESTDATA / "shapes_detector.onnx", TESTDATA / "shapes" / "data.yaml"
ZOO = REPOSITORY.parent / "shared" / "zoo"


def classify(model=CLASSIFIER, data=PATCHES, **options):
    return evaluate(model, data, preprocess="imagenet", samples=options.pop("samples", 20), **options)


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """The classifier in int8, on disk."""
    file = tmp_path_factory.mktemp("int8") / "int8.onnx"
    data = TESTDATA / "patches" / "train.csv"
    optimize(CLASSIFIER, "quantize", data=data, preprocess="imagenet", samples=16, keep_anyway=True).save(file)
    return file


class TestScores:
    def test_a_classifier(self):
        report = classify().report
        assert (report.metric, report.task, report.lower_is_better) == ("top1", "classify", False)
        assert report.data["samples"] == 20
        assert 0.8 < report.interval.low <= report.score <= report.interval.high <= 1
        assert report.speed.per_second > 1
        assert classify(metric="top5").report.score >= report.score

    def test_a_detector_with_its_classes(self):
        report = evaluate(DETECTOR, SHAPES, samples=12).report
        assert report.metric == "coco-map"
        assert report.score == pytest.approx(np.mean(list(report.details["per_class"].values())))
        assert report.score < report.details["map50"] <= 1
        assert report.to_dict()["details"]["per_class"].keys() <= {"circle", "ring", "square", "triangle", "hexagon",
                                                                   "star", "cross", "crescent"}  # fmt: skip

    @pytest.mark.parametrize("batch", [3, 20, 64])
    def test_batches_change_nothing(self, batch):
        single, together = classify(predictions=True), classify(batch=batch, predictions=True)
        assert together.report.speed.batch == batch
        assert any(f"is run at {batch}x3x64x64: the batch is {batch}" in note for note in together.report.warnings)
        assert [row["top5"] for row in together.predictions.rows] == [row["top5"] for row in single.predictions.rows]

    def test_openvino(self):
        pytest.importorskip("openvino")
        report = classify(target="openvino").report
        assert report.target["runtime"].startswith("openvino")
        assert report.score == classify().report.score

    def test_a_target_that_is_not_here(self):
        report = classify(target="tensorrt", samples=4).report
        assert any("target tensorrt cannot run here: ONNX Runtime runs the graph" in w for w in report.warnings)

    def test_a_target_whose_package_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not there: importing it fails
        report = classify(target="openvino", samples=4).report
        assert any(w.endswith("as it is written; pip install 'onnxopt[openvino]'") for w in report.warnings)

    def test_a_batch_that_the_user_fixes(self):
        report = classify(input_shapes={"input": (4, 3, 64, 64)}, samples=6).report
        assert (report.speed.batch, report.data["samples"]) == (4, 6)
        assert report.score == classify(samples=6).report.score

    def test_progress(self):
        seen = []
        classify(samples=3, progress=lambda done, count: seen.append((done, count)))
        assert seen == [(1, 3), (2, 3), (3, 3)]


class TestAgainstAReference:
    def test_with_labels(self, int8):
        found = classify(int8, reference=CLASSIFIER).report
        assert found.compared.score == classify().report.score
        assert found.compared.drop == pytest.approx(found.compared.score - found.score)
        assert found.compared.drop_interval.low <= found.compared.drop <= found.compared.drop_interval.high
        assert 10 < found.compared.worst_sqnr_db < 60
        assert found.compared.top1 >= 0.9

    def test_without_labels_agreement_is_told(self, int8, tmp_path):
        for file in sorted((TESTDATA / "patches" / "val").iterdir())[:4]:
            shutil.copy(file, tmp_path)
        report = classify(int8, tmp_path, reference=CLASSIFIER).report
        assert (report.metric, report.score, report.compared.score) == (None, None, None)
        assert report.compared.share == report.compared.top1 > 0.7
        assert report.compared.worst_part == "logits"

    def test_a_detector_agrees_with_itself(self):
        report = evaluate(DETECTOR, SHAPES, samples=4, reference=DETECTOR).report
        assert report.compared.detections == 1
        assert set(report.compared.parts) == {"output0 (boxes)", "output0 (scores)"}
        assert report.compared.drop == 0

    def test_models_that_do_not_belong_together(self):
        with pytest.raises(UsageError, match=r"the reference cannot be compared: .*no input 'input'"):
            classify(reference=DETECTOR)

    def test_agreement_alone_where_it_is_asked_for(self):
        report = classify(reference=CLASSIFIER, metric="agreement").report
        assert (report.metric, report.compared.top1) == (None, 1.0)
        assert not any("labels do not suit" in warning for warning in report.warnings)
        with pytest.raises(UsageError, match="metric agreement is with the float model; give it with --reference"):
            classify(metric="agreement")


class TestGates:
    def test_kept_and_missed(self, int8):
        text = "score>=0.5,top1>=-20pt,size<=-20%,agreement>=50%,sqnr>=5dB"
        gates = classify(int8, reference=CLASSIFIER, require=text).report.gates
        assert [gate["kept"] for gate in gates] == [True] * 5
        with pytest.raises(GateMissed, match=r"refused: size<=1kB is missed"):
            classify(int8, require="size<=1kB")

    def test_latency_is_measured_where_it_is_asked_for(self, int8):
        speed = classify(int8, samples=4, reference=CLASSIFIER, require="latency<=10s,speedup>=0.001").report.speed
        assert speed.latency_ms > 0
        assert speed.reference_ms > 0
        assert classify(samples=4).report.speed.latency_ms is None

    @pytest.mark.parametrize(
        ("require", "options", "message"),
        [
            ("top1>=-1pt", {}, "top1>=-1pt is read against the float model; give it with --reference"),
            ("sqnr>=10", {}, "give it with --reference"),
            ("map>=0.5", {"metric": "top1"}, "judges coco-map, but the metric in use is top1"),
            ("latency<=1ms", {"target": "tensorrt"}, "cannot be judged: the target cannot run here"),
            ("top1", {}, "needs >= or <="),
        ],
    )
    def test_refused_before_the_work(self, require, options, message):
        with pytest.raises(UsageError, match=message):
            classify(require=require, progress=lambda *_: pytest.fail("it ran"), **options)


def nan(outputs, sample):
    return float("nan")


def broken(outputs, sample):
    raise KeyError("my key")


class TestBadInput:
    def test_nothing_to_score_by(self, tmp_path):
        shutil.copy(next((TESTDATA / "patches" / "val").iterdir()), tmp_path / "a.jpg")
        with pytest.raises(UsageError, match=r"have no labels, so there is nothing to score by; .*--reference"):
            classify(data=tmp_path)

    def test_a_decoder_that_does_not_fit(self):
        with pytest.raises(UsageError, match=r"decoder 'yolox' does not fit logits \[1, 10\]; it reads YOLOX"):
            classify(decode="yolox")
        with pytest.raises(UsageError, match="unknown decoder 'yolo9'"):
            classify(decode="yolo9")

    def test_labels_that_do_not_suit_the_model(self):
        with pytest.raises(UsageError, match=r"have labels such as 0, and what the model gives does not look like"):
            evaluate(DETECTOR, PATCHES, preprocess="yolo")
        with pytest.raises(UsageError, match=r"have objects, and what the model gives does not .* \(logits"):
            classify(data=SHAPES)

    @pytest.mark.parametrize(
        ("metric", "message"), [(nan, "the metric is nan"), (broken, r"failed for .*0000\.jpg: KeyError\('my key'\)")]
    )
    def test_a_metric_that_fails(self, metric, message):
        with pytest.raises(OptimizationError, match=message):
            classify(metric=metric)

    def test_a_class_that_the_model_does_not_have(self, tmp_path):
        shutil.copy(next((TESTDATA / "patches" / "val").iterdir()), tmp_path / "a.jpg")
        (tmp_path / "a.csv").write_text("file,label\na.jpg,10\n")
        with pytest.raises(UsageError, match=r"a\.csv, line 2: a sample is labelled 10, but the model has 10 classes"):
            classify(data=tmp_path / "a.csv")

    def test_a_score_of_nothing_is_explained(self, tmp_path):
        shutil.copy(next((TESTDATA / "patches" / "val").iterdir()), tmp_path / "a.jpg")
        said = classify(data=tmp_path, predictions=True, reference=CLASSIFIER).predictions.rows[0]["predicted"]
        (tmp_path / "a.csv").write_text(f"file,label\na.jpg,{(said + 1) % 10}\n")
        report = classify(data=tmp_path / "a.csv").report
        assert report.score == 0
        assert any("top1 is 0: nothing that the model says fits the labels" in said for said in report.warnings)
        assert not any("top1 is 0" in said for said in classify().report.warnings)

    def test_an_empty_data_set(self, tmp_path):
        for name, message in (("", "there are no pictures"), ("a.csv", "names no pictures")):
            (tmp_path / "a.csv").write_text("file,label\n")
            with pytest.raises(UsageError, match=message):
                classify(data=tmp_path / name)

    def test_a_provider_that_is_not_here(self):
        with pytest.raises(UsageError, match="ONNX Runtime has no execution provider 'cudda'"):
            classify(provider="cudda")
        with pytest.raises(UsageError, match="target 'tensorrt' does not run"):
            classify(provider="cpu", target="tensorrt")
        assert classify(provider="cpu", samples=2).report.target["runtime"].startswith("onnxruntime")

    def test_a_batch_that_does_not_fit(self):
        with pytest.raises(UsageError, match="input 'images' has a batch of 1, so 4 samples"):
            evaluate(DETECTOR, SHAPES, batch=4)

    def test_outputs_that_are_not_finite(self):
        graph = parse_graph("(float[1,3,8,8] x) => (float[1,192] y) { a = Flatten (x) b = Sub (a, a) y = Div (b, b) }")
        items = [({"x": np.ones((3, 8, 8), np.float32)}, 1)]
        with pytest.raises(OptimizationError, match="output 'y' has NaN for sample 0"):
            evaluate(graph, items)


def benchmark():
    """The module `benchmarks/evaluation.py`, which scores without onnxopt."""
    for name in ("sklearn", "jiwer", "pycocotools"):
        pytest.importorskip(name)
    folder = REPOSITORY / "benchmarks"
    spec = importlib.util.spec_from_file_location("scored_twice", folder / "evaluation.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scored_twice"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["patches_classifier", "shapes_detector"])
def test_scores_equal_those_found_without_onnxopt(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    module = benchmark()
    parser = module.workbench.command_line("")
    (subject,) = module.workbench.find_subjects(parser.parse_args([]), [name])
    found = list(module.score_pictures(subject, tmp_path))
    assert found
    assert all(each.held and 0.5 < each.theirs <= 1 for each in found), found


@pytest.mark.slow
def test_ultralytics_own_validation_comes_near(request, tmp_path, monkeypatch):
    python = request.config.getoption("--ultralytics")
    if python is None:
        pytest.skip("needs --ultralytics PYTHON, an environment with Ultralytics")
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "")
    module = benchmark()
    parser = module.workbench.command_line("")
    (subject,) = module.workbench.find_subjects(parser.parse_args([]), ["shapes_detector"])
    found = module.score_by_ultralytics(subject, python, tmp_path)
    assert found.held, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("yolo11n-seg", "segment"),
        ("yolov8n-pose", "pose"),
        ("yolo11n-obb", "obb"),
        ("yolo26n_end2end", "detect"),
        ("yolo11n_dynamic", "detect"),
    ],
)
def test_yolos_of_every_task_are_decoded_without_being_told(name, task, tmp_path):
    """True graphs with made-up weights, from the folder `shared/zoo` beside the repository."""
    if not (ZOO / "fill.py").is_file():
        pytest.skip(f"{ZOO} is not there")
    subprocess.run([sys.executable, ZOO / "fill.py", tmp_path, name], check=True, capture_output=True)
    (model,) = tmp_path.glob("*.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    found = evaluate(model, tmp_path, preprocess="yolo", reference=model, predictions=True)
    assert found.report.task == task
    assert found.report.compared.detections > 0.5  # boxes without extent do not overlap themselves
    named = {"segment": "segmentation", "pose": "keypoints", "obb": "poly", "detect": "bbox"}[task]
    assert found.predictions.rows
    assert all(named in row for row in found.predictions.rows)
