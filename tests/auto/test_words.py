"""What is said of a search."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_choice import FAST, FLOAT, SMALL, SURE, trial

from onnxopt.auto.choice import choose
from onnxopt.auto.findings import Findings
from onnxopt.auto.words import advice, summary
from onnxopt.runtime.latency import Spread


def findings(*trials, **more):
    kept = [t for t in trials if t.verdict.met]
    facts = {"given": Spread(10.0, 0.1), "targets": {"ort": "onnxruntime"}, "data": {}, "judged_on": "pictures"}
    facts["files"] = {(t.passes, t.target): Path("f") for t in trials}
    return Findings(
        model="m",
        digest="d",
        bytes=400,
        parameters=18,
        macs=18,
        int8_share=0.0,
        metric="top1",
        trials=trials,
        failed=(),
        picks=choose(kept) if kept else None,
        **{**facts, **more},
    )


def test_each_pick_is_named_with_its_reason():
    first, loss, doubt, safe, small = advice(findings(FAST, SURE, SMALL, FLOAT))
    assert first.startswith("Take balanced: fast on ort, 3.00 x as fast")
    assert "the fastest of 4 candidates that keep the budget" in first
    assert loss.startswith("On 100 pictures it loses 0.0090")
    assert "the 95% interval of the loss is -0.0020 … 0.0200" in doubt
    assert safe == "If it must not lose more, take safe: sure, 2.00 x as fast ± 0.10; it keeps it there, too."
    assert small.startswith("If size counts, take small: small")


@pytest.mark.parametrize(
    ("pick", "said"),
    [
        (
            trial("equal", 1.05, 0.0),
            "measurably faster. Balanced, equal on ort, is as fast as the model as given within",
        ),
        (
            replace(trial("noisy", 0.24, 0.0), spread=3.14),
            "faster (the machine is busy: measure again when it is not).",
        ),
        (replace(trial("wide", 3.0, 0.0), spread=4.0), "as given within the noise (3.00 x ± 4.00)"),
        (trial("slow", 0.5, 0.0), "Balanced, slow on ort, is 0.50 x as fast ± 0.10"),
    ],
)
def test_what_is_not_clearly_faster_is_not_praised(pick, said):
    first, loss, size, *rest = advice(findings(pick))
    assert first.startswith("Keep the model as given: nothing that keeps the budget is measurably faster")
    assert said in first
    assert loss.startswith("On 100 pictures balanced loses nothing")
    assert size.startswith(f"If size counts, take small: {pick.passes}, 0.00 MB instead of 0.00 MB")
    assert not rest


def test_a_search_that_ended_early_advises_nothing_for_good():
    first = advice(replace(findings(trial("equal", 1.05, 0.0)), stopped="the time limit was reached"))[0]
    assert first.startswith("So far, of 1 tried, nothing that keeps the budget is measurably faster")
    assert "Keep the model" not in first


def test_a_pick_that_another_ties_with_is_not_called_the_fastest():
    tied = trial("tied", 2.9, 0.009)
    assert "of 2 candidates that keep the budget no other is measurably faster" in advice(findings(FAST, tied))[0]


def test_a_safe_one_that_is_no_faster_is_not_to_be_taken():
    said = advice(findings(FAST, replace(FLOAT, sqnr_db=120.0)))
    assert "If it must not lose more, keep the model as given; safe, float, is as fast" in " ".join(said)


def test_runtimes_inside_the_noise_cannot_be_told_apart():
    ort, vino = (replace(trial("quantize", s, 0.0, target=t), spread=1.5) for s, t in ((3.1, "ort"), (3.2, "openvino")))
    told = advice(findings(vino, ort, targets={"ort": "a", "openvino": "b"}))[-1]
    assert told.startswith("openvino, ort cannot be told apart for this model here: openvino 3.12 ms ± 0.10 (quantize)")


def test_without_a_pick_it_says_so():
    lost = trial("lost", 3.0, 0.5)
    assert advice(findings(lost)) == ["Nothing to hand back yet: no candidate so far keeps the budget."]
    assert "missed" in summary(findings(lost))


def test_several_runtimes_are_compared():
    elsewhere = trial("quantize", 2.5, 0.0, 0.0, target="openvino")
    told = advice(findings(FAST, elsewhere, targets={"ort": "a", "openvino": "b"}))[-1]
    assert told == (
        "The fastest runtime for this model here is ort: ort 3.33 ms ± 0.10 (fast), openvino 4.00 ms ± 0.10 (quantize)."
    )
