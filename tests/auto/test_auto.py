"""A whole search on the classifier of `testdata/`, over few and quick candidates."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxopt import UsageError, load
from onnxopt.auto import Question, auto
from onnxopt.auto.page import document
from onnxopt.auto.seeking import INTERRUPTED, TIME_UP
from onnxopt.auto.store import TRIAL
from onnxopt.auto.words import advice, summary
from onnxopt.auto.writing import as_json, write_front, write_models
from onnxopt.cli.main import main
from onnxopt.errors import GateMissed, OptimizationError
from onnxopt.report.html import html

TESTDATA = Path(__file__).parents[2] / "testdata"
QUESTION = Question(
    TESTDATA / "patches_classifier.onnx",
    data=TESTDATA / "patches" / "train.csv",
    eval_data=TESTDATA / "patches" / "val.csv",
    preprocess="imagenet",
    max_drop="2%",
    samples=12,
)
QUICK = ("simplify", "prune{ratio=0.2, compensation=false}", "calibrate,insert-qdq")


def listed(*candidates):
    """Tries just these, in this order."""
    return lambda done: next((c for c in candidates if c not in done), None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache):
    return auto(QUESTION, cache, propose=listed(*QUICK))


def test_the_metric_follows_from_the_labels_and_the_pick_is_the_fastest_that_kept(found):
    assert found.metric == "top1"
    assert {t.passes for t in found.trials} == set(QUICK)
    pick = found.picks.balanced
    assert not any(other.beats(pick) for other in found.kept)
    assert all(t.verdict.met for _, t in found.picks.items())
    assert next(t for t in found.trials if "prune" in t.passes).verdict.drop > 0.1


def test_the_recipe_of_a_pick_names_the_metric_and_gives_the_same_bytes(found, tmp_path):
    recipe, made = tmp_path / "r.toml", tmp_path / "m.onnx"
    pick = next(t for t in found.kept if "calibrate" in t.passes)
    recipe.write_text(pick.recipe)
    assert '[budget]\nmax_drop = "2%"\nmetric = "top1"' in pick.recipe
    command = ["run", str(QUESTION.model), "--recipe", str(recipe), "-o", str(made)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert made.read_bytes() == found.files[pick.passes, pick.target].read_bytes()


def test_a_second_search_does_nothing_again(found, cache):
    said = []
    began = time.monotonic()
    again = auto(QUESTION, cache, propose=listed(*QUICK), tell=said.append)
    assert again.reused == len(QUICK)
    assert {t.digest for t in again.trials} == {t.digest for t in found.trials}
    assert sum("(known)" in line for line in said) == len(QUICK)
    assert time.monotonic() - began < 30


def test_another_question_is_tried_anew(cache):
    other = Question(**{**vars(QUESTION), "max_drop": "3%"})
    assert auto(other, cache, propose=listed("simplify")).reused == 0


def test_without_labels_agreement_judges(tmp_path):
    pictures = Question(QUESTION.model, data=TESTDATA / "patches" / "train", preprocess="imagenet", samples=12)
    unlabelled = auto(pictures, tmp_path, propose=listed("simplify"))
    assert unlabelled.metric is None
    assert unlabelled.picks.safe.verdict.metric == "agreement with the float model (top class)"
    assert unlabelled.picks.safe.verdict.after == 1.0


def test_models_front_and_report_are_written(found, tmp_path):
    files = write_models(found, found.picks, tmp_path)
    assert [f.name for f in files] == [f"patches_classifier.{p}.onnx" for p in ("safe", "balanced", "small")]
    assert load(files[1]).metadata["onnxopt.target"] == found.picks.balanced.target
    sheet, *_ = write_front(found, tmp_path)
    rows = list(csv.DictReader(sheet.read_text().splitlines()))
    assert len(rows) == len(QUICK)
    assert sum("balanced" in row["picked"] for row in rows) == 1
    report = json.loads(as_json(found))
    assert report["kind"] == "auto"
    assert len(report["candidates"]) == len(QUICK)


def test_the_page_has_layers_and_pictures_of_the_pick(cache, found):
    assert found.beside is None  # it was not asked for
    shown = auto(QUESTION, cache, propose=listed(*QUICK), findings=True)
    assert shown.reused == len(QUICK)
    page = document(shown)
    rows = {row.name: row.cells for row in page.figures.rows}
    pick = load(shown.files[shown.picks.balanced.passes, shown.picks.balanced.target])
    assert {node.name for node in pick.nodes if node.op == "Conv"} <= {layer.name for layer in page.layers}
    assert len(page.pictures) > 1
    assert all(picture.before and picture.after for picture in page.pictures)
    assert all(before and after for before, after in (rows["compressed (zlib)"], rows["parameters"]))
    assert rows["multiply-accumulates in int8"][0] == "0.0%"
    assert len(html(page)) < 1.5e6


def test_interrupted_while_the_page_is_measured_it_hands_back_the_models(cache, found):
    def interrupt(line):
        if "what the page shows" in line:
            signal.raise_signal(signal.SIGINT)

    stopped = auto(QUESTION, cache, propose=listed(*QUICK), findings=True, tell=interrupt)
    assert stopped.stopped == INTERRUPTED
    assert stopped.beside is None
    assert {t.passes for t in stopped.trials} == {t.passes for t in found.trials}  # in order of speed, measured anew
    assert stopped.picks is not None


def test_what_is_said_names_the_pick_and_how_sure_it_is(found):
    text = summary(found)
    assert found.picks.balanced.passes in advice(found)[0]
    assert "On 200 pictures " in text
    assert all(passes in text for passes in QUICK)
    assert document(found).pareto.candidates[0].name == "as given"


def test_no_time_means_the_first_candidate_and_how_to_go_on(tmp_path):
    said = []
    stopped = auto(QUESTION, tmp_path, propose=listed(*QUICK), minutes=0, tell=said.append)
    assert said[-1] == "comparing 1 candidate with the model as given"
    assert stopped.stopped == TIME_UP
    assert [t.passes for t in stopped.trials] == ["simplify"]


def test_gates_are_kept_by_what_is_taken(found, cache):
    small = min(found.kept, key=lambda t: t.bytes)
    limited = auto(QUESTION, cache, propose=listed(*QUICK), require=f"size<={small.bytes}B")
    assert {t.passes for _, t in limited.picks.items()} == {small.passes}
    assert "at most" in limited.refused["simplify", small.target]
    with pytest.raises(GateMissed, match=r"no candidate keeps all gates.*size<=1kB is missed"):
        auto(QUESTION, cache, propose=listed(*QUICK), require="size<=1kB")


def test_a_budget_that_nothing_keeps(cache):
    hopeless = Question(**{**vars(QUESTION), "max_drop": "0"})
    with pytest.raises(OptimizationError, match="no candidate keeps the budget; the best is prune"):
        auto(hopeless, cache, propose=listed(QUICK[1]))


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"data": None}, {}, "--data"),
        ({}, {"target": "tensorrt"}, "auto ranks by latency on tensorrt"),
        ({}, {"minutes": float("nan")}, "minutes is nan"),
        ({}, {"target": "otr"}, "did you mean 'ort'"),
        ({}, {"require": "map>=-1pt"}, "metric coco-map"),
        ({"metric": "top2"}, {}, "did you mean 'top"),
    ],
)
def test_wrong_requests_are_one_sentence(change, options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        auto(Question(**{**vars(QUESTION), **change}), tmp_path / "cache", propose=listed("simplify"), **options)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from test_auto import QUESTION, QUICK, listed
from onnxopt.auto import auto
auto(QUESTION, __import__("pathlib").Path(sys.argv[1]), propose=listed(*QUICK, "quantize"), tell=print)
"""


def started(cache):
    """A search in a process of its own that has finished its first candidate."""
    script = SCRIPT.format(here=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", script, str(cache)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(cache.glob(f"*/{TRIAL}")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_killed_half_way_it_goes_on_where_it_was(tmp_path):
    process = started(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"*/{TRIAL}")}
    found = auto(QUESTION, tmp_path, propose=listed(*QUICK))
    assert found.reused == len(before) >= 1
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert {t.passes for t in found.trials} == set(QUICK)


def test_interrupted_it_hands_back_what_it_has(tmp_path):
    def propose(done):
        if len(done) == 1:
            raise KeyboardInterrupt
        return "simplify"

    found = auto(QUESTION, tmp_path, propose=propose)
    assert found.stopped == "interrupted"
    assert found.picks.balanced.passes == "simplify"


def test_interrupted_before_anything_was_done(tmp_path):
    def propose(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        auto(QUESTION, tmp_path, propose=propose)
