"""Budgets as they are written, and verdicts on real graphs."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Budget, Judge
from onnxopt.evaluation.metrics import load_metric
from onnxopt.testing import parse_graph

NET = "(float[1,4] x) => (float[1,3] y) <float[4,3] w = {1,0,0, 0,1,0, 0,0,1, 0,0,0}> { y = MatMul (x, w) }"
INPUTS = (InputSpec("x", (1, 4), np.dtype(np.float32)),)


def graph(blind=()):
    """A classifier: the largest of the first three inputs; to some of them it is blind."""
    net = parse_graph(NET)
    weight = net.own_constant(net.nodes[0], 1)
    values = weight.values.copy()
    values[list(blind)] = 0
    weight.values = values
    return net


def samples(labels=True):
    random = np.random.default_rng(0)
    rows = [random.random((1, 4), np.float32) for _ in range(60)]
    feeds = [({"x": r}, int(r[0, :3].argmax())) if labels else {"x": r} for r in rows]
    return open_dataset(feeds, INPUTS, role="evaluation")


@pytest.mark.parametrize(
    ("text", "amount", "relative"),
    [
        ("1%", 1, True),
        ("0.5 %", 0.5, True),
        ("100%", 100, True),
        ("1.0", 1, False),
        ("0", 0, False),
        (".5", 0.5, False),
    ],
)
def test_both_ways_to_write_it(text, amount, relative):
    budget = Budget.parse(text)
    assert (budget.amount, budget.relative) == (amount, relative)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["-1", "-1%", "abc", "", "1%%", "%", "nan", "inf", "1 point", "1e999", True])
def test_what_is_no_budget(text):
    with pytest.raises(UsageError, match=r"max drop '.*' (should be|is more)"):
        Budget.parse(text)


def test_more_than_there_is():
    with pytest.raises(UsageError, match="at most 100%"):
        Budget.parse("200%")


def test_shares_are_of_the_float_score_and_points_of_a_percent():
    assert Budget.parse("1%").allowed(-0.8, 0.01) == pytest.approx(0.008)
    assert Budget.parse("2").allowed(0.8, 0.01) == pytest.approx(0.02)
    assert Budget.parse("2").allowed(30.0, 1.0) == 2
    with pytest.raises(UsageError, match="give --max-drop in points"):
        Budget.parse("1%").allowed(0.0, 0.01)


def test_a_labelled_verdict():
    judge = Judge(Budget.parse("1%"), graph(), samples(), None, load_metric("top1"))
    assert judge.verdict(graph()).met
    verdict = judge.verdict(graph(blind=[0]))
    assert (verdict.metric, verdict.before, verdict.pictures) == ("top1", 1.0, 60)
    assert not verdict.met
    assert verdict.drop == judge.drop(graph(blind=[0])) > 0.2
    assert verdict.interval.low < verdict.drop < verdict.interval.high
    assert "top1 goes from 1.0000 to" in str(verdict)


def test_without_labels_agreement_judges_and_says_so():
    verdict = Judge(Budget.parse("10"), graph(), samples(labels=False)).verdict(graph(blind=[0]))
    assert verdict.metric == "agreement with the float model (top class)"
    assert (verdict.before, verdict.allowed) == (1.0, pytest.approx(0.1))
    assert verdict.after < 0.8
    assert verdict.interval.low < verdict.drop < verdict.interval.high


class Loss:
    lower_is_better = True

    def __init__(self):
        self.total = 0.0

    def update(self, outputs, sample):
        self.total += float(1 - outputs["y"].max())

    def compute(self):
        return self.total


def test_less_may_be_better_and_a_metric_of_a_set_has_no_interval():
    judge = Judge(Budget.parse("1"), graph(), samples(), None, load_metric(Loss))
    verdict = judge.verdict(graph(blind=[0]))
    assert verdict.after > verdict.before
    assert verdict.drop == pytest.approx(verdict.after - verdict.before)
    assert verdict.allowed == 1
    assert verdict.interval is None


def test_exactly_the_budget_is_kept_whatever_the_rounding():
    hits = iter([1.0] * 60 + [1.0] * 59 + [0.9])
    judge = Judge(Budget.parse("0.00166666666666"), graph(), samples(), None, load_metric(lambda o, s: next(hits)))
    assert judge.verdict(graph()).met


def test_few_pictures_are_warned_of():
    judge = Judge(Budget.parse("1%"), graph(), samples().take(5), None, load_metric("top1"))
    [said] = judge.verdict(graph()).warnings()
    assert "only 5 pictures judge the budget" in said


def test_more_points_than_the_score_has_are_refused():
    assert Budget.parse("100").allowed(0.9, 0.01) == pytest.approx(1.0)
    assert Budget.parse("500").allowed(0.9, 1.0) == 500  # of a metric of the user's own
    with pytest.raises(UsageError, match=r"max drop 500\.0 is more than there is to lose"):
        Budget.parse("500").allowed(0.9, 0.01)
