"""What the page of a search shows."""

from dataclasses import replace

from test_choice import FAST, FLOAT, SMALL, SURE, trial
from test_words import findings

from onnxopt.auto.page import document
from onnxopt.report.document import TIMES


def test_the_pick_stands_beside_the_model_as_given(tmp_path):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(bytes(10_000))
    page = document(findings(FAST, SURE, SMALL, FLOAT, files={("fast", "ort"): kept}))
    rows = {row.name: row for row in page.figures.rows}
    assert rows["top1"].cells == ("1.0000", "0.9910")
    assert "95% interval" in rows["top1"].note
    assert rows["latency, onnxruntime"].cells == ("10.00 ms ± 0.10", "3.33 ms ± 0.10")
    assert rows["file size"].note == f"0.30 {TIMES}"
    assert rows["compressed (zlib)"].cells == ("", "0.0 KiB")
    assert rows["multiply-accumulates"].cells == rows["parameters"].cells == ("", "9")
    assert rows["multiply-accumulates kept float for the budget"].cells == ("", "0.0%")


def test_noise_is_not_called_faster():
    noisy = replace(trial("noisy", 1.38, 0.0), spread=0.5)
    tile = document(findings(noisy)).tiles[0]
    assert (tile.label, tile.tone) == ("as fast as before within the noise, on onnxruntime", "")
    clear = document(findings(FAST)).tiles[0]
    assert (clear.value, clear.label, clear.tone) == (f"3.00 {TIMES}", "as fast on onnxruntime", "good")


def test_nothing_stands_twice_and_facts_are_words():
    page = document(findings(FAST, data={"notes": ["one", "two"], "source": "here", "labels": []}))
    facts = {facts.title: dict(facts.pairs) for facts in page.facts}
    assert page.pareto.text == ""
    assert facts["Data"] == {"notes": "one; two", "source": "here", "judged on": "pictures"}
    assert facts["Model"]["balanced"] == "m.balanced.onnx"


def test_without_a_pick_there_is_no_table():
    assert document(findings(trial("lost", 3.0, 0.5))).figures is None
