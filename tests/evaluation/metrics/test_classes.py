"""The share of right classes."""

import numpy as np
import pytest

from onnxopt.data import Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation import load_metric, score


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


def test_top5():
    scores = np.array([[9, 1, 8, 2, 7, 3, 6.0, 4]])
    values = [score(load_metric("top5"), lambda _: {"y": scores}, classified(label)).value for label in range(8)]
    assert values == [1, 0, 1, 0, 1, 0, 1, 1]
