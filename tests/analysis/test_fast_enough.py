"""A latency budget is read, and the share of the MACs that keeps to it is found by measuring."""

import numpy as np
import pytest

from onnxopt.analysis.compensation import fast_enough
from onnxopt.analysis.compensation.fast_enough import HALVINGS, LatencyBudget, largest, most_that_may_stay
from onnxopt.errors import UsageError
from onnxopt.runtime.latency import Latency, Spread
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.testing import parse_graph


def graph_of(share):
    return parse_graph(f"(float[1] x) => (float[1] y) <float[1] w = {{{share}}}> {{ y = Mul (x, w) }}")


def cut_to(share):
    return graph_of(share), max(share, 0.25)


def latency(milliseconds=1.0, speedup=1.0):
    return Latency("cut", Spread(milliseconds, 0.0), Spread(speedup, 0.0))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4.2ms", LatencyBudget(4.2, absolute=True)),
        ("12 ms", LatencyBudget(12, absolute=True)),
        ("0.8", LatencyBudget(0.8, absolute=False)),
        (".8", LatencyBudget(0.8, absolute=False)),
    ],
)
def test_budgets_are_read(text, found):
    assert LatencyBudget.parse(text) == found


@pytest.mark.parametrize("text", ["", "fast", "1.2", "0", "0ms", "-1ms", "4s", "80%"])
def test_other_budgets_are_refused(text):
    with pytest.raises(UsageError, match=r"milliseconds like 4\.2ms or a share like 0\.8"):
        LatencyBudget.parse(text)


def test_a_share_looks_at_ratios_and_milliseconds_at_the_clock():
    assert LatencyBudget(0.8, absolute=False).met_by(latency(speedup=1.25))
    assert not LatencyBudget(0.8, absolute=False).met_by(latency(speedup=1.2))
    assert LatencyBudget(4, absolute=True).met_by(latency(milliseconds=4.0))
    assert not LatencyBudget(4, absolute=True).met_by(latency(milliseconds=4.1))


@pytest.mark.parametrize("limit", [0.0, 0.11, 0.5, 0.73, 0.99])
def test_the_largest_share_that_is_fast_enough_is_found(limit):
    tried = []

    def fast_enough(share):
        tried.append(share)
        return share <= limit

    found = largest(fast_enough)
    assert found is not None
    assert limit - 1 / 2**HALVINGS <= found <= limit
    assert len(tried) <= 1 + HALVINGS


def test_there_may_be_none():
    assert largest(lambda share: False) is None


def test_what_cannot_be_reached_is_said_with_what_did_remain(monkeypatch):
    monkeypatch.setattr(fast_enough, "ROUNDS", 3)
    feeds = {"x": np.ones(1, np.float32)}
    budget = LatencyBudget(1e-6, absolute=True)
    share, measured = most_that_may_stay(budget, graph_of(1), cut_to, OrtRuntime(), feeds)
    assert share is None
    assert measured[-1].startswith("0.250 of the MACs: ")


def test_nothing_goes_where_the_original_is_fast_enough(monkeypatch):
    monkeypatch.setattr(fast_enough, "ROUNDS", 3)
    feeds = {"x": np.ones(1, np.float32)}
    share, measured = most_that_may_stay(LatencyBudget(1e6, absolute=True), graph_of(1), cut_to, OrtRuntime(), feeds)
    assert (share, len(measured)) == (1, 1)


def test_a_share_of_the_original_s_time_is_not_met_by_the_original(monkeypatch):
    monkeypatch.setattr(fast_enough, "ROUNDS", 3)
    monkeypatch.setattr(LatencyBudget, "met_by", lambda self, latency: True)
    feeds = {"x": np.ones(1, np.float32)}
    budget = LatencyBudget(0.7, absolute=False)
    share, measured = most_that_may_stay(budget, graph_of(1), cut_to, OrtRuntime(), feeds)
    assert share < 1
    assert measured[0].startswith("0.250 of the MACs: ")
