"""Interleaved timing, on a clock of its own."""

import gc
from collections.abc import Callable
from itertools import cycle

import pytest

from onnxopt.runtime.latency import compare
from onnxopt.runtime.runner import WARM_UP


class Machine:
    """A clock that only moves when something runs."""

    def __init__(self) -> None:
        self.now = 0
        self.order: list[str] = []

    def clock(self) -> int:
        return self.now

    def task(self, name: str, *milliseconds: float) -> Callable[[], None]:
        durations = cycle(milliseconds)

        def run() -> None:
            self.order.append(name)
            self.now += round(next(durations) * 1e6)

        return run


def test_medians_and_speedups():
    machine = Machine()
    timed = compare({"a": machine.task("a", 4), "b": machine.task("b", 2)}, rounds=7, clock=machine.clock)
    assert timed.rounds == 7
    assert timed["a"].milliseconds.median == 4
    assert timed["b"].milliseconds.median == 2
    assert timed["a"].speedup.median == 1
    assert timed["b"].speedup.median == 2
    assert timed["b"].faster()
    assert not timed["b"].slower()
    assert not timed["a"].faster()
    assert str(timed["b"]) == "b: 2 ms ± 0 %, 2.00 x ± 0.00"


def test_every_round_runs_everyone_and_the_order_rotates():
    machine = Machine()
    compare({n: machine.task(n, 1) for n in "abc"}, rounds=3, clock=machine.clock)
    assert "".join(machine.order[3 * WARM_UP :]) == "abcbcacab"


def test_a_drifting_machine_changes_no_ratio():
    machine = Machine()
    slow = [1, 1, 1, *range(1, 10)]
    a, b = machine.task("a", *slow), machine.task("b", *(2 * t for t in slow))
    timed = compare({"a": a, "b": b}, rounds=9, clock=machine.clock)
    assert timed["a"].milliseconds.spread == 2
    assert timed["a"].milliseconds.percent == 40
    assert timed["b"].speedup.median == 0.5
    assert timed["b"].speedup.spread == 0
    assert timed["b"].slower()


def test_a_difference_within_the_spread_is_none():
    machine = Machine()
    a = machine.task("a", 1, 1, 1, 10, 10, 10, 10)
    b = machine.task("b", 1, 1, 1, 8, 14, 9, 13)
    timed = compare({"a": a, "b": b}, rounds=4, clock=machine.clock)
    assert timed["b"].speedup.median < 1
    assert not timed["b"].slower()
    assert not timed["b"].faster()


def test_short_runs_are_timed_together():
    machine = Machine()
    timed = compare({"a": machine.task("a", 0.25)}, rounds=2, clock=machine.clock)
    assert len(machine.order) == WARM_UP + 2 * 4
    assert timed["a"].milliseconds.median == 0.25


def test_the_time_box_ends_it_but_not_before_the_least():
    machine = Machine()
    task = machine.task("a", 100)
    assert compare({"a": task}, rounds=30, seconds=1, clock=machine.clock).rounds == 11
    assert compare({"a": task}, rounds=30, seconds=0.1, least=5, clock=machine.clock).rounds == 5
    assert compare({"a": task}, rounds=3, seconds=1, least=5, clock=machine.clock).rounds == 3


def test_garbage_collection_rests_meanwhile():
    seen = []
    compare({"a": lambda: seen.append(gc.isenabled())}, rounds=1)
    assert not any(seen)
    assert gc.isenabled()


def test_garbage_collection_is_back_after_an_error():
    with pytest.raises(ZeroDivisionError):
        compare({"a": lambda: 1 / 0})
    assert gc.isenabled()


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="nothing to measure"):
        compare({})
    with pytest.raises(ValueError, match="nothing to measure"):
        compare({"a": print}, rounds=0)


def test_unknown_candidate():
    with pytest.raises(KeyError):
        compare({"a": lambda: None}, rounds=1)["b"]
