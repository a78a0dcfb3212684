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


def share_of(passes):
    return float(passes.split("macs=")[1].split("}")[0]) if "macs=" in passes else 1.0


def bearing(least, **options):
    """Every cut keeps the budget down to a share of the MACs."""

    def outcome(passes):
        share = share_of(passes)
        return trial(passes, 0.0 if share >= least else 0.02, round(100 * share), **options)

    return outcome


def cuts(done):
    return [share_of(passes) for passes in done if "prune" in passes]


@pytest.mark.parametrize("least", [0.4, 0.45, 0.62, 0.7, 0.72, 0.87, 0.95])
def test_the_deepest_cut_that_keeps_the_budget_is_found_in_four_tries(least):
    done = follow(bearing(least))
    assert list(done)[:3] == ["simplify", "quantize", "prune{macs=0.7},quantize{most=0.0}"]
    assert min(s for s in cuts(done) if s >= least) - least < 0.05
    assert len(cuts(done)) <= 4


def test_why_it_ends_is_said():
    assert why_no_more(follow(bearing(0.72))) == [
        f"{OTHER_RANGES}: quantize keeps the budget already, and hardly a layer had to stay float for it",
        "prune below macs=0.7: loses 0.0200",
    ]


def test_where_no_cut_keeps_the_budget_the_mildest_is_the_last():
    assert cuts(follow(bearing(0.99))) == [0.7, 0.85, 0.95]


def test_a_model_in_which_nothing_can_go_is_cut_once():
    done = follow(lambda passes: trial(passes, 0.0))
    assert cuts(done) == [0.7]
    assert why_no_more(done)[-1] == "prune other than to macs=0.7: nothing can go"


def test_a_cut_that_was_undone_says_nothing_of_deeper_ones():
    undone = ("prune{macs=0.7}: slower",)
    done = follow(lambda passes: trial(passes, 0.0, undone=undone if "0.7" in passes else ()))
    assert cuts(done) == [0.7, 0.55]


def test_where_int8_misses_the_budget_other_ranges_are_tried_and_then_float_cuts():
    done = follow(lambda passes: trial(passes, 0.05 if "quantize" in passes else 0.0, round(100 * share_of(passes))))
    assert list(done)[2:5] == [OTHER_RANGES, "prune{macs=0.7}", "prune{macs=0.55}"]
    assert "quantize alone misses the budget" in why_no_more(done)[0]


def test_where_int8_is_slower_cuts_stay_float():
    undone = ("quantize: slower",)
    done = follow(lambda passes: trial(passes, 0.0, round(100 * share_of(passes)), undone=undone))
    assert list(done)[2] == "prune{macs=0.7}"
    assert why_no_more(done)[1] == "prune with quantize: quantize is slower than float here"


def test_where_layers_stay_float_the_faster_ranges_are_built_upon():
    def outcome(passes):
        speed = 2.0 if passes == OTHER_RANGES else 1.5
        return trial(passes, 0.5 if "prune" in passes else 0.0, speedup=speed, kept_float=0.1)

    assert list(follow(outcome))[2:4] == [OTHER_RANGES, pruned(0.7, "quantize{method=percentile, most=0.1}")]


def test_what_gives_no_model_counts_as_missed():
    done = follow(lambda p: Failed(p, "ort", "no", 1.0) if "prune" in p else trial(p, 0.0))
    assert cuts(done) == [0.7, 0.85, 0.95]
    assert why_no_more(done)[-1] == "prune below macs=0.95: no"


@pytest.mark.parametrize("cut", range(1, 6))
def test_an_interrupted_search_goes_the_same_way(cut):
    outcome = bearing(0.72)
    whole = follow(outcome)
    part = dict(list(whole.items())[:cut])
    assert propose(part) == list(whole)[cut]
