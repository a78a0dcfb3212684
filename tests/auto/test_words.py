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
        (trial("equal", 1.05, 0.0), "Nothing that keeps the budget is measurably faster"),
        (replace(trial("noisy", 3.0, 0.0), spread=4.0), "the machine is busy: measure again"),
    ],
)
def test_what_is_not_clearly_faster_is_not_praised(pick, said):
    assert said in advice(findings(pick))[0]


def test_without_a_pick_it_says_so():
    lost = trial("lost", 3.0, 0.5)
    assert advice(findings(lost)) == ["Nothing to hand back yet: no candidate so far keeps the budget."]
    assert "missed" in summary(findings(lost))


def test_several_runtimes_are_compared():
    elsewhere = trial("quantize", 2.5, 0.0, 0.0, target="openvino")
    told = advice(findings(FAST, elsewhere, targets={"ort": "a", "openvino": "b"}))[-1]
    assert told == "The fastest runtime for this model here is ort: ort 3.33 ms (fast), openvino 4.00 ms (quantize)."
