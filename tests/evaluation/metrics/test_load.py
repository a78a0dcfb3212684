"""Metrics that users wrote, and what goes wrong with any."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import ImageInfo, Sample
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation import Metric, load_metric, score
from onnxopt.evaluation.metrics import METRICS


def classified(*labels):
    """Samples whose feed is their number."""
    return [Sample({"x": np.array([float(i)])}, label) for i, label in enumerate(labels)]


def one_hot(feeds):
    """A classifier of three classes that says 0, 1, 2, 0, …"""
    return {"probabilities": np.eye(3)[[int(feeds["x"][0]) % 3]]}


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


FOREIGN = """
from onnxopt.evaluation import Metric
from onnxopt.evaluation.metrics.metric import Average

def constant(reader):
    return Metric("constant", lambda: Average(lambda outputs, sample: len(reader.metadata)))

def wrong(reader):
    return 1
"""


def test_metrics_of_others(distribute):
    group = {"constant": "constant_metric:constant", "wrong": "constant_metric:wrong"}
    distribute("constant", {METRICS: group}, constant_metric=FOREIGN)
    assert score(load_metric("constant", metadata={"a": "b"}), nothing, classified(0)).value == 1
    with pytest.raises(OptimizationError, match=r"'wrong' in group onnxopt\.metrics makes no Metric"):
        load_metric("wrong")
