"""What is tried next follows from what was tried, and from nothing else."""

import pytest

from onnxopt.auto.search import OTHER_RANGES, propose, pruned, why_no_more
from onnxopt.auto.trial import Failed, Trial
from onnxopt.evaluation.budget import Verdict


def trial(passes, drop, macs=100, *, speedup=1.0, kept_float=0.0, undone=()):
    """A candidate that loses `drop` where 0.01 may be lost."""
    verdict = Verdict("top1", "1%", 1.0, 1.0 - drop, drop, 0.01, drop <= 0.01, 100, None)
    return Trial(
        passes, "ort", passes, 10, 10, macs, 1.0, 0.0, speedup, 0.0, verdict, None, 30.0, kept_float, undone, "", 1.0
    )


def follow(outcome):
    """All that is tried where `outcome` says what comes of a pipeline."""
    done = {}
    while (passes := propose(done)) is not None:
        done[passes] = outcome(passes)
        assert len(done) < 20
    return done


def losing(**drops):
    """Share of the MACs to drop; everything else loses nothing."""

    def outcome(passes):
        share = next((s for s in drops if f"macs={s.replace('_', '.')}" in passes), None)
        macs = 100 * float(passes.split("macs=")[1].split("}")[0]) if "macs=" in passes else 100
        return trial(passes, drops.get(share, 0.0), macs)

    return outcome


def test_cuts_go_deeper_until_one_misses_and_then_half_way_back():
    done = follow(losing(**{"0_7": 0.02}))
    assert list(done) == [
        "simplify",
        "quantize",
        "prune{macs=0.9},quantize{most=0.0}",
        "prune{macs=0.8},quantize{most=0.0}",
        "prune{macs=0.7},quantize{most=0.0}",
        "prune{macs=0.75},quantize{most=0.0}",
    ]
    assert why_no_more(done) == [
        f"{OTHER_RANGES}: quantize keeps the budget already, and hardly a layer had to stay float for it",
        "prune below macs=0.7: that loses 0.0200 already",
    ]


def test_a_first_cut_that_misses_by_far_ends_it():
    assert list(follow(losing(**{"0_9": 0.2}))) == ["simplify", "quantize", "prune{macs=0.9},quantize{most=0.0}"]


def test_a_first_cut_that_misses_narrowly_is_tried_milder():
    assert list(follow(losing(**{"0_9": 0.02})))[-1] == "prune{macs=0.95},quantize{most=0.0}"


def test_a_model_in_which_nothing_can_go_is_cut_once():
    done = follow(lambda passes: trial(passes, 0.0))
    assert [p for p in done if "prune" in p] == ["prune{macs=0.9},quantize{most=0.0}"]
    assert "nothing more can go" in why_no_more(done)[-1]


def test_a_cut_that_was_undone_says_nothing_of_deeper_ones():
    undone = ("prune{macs=0.9}: slower",)
    done = follow(lambda passes: trial(passes, 0.0, undone=undone if "0.9" in passes else ()))
    assert [p for p in done if "prune" in p] == [
        "prune{macs=0.9},quantize{most=0.0}",
        "prune{macs=0.8},quantize{most=0.0}",
    ]


def test_where_int8_misses_the_budget_other_ranges_are_tried_and_then_float_cuts():
    done = follow(lambda passes: trial(passes, 0.05 if "quantize" in passes else 0.0, 100 - 10 * ("prune" in passes)))
    assert list(done)[2:5] == [OTHER_RANGES, "prune{macs=0.9}", "prune{macs=0.8}"]
    assert "quantize alone misses the budget" in why_no_more(done)[0]


def test_where_layers_stay_float_the_faster_ranges_are_built_upon():
    def outcome(passes):
        speed = 2.0 if passes == OTHER_RANGES else 1.5
        return trial(passes, 0.5 if "prune" in passes else 0.0, speedup=speed, kept_float=0.1)

    assert list(follow(outcome))[2:] == [OTHER_RANGES, pruned(0.9, "quantize{method=percentile, most=0.1}")]


def test_a_cut_that_was_given_up_narrowly_is_tried_milder():
    def outcome(passes):
        return Failed(passes, "ort", "no", 1.0, 2.0) if "0.9" in passes else trial(passes, 0.0)

    assert list(follow(outcome))[2:] == ["prune{macs=0.9},quantize{most=0.0}", "prune{macs=0.95},quantize{most=0.0}"]


def test_what_gives_no_model_is_not_deepened():
    done = follow(lambda p: Failed(p, "ort", "no", 1.0) if "prune" in p else trial(p, 0.0))
    assert list(done)[2:] == ["prune{macs=0.9},quantize{most=0.0}"]
    assert why_no_more(done)[-1] == "prune below macs=0.9: no"


@pytest.mark.parametrize("cut", range(1, 6))
def test_an_interrupted_search_goes_the_same_way(cut):
    outcome = losing(**{"0_7": 0.02})
    whole = follow(outcome)
    part = dict(list(whole.items())[:cut])
    assert propose(part) == list(whole)[cut]
