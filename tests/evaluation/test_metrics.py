"""Built-in and user-written metrics."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo, Sample
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation import Metric, load_metric, score
from onnxopt.evaluation.metrics import COCO_IDS, MeanAveragePrecision, category_ids


def classified(*labels):
    """Samples whose feed is their number."""
    return [Sample({"x": np.array([float(i)])}, label) for i, label in enumerate(labels)]


def one_hot(feeds):
    """A classifier of three classes that says 0, 1, 2, 0, …"""
    return {"probabilities": np.eye(3)[[int(feeds["x"][0]) % 3]]}


class TestTop1:
    def test_share_of_hits(self):
        result = score(load_metric("top1"), one_hot, classified(0, 1, 0, np.int64(0)))
        assert (result.value, result.count, result.per_sample) == (0.75, 4, [1, 1, 0, 1])

    def test_finds_the_scores_among_outputs(self):
        outputs = {
            "features": np.ones((1, 5, 2, 2)),
            "flag": np.ones((1, 1)),
            "scores": np.eye(3)[[1]][:, :, None, None],
        }
        assert score(load_metric("top1"), lambda _: outputs, classified(1)).value == 1

    @pytest.mark.parametrize(
        ("label", "output", "message"),
        [
            (None, np.ones((1, 3)), "needs a class number with each sample"),
            (3, np.ones((1, 3)), "labelled 3, but the model has 3 classes"),
            (0, np.ones((1, 3, 8, 8)), r"needs an output of shape \[N, classes\]; the model has {'y': \[1, 3, 8, 8\]}"),
        ],
    )
    def test_refusals(self, label, output, message):
        with pytest.raises(UsageError, match=message):
            score(load_metric("top1"), lambda _: {"y": output}, classified(label))


def first_feed(outputs, sample):
    return sample.feeds["x"][0] * 2


class Total:
    lower_is_better = True

    def __init__(self):
        self.values = []

    def update(self, outputs, sample):
        self.values.append(float(sample.feeds["x"][0]))

    def compute(self):
        return sum(self.values)


def make_total():
    return Total()


class Locked(Total):
    def __deepcopy__(self, memo):
        raise TypeError("held by another thread")


def nothing(feeds):
    return {}


class TestUserMetrics:
    def test_a_function_is_averaged(self):
        result = score(load_metric(first_feed), nothing, classified(0, 0, 0))
        assert (result.value, result.per_sample) == (2, [0, 2, 4])

    @pytest.mark.parametrize("spec", [Total, Total(), make_total])
    def test_objects_start_anew_for_each_scoring(self, spec):
        metric = load_metric(spec)
        assert metric.lower_is_better
        for _ in range(2):
            result = score(metric, nothing, classified(0, 0, 0))
            assert (result.value, result.count, result.per_sample) == (3, 3, None)

    def test_an_attribute_says_that_lower_is_better(self):
        def error(outputs, sample):
            return 0.5

        assert not load_metric(error).lower_is_better
        error.lower_is_better = True
        assert load_metric(error).lower_is_better

    def test_a_metric_passes_through(self):
        metric = Metric("mine", Total)
        assert load_metric(metric) is metric

    def test_by_name_of_module_and_function(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        Path("metric_of_a_test.py").write_text("def half(outputs, sample):\n    return 0.5\n")
        metric = load_metric("metric_of_a_test:half")
        assert metric.name == "metric_of_a_test:half"
        assert score(metric, nothing, classified(0)).value == 0.5
        with pytest.raises(UsageError, match="did you mean 'half'"):
            load_metric("metric_of_a_test:hal")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("topp1", "metric 'topp1' is not known; did you mean 'top1'"),
            (5, "metric int is neither a function nor"),
            (abs, "should take two arguments"),
            (type("Empty", (), {}), "makes a Empty that lacks update or compute"),
            (lambda: 1 / 0, "cannot be made: ZeroDivisionError"),
            (Locked(), "metric Locked cannot be copied"),
        ],
    )
    def test_what_is_no_metric(self, spec, message):
        with pytest.raises(UsageError, match=message):
            load_metric(spec)


def lacking(outputs, sample):
    return outputs["none"]


def nan_at_one(outputs, sample):
    return math.nan if sample.feeds["x"][0] == 1 else 1.0


class TestScore:
    def test_failures_name_the_sample(self):
        image = ImageInfo(Path("some/picture.jpg"), 1, 1, (1, 1), (0, 0))
        pictures = [Sample({"x": np.zeros(1)}, image=image)]
        with pytest.raises(OptimizationError, match=r"failed for some/picture.jpg: KeyError"):
            score(load_metric(lacking), nothing, pictures)
        with pytest.raises(OptimizationError, match=r"failed for sample 1: .*the metric is nan"):
            score(load_metric(nan_at_one), nothing, classified(0, 0))
        with pytest.raises(OptimizationError, match="output 'y' has NaN for sample 0"):
            score(load_metric("top1"), lambda _: {"y": np.array([[1, np.nan]])}, classified(0))

    def test_a_score_that_is_no_number(self):
        class Broken(Total):
            def compute(self):
                return math.inf

        class Raising(Total):
            def compute(self):
                raise KeyError("gone")

        with pytest.raises(OptimizationError, match="metric Broken is inf over 1 samples"):
            score(load_metric(Broken), nothing, classified(0))
        with pytest.raises(OptimizationError, match="metric Raising failed over 1 samples"):
            score(load_metric(Raising), nothing, classified(0))

    def test_no_samples(self):
        with pytest.raises(UsageError, match="no samples"):
            score(load_metric("top1"), one_hot, [])


SET = Categories((3, 7), ("early", "late"))
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def picture(number, classes, xyxy, crowd=None):
    """A picture of 128 x 128, which the model sees at 64 x 64."""
    boxes = Boxes.from_corners(number, np.array(classes), np.array(xyxy, np.float64), SET)
    if crowd is not None:
        boxes = Boxes(number, boxes.classes, boxes.xyxy, boxes.area, np.array(crowd), SET)
    image = ImageInfo(Path(f"{number}.png"), 128, 128, (0.5, 0.5), (0.0, 0.0))
    return Sample({"x": np.full((1, 3, 64, 64), number, np.float32)}, boxes, image)


def detector(answers):
    """A model that answers picture i with answers[i]: rows of class, score, corners in the original."""

    def run(feeds):
        head = np.zeros((1, 6, CELLS))
        for cell, (number, confidence, x1, y1, x2, y2) in enumerate(answers[int(feeds["x"].flat[0])]):
            head[0, :4, cell] = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / 2
            head[0, 4 + number, cell] = confidence
        return {"head": head}

    return run


A, B = (10, 10, 50, 50), (60, 60, 120, 100)


class TestMeanAveragePrecision:
    @pytest.fixture(autouse=True)
    def needs_pycocotools(self):
        pytest.importorskip("pycocotools")

    def value(self, pictures, answers):
        return score(load_metric("coco-map"), detector(answers), pictures).value

    def test_perfect_and_nothing(self):
        pictures = [picture(0, [0, 1], [A, B]), picture(1, [], np.zeros((0, 4)))]
        assert self.value(pictures, [[(0, 0.9, *A), (1, 0.8, *B)], []]) == pytest.approx(1)
        assert self.value(pictures, [[], []]) == 0

    def test_thresholds_classes_and_false_alarms(self):
        pictures = [picture(0, [0], [A])]
        # An overlap of 0.8 passes the seven thresholds up to 0.80.
        assert self.value(pictures, [[(0, 0.9, 10, 10, 50, 42.01)]]) == pytest.approx(0.7)
        assert self.value(pictures, [[(1, 0.9, *A)]]) == 0
        assert self.value(pictures, [[(0, 0.95, *B), (0, 0.9, *A)]]) == pytest.approx(0.5)

    def test_crowds_are_neither_hits_nor_misses(self):
        pictures = [picture(0, [0, 0], [A, B], crowd=[False, True])]
        assert self.value(pictures, [[(0, 0.95, *B), (0, 0.9, *A)]]) == pytest.approx(1)

    def test_prints_nothing(self, capsys):
        self.value([picture(0, [0], [A])], [[(0, 0.9, *A)]])
        assert capsys.readouterr() == ("", "")

    def test_refusals(self):
        metric = load_metric("coco-map")
        with pytest.raises(UsageError, match="needs boxes"):
            score(metric, detector([[]]), [Sample({"x": np.zeros((1, 3, 64, 64))}, 3)])
        with pytest.raises(UsageError, match=r"cannot read boxes from {'y': \[1, 10\]}"):
            score(metric, lambda _: {"y": np.zeros((1, 10))}, [picture(0, [0], [A])])
        with pytest.raises(UsageError, match="none of the pictures has a labelled box"):
            score(metric, detector([[]]), [picture(0, [], np.zeros((0, 4)))])

    def test_without_pycocotools(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
        with pytest.raises(UsageError, match=r"pip install 'onnxopt\[eval\]'"):
            load_metric("coco-map")
        with pytest.raises(UsageError, match="pycocotools"):
            MeanAveragePrecision({})


class TestCategories:
    def test_in_order_where_there_are_equally_many(self):
        assert category_ids(SET, 2, None) == {0: 3, 1: 7}
        assert category_ids(SET, None, None) == {0: 3, 1: 7}
        assert category_ids(SET, 2, {0: "0", 1: "1"}) == {0: 3, 1: 7}

    def test_by_name_where_the_model_knows_all_names(self):
        assert category_ids(SET, 3, {0: "late", 1: "other", 2: "early"}) == {0: 7, 2: 3}

    def test_by_the_numbering_of_coco(self):
        assert len(COCO_IDS) == 80
        some = Categories((1, 90), ("person", "toothbrush"))
        mapped = category_ids(some, 80, None)
        assert (mapped[0], mapped[79]) == (1, 90)

    def test_otherwise_refused(self):
        with pytest.raises(UsageError, match="the model has 5 classes and the labels have 2 categories"):
            category_ids(SET, 5, None)
