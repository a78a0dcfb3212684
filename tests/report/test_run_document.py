"""A run in words, tiles and rows."""

import pytest

from onnxopt.report.document import TIMES, Layer
from onnxopt.report.findings import Findings, Resources
from onnxopt.report.record import PassRecord, StageRecord
from onnxopt.report.run import Alone, Measured, RunReport
from onnxopt.report.run_document import run_document


def measured(**figures):
    return Measured(**{"bytes": 2_000_000, "parameters": 500_000, "macs": 40_000_000, **figures})


def report(**changes):
    """A run that went well."""
    fields = {
        "model": {"source": "folder/net.onnx", "digest": "aa"},
        "target": {"name": "ort-vnni", "runtime": "onnxruntime 1.31", "why_not_measured": "", "threads": 1},
        "inputs": ["x: float32[1, 3, 8, 8]"],
        "data": {
            "source": "pictures",
            "synthetic": False,
            "digest": "bb",
            "fitted_on": 40,
            "judged_on": 20,
            "notes": [],
        },
        "before": measured(latency_ms=4.0, latency_spread_ms=0.1, score=0.9, int8_share=0.0),
        "after": measured(bytes=500_000, latency_ms=2.0, latency_spread_ms=0.1, score=0.89, int8_share=0.95),
        "speedup": {"median": 2.0, "spread": 0.1, "rounds": 30},
        "metric": "top1",
        "quality": {"top1": 0.98, "detections": None, "samples": 20, "worst_sqnr_db": 25.0},
        "stages": [stage("quantize")],
    }
    return RunReport(**{**fields, **changes})


def stage(text, *, kept=True, reason="", changed=True, details=None):
    record = PassRecord("calibrate", changed=changed, counts={"tensors measured": 3}, details=details or {})
    record.notes = [("Conv 'a'", "too small"), ("Conv 'b'", "too small")]
    return StageRecord(text, [(None, [record])], kept, reason, {"speedup": 2.0, "spread": 0.1})


def row(document, name):
    (found,) = [r for r in document.figures.rows if r.name.startswith(name)]
    return found


def test_five_lines_say_what_happened():
    lines = run_document(report()).lines
    assert len(lines) == 5
    assert lines[0] == "net.onnx went through quantize for ort-vnni."
    assert lines[1].startswith("One run on one thread is 2.00 times as fast as before (4.00 → 2.00 ms)")
    assert lines[2] == (
        "The score, top1, goes from 0.9000 to 0.8900; it agrees with the model as given on 98.0% of what they see."
    )
    assert lines[3] == "95% of its 40.00 M multiply-accumulates run in int8."
    assert lines[4] == "It was fitted on 40 samples of pictures and judged on others."


def test_what_did_not_pay_is_said_first():
    stages = [stage("simplify"), stage("prune{ratio=0.3}", kept=False, reason="slower on ort; undone")]
    document = run_document(report(stages=stages))
    assert (
        document.lines[0] == "net.onnx went through simplify for ort-vnni; prune{ratio=0.3} did not pay and was undone."
    )
    assert [(s.text, s.kept, s.verdict) for s in document.stages] == [
        ("simplify", True, f"2.00 {TIMES} as fast as before it, ± 0.10"),
        ("prune{ratio=0.3}", False, "slower on ort; undone"),
    ]


def test_nothing_changed():
    assert (
        run_document(report(stages=[stage("simplify", changed=False)])).lines[0] == "Nothing was changed for ort-vnni."
    )


def test_models_that_read_text_are_judged_by_their_texts():
    found = report(metric=None, quality={"texts": 0.9, "samples": 20, "worst_sqnr_db": 25.0})
    assert found.agreement == 0.9
    assert "90.0%" in row(run_document(found), "texts that agree").cells


def test_made_up_pictures_prove_nothing():
    data = {**report().data, "synthetic": True}
    assert "its accuracy is not known" in run_document(report(data=data)).lines[4]


