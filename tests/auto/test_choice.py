"""Which candidates are taken."""

from dataclasses import replace

import pytest

from onnxopt.auto.choice import choose, distinct, front
from onnxopt.auto.trial import Trial
from onnxopt.evaluation.budget import Verdict
from onnxopt.evaluation.interval import Interval


def trial(passes, speedup, drop, high=None, size=100, target="ort"):
    interval = None if high is None else Interval(2 * drop - high, high, 2000)
    verdict = Verdict("top1", "1%", 1.0, 1.0 - drop, drop, 0.01, drop <= 0.01, 100, interval)
    latency = 10 / speedup
    return Trial(passes, target, passes, size, 9, 9, latency, 0.1, speedup, 0.1, verdict, None, 30.0, 0.0, (), "", 1.0)


FLOAT = trial("float", 1.0, 0.0, 0.0, 400)
SURE = trial("sure", 2.0, 0.002, 0.008, 100)
FAST = trial("fast", 3.0, 0.009, 0.02, 120)
SMALL = trial("small", 1.5, 0.008, 0.03, 50)


def test_the_fastest_is_picked_the_safe_one_is_sure_and_the_small_one_small():
    picks = choose([FLOAT, SURE, FAST, SMALL])
    assert picks.items() == (("safe", SURE), ("balanced", FAST), ("small", SMALL))
    assert picks.names(FAST) == ["balanced"]


def test_what_is_faster_inside_the_noise_alone_gives_way_to_what_is_faster():
    noisy = replace(trial("noisy", 4.0, 0.0, 0.0), spread=5.0)
    assert choose([noisy, SURE]).balanced is SURE
    assert not noisy.beats(FLOAT)
    assert SURE.beats(FLOAT)


def test_one_model_may_be_all_three():
    assert choose([SURE]).names(SURE) == ["safe", "balanced", "small"]


def test_where_nothing_is_sure_the_lowest_upper_end_is_the_safest():
    assert choose([FAST, SMALL]).safe is FAST


def test_what_no_picture_shows_is_not_sure_unless_outputs_are_the_same():
    unseen, same = trial("unseen", 2.0, 0.0, 0.0), replace(FLOAT, sqnr_db=120.0)
    assert unseen.highest_drop == pytest.approx(0.03)
    assert not unseen.surely_keeps
    assert same.surely_keeps
    gained = replace(unseen.verdict, before=0.99, after=0.995, drop=-0.005, interval=Interval(-0.01, 0.0, 2000))
    assert replace(unseen, verdict=gained).highest_drop == pytest.approx(0.03)
    assert choose([unseen, same]).safe is same


def test_without_an_interval_half_the_budget_is_sure():
    cautious, bold = trial("cautious", 1.5, 0.004), trial("bold", 2.0, 0.006)
    assert choose([cautious, bold]).safe is cautious


def test_the_front_holds_what_no_other_beats_in_both():
    beaten = trial("beaten", 1.4, 0.0085)
    assert front([FLOAT, beaten, SURE, FAST]) == [FAST, SURE, FLOAT]


def test_what_is_faster_inside_the_noise_alone_is_not_on_the_front():
    slow = trial("slow", 1.0, 0.001)
    near = replace(trial("near", 1.2, 0.004), spread=0.3)
    clear = trial("clear", 2.0, 0.008)
    assert front([clear, near, slow]) == [clear, slow]
    assert front([near, slow]) == [slow]


def test_equal_models_count_once_under_the_shorter_pipeline():
    same = replace(SURE, passes="prune{macs=0.9},sure", digest=SURE.digest)
    elsewhere = replace(SURE, target="openvino")
    assert distinct([same, SURE, elsewhere]) == [SURE, elsewhere]
