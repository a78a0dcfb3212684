"""Gates as they are written, and how they judge."""

import pytest

from onnxopt.errors import GateMissed, UsageError
from onnxopt.evaluation.metrics import Metric, load_metric
from onnxopt.gates import (
    Figure,
    check_judgeable,
    figures,
    judge_gates,
    named_metric,
    parse_gates,
    refuse_missed,
)
from onnxopt.report.run import Measured

TOP1 = load_metric("top1")
ERRORS = Metric("errors", lambda: None, lower_is_better=True)


@pytest.mark.parametrize(
    ("text", "name", "amount", "against"),
    [
        ("map>=-1pt", "coco-map", -1, "pt"),
        ("top1 >= -0.5 %", "top1", -0.5, "%"),
        ("score>=35%", "score", pytest.approx(0.35), ""),
        ("score>=.35", "score", 0.35, ""),
        ("score<=+1pt", "score", 1, "pt"),
        ("latency<=20ms", "latency", 20, ""),
        ("latency<=1.5s", "latency", 1500, ""),
        ("latency<=800µs", "latency", pytest.approx(0.8), ""),
        ("latency<=-20%", "latency", -20, "%"),
        ("size<=3MB", "size", 3e6, ""),
        ("size<=900kB", "size", 9e5, ""),
        ("size<=2.5MiB", "size", 2.5 * 2**20, ""),
        ("speedup>=1.5", "speedup", 1.5, ""),
        ("speedup>=1.5x", "speedup", 1.5, ""),
        ("agreement>=98%", "agreement", 0.98, ""),
        ("sqnr>=20dB", "sqnr", 20, ""),
    ],
)
def test_how_a_gate_is_written(text, name, amount, against):
    [gate] = parse_gates(text)
    assert (gate.name, gate.amount, gate.against) == (name, amount, against)
    assert str(gate) == text.replace(" ", "")
    assert parse_gates(str(gate)) == (gate,)


def test_several_and_the_metric_that_they_name():
    gates = parse_gates("map>=-1pt, latency<=20ms,size<=3MB,speedup>=1.5")
    assert [g.name for g in gates] == ["coco-map", "latency", "size", "speedup"]
    assert named_metric(gates) == "coco-map"
    assert named_metric(parse_gates("score>=0.3,size<=3MB")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("map", "needs >= or <="),
        ("map=0.3", "needs >= or <="),
        ("map>0.3", "needs >= or <="),
        ("map>=", "no number that fits; map takes 0.35, 35%, -1pt or -1%"),
        ("map>=0,35", "'35' is not of the form"),
        ("map>=nan", "no number"),
        ("mpa>=0.3", "did you mean 'map'"),
        ("latencey<=3ms", "did you mean 'latency'"),
        ("map>=-1", "a sign compares with the float model"),
        ("map>=1pt", "a sign compares with the float model"),
        ("latency<=20", "'20' does not fit latency, which takes 20ms"),
        ("latency>=20ms", "of latency less is better; write latency<=20ms"),
        ("speedup<=2", "of speedup more is better; write speedup>=2"),
        ("speedup>=-1%", "does not fit speedup"),
        ("size<=3ms", "does not fit size"),
        ("top1>=-1pt,map>=-1pt", "names coco-map and top1"),
        (">=3", "not of the form name>=value"),
        ("map>=-1pt,", "'' is not of the form"),
    ],
)
def test_what_is_no_gate(text, said):
    with pytest.raises(UsageError, match="--require") as found:
        parse_gates(text)
    assert said in str(found.value)


def judged(text, **measured):
    return [o.kept for o in judge_gates(parse_gates(text), measured)]


def test_points_and_percents_are_read_against_the_float_model():
    score = Figure(0.345, 0.350, point=0.01)
    assert judged("score>=-0.5pt,score>=-0.4pt", score=score) == [True, False]
    assert judged("score>=-1.5%,score>=-1.4%", score=score) == [True, False]
    assert judged("score<=+0.5pt,score<=+0.4pt", score=Figure(10.5, 10, point=1.0)) == [True, False]
    assert judged("latency<=-20%,latency<=-21%", latency=Figure(8.0, 10.0)) == [True, False]


def test_absolute_values_and_rounding():
    assert judged("score>=0.35,score>=35.1%", score=Figure(0.35)) == [True, False]
    assert judged("score>=-1pt", score=Figure(0.945, 0.955, point=0.01)) == [True]
    assert judged("size<=3MB,size<=2.9MB", size=Figure(3e6)) == [True, False]


def test_a_refusal_says_which_gate_what_was_wanted_and_what_came_out():
    measured = {"coco-map": Figure(0.3, 0.35, point=0.01), "latency": Figure(25.0, 40.0), "size": Figure(2e6, 8e6)}
    outcomes = judge_gates(parse_gates("map>=-1pt,latency<=20ms,size<=3MB"), measured)
    with pytest.raises(GateMissed) as refused:
        refuse_missed(outcomes, "the report", ["prune was undone"])
    assert (refused.value.exit_code, refused.value.report) == (3, "the report")
    assert str(refused.value) == (
        "refused: map>=-1pt is missed: coco-map 0.3000, at least 0.3400 is wanted, as the float model has 0.3500; "
        "latency<=20ms is missed: 25 ms, at most 20 ms is wanted (prune was undone); nothing is written"
    )
    assert outcomes[2].to_dict()["text"] == "size<=3MB is kept: 2.000 MB, at most 3.000 MB is wanted"
    refuse_missed(outcomes[2:], None)


def test_what_was_not_measured_is_not_passed_over():
    with pytest.raises(UsageError, match="speedup was not measured"):
        judged("speedup>=1")
    with pytest.raises(UsageError, match="read against the float model"):
        judged("score>=-1pt", score=Figure(0.3))


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("score>=0.3", {"metric": None}, "without a metric"),
        ("map>=-1pt", {"metric": TOP1}, "the metric in use is top1"),
        ("score>=-1pt", {"metric": ERRORS}, "of errors less is better"),
        ("score<=+1pt", {"metric": TOP1}, "of top1 more is better"),
        ("speedup>=1", {"metric": None, "cannot_time": "no tensorrt here"}, "no tensorrt here"),
        ("latency<=1ms", {"metric": None, "cannot_run": "too large"}, "too large"),
        ("sqnr>=1dB", {"metric": None, "cannot_run": "too large"}, "too large"),
    ],
)
def test_what_cannot_be_judged_is_refused_beforehand(text, options, said):
    with pytest.raises(UsageError, match=said):
        check_judgeable(parse_gates(text), **options)


def test_what_can_be_judged():
    check_judgeable(parse_gates("top1>=-1pt,score>=0.3"), metric=TOP1, cannot_time="no tensorrt here")
    check_judgeable(parse_gates("score<=+1pt"), metric=ERRORS)
    check_judgeable(parse_gates("size<=1MB"), metric=None, cannot_run="too large")


def test_figures_hold_what_was_measured():
    before, after = Measured(400, 1, 1, latency_ms=4.0, score=0.9), Measured(100, 1, 1, latency_ms=2.0, score=0.89)
    found = figures(before, after, metric=TOP1, speedup=2.0, agreement=0.99, sqnr_db=float("inf"))
    gates = "top1>=-1pt,score>=0.89,latency<=2ms,size<=-75%,speedup>=2,agreement>=-1pt,sqnr>=20dB"
    assert all(o.kept for o in judge_gates(parse_gates(gates), found))
    assert set(figures(Measured(4, 1, 1), Measured(1, 1, 1))) == {"size"}
