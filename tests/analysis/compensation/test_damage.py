"""One number for how much outputs suffer, and how many samples that may cost."""

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.analysis.compensation.affordable import MEMORY, peak, plan
from onnxopt.analysis.compensation.damage import CLIPPED, Damage
from onnxopt.analysis.compensation.reading import find_readers
from onnxopt.testing import parse_graph

GENERATOR = np.random.default_rng(0)


def damage(before, after, feeds=None, metadata=None):
    return Damage([before], [feeds or {}], metadata or {}).of([after])


def test_divergence_of_classes():
    logits = np.array([[1.0, 2.0, 0.5]], np.float32)
    other = np.array([[1.5, 1.0, 0.5]], np.float32)
    p, q = (np.exp(v[0]) / np.exp(v[0]).sum() for v in (logits, other))
    wanted = float((p * np.log(p / q)).sum())
    assert damage({"y": logits}, {"y": other}) == pytest.approx(wanted, rel=1e-5)
    assert damage({"y": logits}, {"y": logits + 3}) == pytest.approx(0, abs=1e-6)  # a shift changes no probability
    # Probabilities are taken as they are.
    assert damage({"y": p[None]}, {"y": q[None]}) == pytest.approx(wanted, rel=1e-5)


def test_other_outputs_count_as_shares_of_their_spread():
    first = {"y": GENERATOR.standard_normal((1, 3, 5, 5)).astype(np.float32)}
    second = {"y": first["y"] + 0.1}
    spread = np.square(first["y"] - first["y"].mean()).sum()
    assert damage(first, second) == pytest.approx(0.01 * 75 / spread, rel=1e-3)
    assert damage({"y": 7 * first["y"]}, {"y": 7 * second["y"]}) == pytest.approx(damage(first, second), rel=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_as_bad_as_can_be(value):
    first = {"y": np.ones((1, 3, 4, 4), np.float32)}
    assert damage(first, {"y": np.full((1, 3, 4, 4), value, np.float32)}) == CLIPPED
    scores = {"y": np.ones((1, 3), np.float32)}
    assert damage(scores, {"y": np.full((1, 3), value, np.float32)}) == CLIPPED


def detector(objectness):
    """The output of YOLOX for a picture of 32 x 32 with two classes."""
    values = GENERATOR.uniform(0.2, 0.4, (1, 21, 7)).astype(np.float32)
    values[..., 4] = objectness
    values[0, 3, 4] = 0.9
    return {"y": values}, {"x": np.zeros((1, 3, 32, 32), np.float32)}


@pytest.mark.parametrize("column", [0, 5])
def test_what_a_detector_says_of_nothing_hardly_counts(column):
    before, feeds = detector(0.001)
    there, elsewhere = before["y"].copy(), before["y"].copy()
    there[0, 3, column] += 0.2
    elsewhere[0, 4, column] += 0.2
    assert damage(before, {"y": there}, feeds) > 100 * damage(before, {"y": elsewhere}, feeds) > 0


CHAIN = """(float[1,3,8,8] x) => (float[1,2,8,8] y)
    <float[16,3,1,1] w1, float[12,16,1,1] w2, float[2,12,1,1] w3> {
    a = Conv (x, w1)  b = Relu (a)  c = Conv (b, w2)  d = Relu (c)  e = Add (d, c)  y = Conv (e, w3) }"""


def test_what_a_walk_holds():
    graph = parse_graph(CHAIN)
    found = ChannelGroups.of(graph)
    readers = find_readers(graph, found, found.free)
    sizes = {"x": 100, "a": 1000, "b": 1000, "c": 70, "d": 70, "e": 70, "y": 20}
    assert peak(graph, readers, sizes.__getitem__) == 1000 + 70
    assert peak(graph, readers, lambda name: 70) == 70 + 70


@pytest.mark.parametrize(("nbytes", "macs"), [(1, 1), (MEMORY // 40, 10**6), (10**6, 10**11), (MEMORY, 10**13)])
def test_samples_fit_memory_and_time(nbytes, macs):
    graph = parse_graph(CHAIN)
    found = ChannelGroups.of(graph)
    numbers = plan(graph, find_readers(graph, found, found.free), lambda name: nbytes, macs, (80, 40), 100)
    assert 1 <= numbers.pictures <= 80
    assert 1 <= numbers.views <= 4
    assert 1 <= numbers.judged <= 36
    assert numbers.pictures == 1 or 2 * nbytes * numbers.pictures * numbers.views <= MEMORY
    if (nbytes, macs) == (1, 1):
        assert (numbers.pictures, numbers.views, numbers.judged) == (80, 4, 36)
