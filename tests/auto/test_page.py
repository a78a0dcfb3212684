"""What the page of a search shows."""

from dataclasses import replace

from test_choice import FAST, FLOAT, SMALL, SURE, trial
from test_words import findings

from onnxopt.auto.page import document
from onnxopt.report.document import TIMES, Layer, Picture, Spectrum
from onnxopt.report.findings import Findings as Beside
from onnxopt.report.findings import Resources


def test_the_pick_stands_beside_the_model_as_given():
    fast = replace(FAST, int8_share=0.75)
    page = document(findings(fast, SURE, SMALL, FLOAT))
    rows = {row.name: row for row in page.figures.rows}
    assert rows["top1"].cells == ("1.0000", "0.9910")
    assert "95% interval" in rows["top1"].note
    assert rows["latency, onnxruntime"].cells == ("10.00 ms ± 0.10", "3.33 ms ± 0.10")
    assert rows["file size"].note == f"0.30 {TIMES}"
    assert rows["multiply-accumulates"].cells == rows["parameters"].cells == ("18", "9")
    assert rows["multiply-accumulates"].note == f"0.50 {TIMES}"
    assert rows["multiply-accumulates in int8"].cells == ("0.0%", "75.0%")
    assert "compressed (zlib)" not in rows  # nothing was measured for the page alone
    assert not page.layers
    assert not page.pictures
    assert rows["multiply-accumulates kept float for the budget"].cells == ("", "0.0%")


def test_what_was_measured_for_the_page_is_on_it():
    layer, spectrum = Layer("/conv", "Conv", int8=True), Spectrum("x", (0.0, 1.0), (1,), 0.0, 1.0, 30.0, 0.0)
    picture = Picture("a.png", b"", 1, 1, (), ())
    sides = Beside(
        before=Resources(compressed_bytes=4000, cold_start_ms=20.0),
        after=Resources(compressed_bytes=1000, cold_start_ms=10.0),
        layers=(layer,),
        layers_text="most of the time goes here",
        spectra=(spectrum,),
        pictures=(picture,),
        notes=("energy: not measured",),
    )
    page = document(findings(FAST, beside=sides))
    rows = {row.name: row for row in page.figures.rows}
    assert rows["compressed (zlib)"].cells == ("3.9 KiB", "1.0 KiB")
    assert rows["cold start"].cells == ("20 ms", "10 ms")
    assert (page.layers, page.layers_text) == ((layer,), "most of the time goes here")
    assert (page.spectra, page.pictures) == ((spectrum,), (picture,))
    assert page.warnings[-1] == "energy: not measured"


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