def test_an_unmeasured_target_says_why():
    target = {"name": "tensorrt", "runtime": "", "why_not_measured": "the target cannot run here", "threads": 1}
    document = run_document(
        report(target=target, speedup=None, before=measured(), after=measured(), metric=None, quality={})
    )
    assert document.lines[1].startswith("Latency was not measured (the target cannot run here)")
    assert document.lines[2] == "How accurate it is was not measured."
    assert row(document, "latency").note == "not measured: the target cannot run here"
    assert [t.label.split(",")[0] for t in document.tiles] == ["file size"]


@pytest.mark.parametrize(
    ("interval", "tone"), [((0.002, 0.02), "bad"), ((-0.02, -0.002), "good"), ((-0.01, 0.02), ""), (None, "")]
)
def test_a_change_of_the_score_is_news_where_chance_does_not_explain_it(interval, tone):
    drop = {"low": interval[0], "high": interval[1], "level": 0.95} if interval else None
    score = row(run_document(report(quality={**report().quality, "drop": drop})), "top1")
    assert score.tone == tone
    assert ("95% interval" in score.note) == (interval is not None)
    assert score.note.startswith("\N{MINUS SIGN}0.0100")


def test_smaller_is_good_and_the_same_is_no_news():
    document = run_document(report())
    assert row(document, "file size").tone == "good"
    assert row(document, "parameters").tone == ""
    assert row(document, "latency").tone == "good"


def test_energy_that_cannot_be_read_is_said():
    found = Findings(Resources(900, 100.0, 1 << 20), Resources(300, 99.0, 1 << 18))
    document = run_document(report(), found)
    assert row(document, "energy").note == "not measurable here"
    assert (row(document, "compressed").note, row(document, "peak memory").tone) == (f"0.33 {TIMES}", "good")
    assert row(document, "cold start").tone == ""


def test_without_findings_nothing_is_claimed_of_them():
    document = run_document(report())
    assert not [r for r in document.figures.rows if r.name in {"energy of one run", "cold start"}]
    assert document.layers == document.pictures == document.spectra == ()


def test_findings_are_passed_on():
    found = Findings(layers=(Layer("a", "Conv"),), layers_text="slow", notes=("pictures: not measured",))
    document = run_document(report(warnings=["w", "w"]), found)
    assert (document.layers, document.layers_text) == (found.layers, "slow")
    assert document.warnings == ("w", "pictures: not measured")


def test_sensitivity_becomes_curves():
    details = {
        "sizes": {"a": 20, "b": 10},
        "sensitivity": {"a": {"16": 0.01, "10": 0.1}, "b": {"5": 0.2}},
        "groups": [{"name": "a", "kept": list(range(12))}],
    }
    damages = run_document(report(stages=[stage("prune", details=details)])).damages
    assert [(d.group, d.channels, d.kept, d.curve) for d in damages] == [
        ("a", 20, 12, ((0.5, 0.1), (0.8, 0.01))),
        ("b", 10, 10, ((0.5, 0.2),)),
    ]


def test_stages_alone_are_a_table():
    alone = [Alone("the model as given", 2000, 10**6, 4.0, 1.0, 0.0, 0.9, float("inf"))]
    (table,) = run_document(report(alone=alone)).tables
    assert table.columns == ("size", "MACs", "latency", "as fast", "top1", "worst SQNR")
    assert table.rows[0].cells[-2:] == ("0.9000", "equal")


def test_notes_are_gathered_under_their_reason():
    assert run_document(report()).stages[0].notes == (("calibrate: too small", "Conv 'a', Conv 'b'"),)


def test_everything_to_do_it_again_is_there():
    data = {**report().data, "calibration_table": {"file": "r.json", "digest": "cc"}}
    document = run_document(report(data=data, environment={"onnx": "1.23"}, recipe="version = 1"))
    pairs = {pair for group in document.facts for pair in group.pairs}
    assert {("SHA-256", "aa"), ("SHA-256", "bb"), ("their SHA-256", "cc"), ("onnx", "1.23")} <= pairs
    assert document.recipe == "version = 1"
