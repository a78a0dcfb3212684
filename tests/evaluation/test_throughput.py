"""Samples in batches come out as they went in."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.throughput import Clock, Timed, batch_size, groups, run_all
from onnxopt.testing import parse_graph


class Doubling:
    """A session that says what it was fed; `scale` has no batch."""

    def __init__(self):
        self.fed = []

    def run(self, feeds, outputs=None):
        self.fed.append(feeds)
        return {"y": feeds["x"] * feeds["scale"], "list": ["no array"]}


def samples(count):
    return [Sample({"x": np.array([[float(i)]]), "scale": np.array([2.0])}, label=i) for i in range(count)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_sample_gets_its_own_output(size):
    session = Doubling()
    timed = Timed(session, size)
    got = [(sample.label, outputs["y"].tolist()) for sample, (outputs,) in run_all([timed], samples(5))]
    assert got == [(i, [[2.0 * i]]) for i in range(5)]
    assert {feeds["x"].shape for feeds in session.fed} == {(size, 1)}
    assert {feeds["scale"].shape for feeds in session.fed} == {(1,)}


def test_an_output_without_batch_is_refused():
    class Whole(Doubling):
        def run(self, feeds, outputs=None):
            return {"table": np.zeros((7, 6))}

    with pytest.raises(UsageError, match=r"output 'table' \[7, 6\] has no batch of 2.* leave --batch out"):
        Timed(Whole(), 2).run(samples(2))
    assert Timed(Whole()).run(samples(1))[0]["table"].shape == (7, 6)


def test_groups():
    assert [list(group) for group in groups(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(groups([], 2)) == []


def test_the_first_run_warms_up():
    clock = Clock()
    clock.add(9.0, 4)
    assert clock.per_second == 4 / 9
    for _ in range(2):
        clock.add(0.5, 4)
    assert (clock.seconds, clock.pictures, clock.runs) == (1.0, 8, 3)
    assert clock.per_second == 8
    assert Clock().per_second == 0


def test_what_fills_the_last_run_counts_as_it_takes_its_time():
    timed = Timed(Doubling(), 4)
    list(run_all([timed], samples(6)))
    assert timed.clock.pictures == 4
    assert timed.clock.runs == 2


class TestBatch:
    def inputs(self, first):
        return [InputSpec("x", (first, 4), np.dtype(np.float32)), InputSpec("n", (3,), np.dtype(np.int64))]

    def graph(self, first):
        return parse_graph(f"(float[{first},4] x) => (float[{first},4] y) {{ y = Relu (x) }}")

    def test_an_open_one_is_as_asked(self):
        assert batch_size(self.graph("N"), self.inputs(1), None) == 1
        assert batch_size(self.graph("N"), self.inputs(1), 8) == 8

    def test_a_fixed_one_stays(self):
        assert batch_size(self.graph(4), self.inputs(4), None) == 4
        assert batch_size(self.graph(4), self.inputs(4), 4) == 4
        with pytest.raises(UsageError, match="input 'x' has a batch of 1, so 8 samples at once do not fit"):
            batch_size(self.graph(1), self.inputs(1), 8)
