"""`onnxopt run` with `--max-drop` and `--calibration-table`, on the trained models of `testdata/`."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from onnxopt.cli.main import main
from onnxopt.report.run import SCHEMA

TESTDATA = Path(__file__).parents[2] / "testdata"
PATCHES = ("--data", TESTDATA / "patches" / "train.csv", "--preprocess", "imagenet")
QUICK = ("--verify", "off", "--samples", 12)


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copy(TESTDATA / "patches_classifier.onnx", tmp_path / "m.onnx"))


def run(*words):
    return CliRunner().invoke(main, ["run", *map(str, words)])


def test_a_budget_that_is_kept_stands_in_report_and_recipe_and_is_kept_again(model, tmp_path):
    report = tmp_path / "r.json"
    words = ("--passes", "quantize{recover=off}", "--target", "tensorrt", *PATCHES, *QUICK, "--metric", "top1")
    words += ("--max-drop", "1%", "--report", report, "--print-recipe")
    result = run(model, *words, "--calibration-table", tmp_path / "t.json")
    assert result.exit_code == 0, result.output
    assert "budget 1%: kept" in result.stderr
    document = json.loads(report.read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    budget = document["budget"]
    assert (budget["metric"], budget["pictures"], budget["met"], budget["kept_float"]) == ("top1", 4, True, [])
    assert budget["interval"]["low"] <= budget["drop"] <= budget["interval"]["high"]
    assert (document["before"]["score"], document["after"]["score"]) == (budget["before"], budget["after"])
    recipe = tmp_path / "r.toml"
    recipe.write_text(result.stdout)
    assert '[budget]\nmax_drop = "1%"\nmetric = "top1"' in result.stdout
    (tmp_path / "t.json").unlink()  # measured anew, to the same ranges
    again = run(model, "--recipe", recipe, "--report", report, "--print-recipe")
    assert again.exit_code == 0, again.output
    assert again.stdout == result.stdout
    table = document["data"]["calibration_table"]
    assert json.loads(report.read_text())["data"]["calibration_table"] == table
    assert json.loads(report.read_text())["budget"] == budget


def test_a_budget_that_is_missed_is_exit_1_and_no_file(model, tmp_path):
    words = (model, "--passes", "prune{ratio=0.8}", *PATCHES, "--max-drop", "1%", *QUICK)
    result = run(*words)
    assert result.exit_code == 1, result.output
    [said] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "top1 goes from " in said
    assert "max drop 1%" in said
    assert not (tmp_path / "m.opt.onnx").exists()
    kept = run(*words, "--keep-anyway", "--print-recipe")
    assert kept.exit_code == 0, kept.output
    assert "budget 1%: MISSED" in kept.stderr
    assert "max_drop" not in kept.stdout


def test_a_stage_with_which_the_budget_is_missed_is_undone_where_others_are_left(model, tmp_path):
    report = tmp_path / "r.json"
    passes = "prune{ratio=0.8, align=1},quantize{recover=off}"
    words = ("--target", "tensorrt", *PATCHES, "--max-drop", "10%", *QUICK, "--report", report, "--print-recipe")
    result = run(model, "--passes", passes, *words)
    assert result.exit_code == 0, result.output
    document = json.loads(report.read_text())
    pruned, quantized = document["stages"]
    assert not pruned["kept"]
    assert pruned["reason"].startswith("with it the accuracy budget is missed (top1 goes from ")
    assert quantized["kept"]
    assert document["budget"]["met"]
    assert "prune" not in result.stdout
    alone = run(model, "--passes", "quantize{recover=off}", *words)
    assert alone.stdout == result.stdout
    kept = run(model, "--passes", passes, *words, "--keep-anyway")
    assert "budget 10%: MISSED" in kept.stderr


def test_without_a_metric_the_labels_judge_and_the_recipe_says_so(model, tmp_path):
    report = tmp_path / "r.json"
    words = ("--passes", "simplify", *QUICK, "--max-drop", "1%", "--report", report, "--print-recipe")
    result = run(model, *words, *PATCHES)
    assert result.exit_code == 0, result.output
    assert "judged by top1 (it suits the labels; --metric names another)" in result.stderr
    assert 'metric = "top1"' in result.stdout
    document = json.loads(report.read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert (document["metric"], document["budget"]["metric"]) == ("top1", "top1")
    recipe = tmp_path / "r.toml"
    recipe.write_text(result.stdout)
    assert run(model, "--recipe", recipe, "--print-recipe").stdout == result.stdout
    asked = run(model, *words, *PATCHES, "--metric", "agreement")
    assert "judged by agreement with the float model (top class) (asked for)" in asked.stderr


def test_without_labels_agreement_judges_and_the_recipe_keeps_to_it(model, tmp_path):
    words = ("--passes", "simplify", *QUICK, "--max-drop", "1%", "--print-recipe", "--preprocess", "imagenet")
    result = run(model, *words, "--data", TESTDATA / "patches")
    assert result.exit_code == 0, result.output
    assert "judged by agreement with the float model (top class) (there are no labels)" in result.stderr
    assert 'metric = "agreement"' in result.stdout
    recipe = tmp_path / "r.toml"
    recipe.write_text(result.stdout)
    labelled = run(model, "--recipe", recipe, "--print-recipe", "--data", TESTDATA / "patches" / "train.csv")
    assert "judged by agreement with the float model (top class) (asked for)" in labelled.stderr
    assert 'metric = "agreement"' in labelled.stdout


@pytest.mark.slow
def test_a_detector_by_its_mean_average_precision(tmp_path):
    pytest.importorskip("pycocotools")
    words = ("--passes", "prune{ratio=0.05},quantize", "--data", TESTDATA / "shapes" / "data.yaml")
    report = tmp_path / "r.json"
    result = run(
        TESTDATA / "shapes_detector.onnx", *words, "--metric", "coco-map", "--max-drop", "10%", "-o",
        tmp_path / "o.onnx", "--report", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    budget = json.loads(report.read_text())["budget"]
    assert budget["pictures"] == 100
    assert budget["interval"]["high"] - budget["interval"]["low"] > 0.001
    assert budget["drop"] <= budget["allowed"] == pytest.approx(0.1 * budget["before"])


@pytest.mark.parametrize("text", ["-1", "abc", "200%"])
def test_what_is_no_budget_is_exit_2(model, text):
    result = run(model, "--passes", "quantize", "--max-drop", text)
    assert result.exit_code == 2, result.output
    assert f"max drop '{text}'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_one_picture_prunes_no_more_than_none_and_judges_no_budget(model, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(next((TESTDATA / "patches" / "train").iterdir()), tmp_path / "one")
    one = ("--data", tmp_path / "one", "--preprocess", "imagenet")
    budget = run(model, "--passes", "prune", *one, "--max-drop", "2%")
    assert budget.exit_code == 2, budget.output
    assert "cannot be judged on the single sample" in budget.stderr
    report = tmp_path / "r.json"
    result = run(model, "--passes", "prune", *one, "--keep-anyway", "--verify", "off", "--report", report)
    assert result.exit_code == 0, result.output
    document = json.loads(report.read_text())
    options = document["stages"][0]["passes"][0]["options"]
    assert (options["criterion"], options["compensation"]) == ("l2", False)
    assert document["after"]["macs"] > 0.8 * document["before"]["macs"]


def test_labels_that_are_not_there_are_missed_before_the_work(model):
    result = run(model, "--passes", "quantize", "--max-drop", "1%", "--metric", "top1")
    assert result.exit_code == 2, result.output
    assert "needs a class number" in result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "t.json: not a calibration table"),
        (
            '{"format": "onnxopt calibration table", "version": 1, "tensors": {"x": {"low": 2, "high": 1}}}',
            "t.json: tensor 'x' has no 'method'",
        ),
        ('{"format": "onnxopt calibration table", "version": 1, "tensors": {}}', "not one of its tensors"),
        ('{"format": "onnxopt calibration table", "version": 1, "model": "x", "tensors": {}}', "of other weights"),
    ],
)
def test_bad_tables_are_exit_2_and_stay_as_they_are(model, tmp_path, content, said):
    table = tmp_path / "t.json"
    table.write_text(content)
    result = run(model, "--passes", "calibrate", "--calibration-table", table)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert table.read_text() == content


@pytest.mark.parametrize(
    ("place", "said"),
    [("m.onnx", "is the model"), ("m.opt.onnx", "is the model"), (".", "is a folder"), ("no/t.json", "does not exist")],
)
def test_the_table_replaces_nothing(model, tmp_path, place, said):
    before = model.read_bytes()
    result = run(model, "--passes", "quantize", "--calibration-table", tmp_path / place)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert model.read_bytes() == before


def test_a_pipeline_that_does_not_calibrate_has_no_use_for_a_table(model, tmp_path):
    result = run(model, "--passes", "simplify", "--calibration-table", tmp_path / "t.json")
    assert result.exit_code == 2
    assert "no pass here calibrates" in result.stderr


def test_labels_that_do_not_suit_are_not_used_and_that_is_said(model, tmp_path):
    folder = TESTDATA / "patches" / "train"
    names = [line.split(",")[0] for line in folder.with_suffix(".csv").read_text().splitlines()[1:40]]
    labels = tmp_path / "words.csv"
    labels.write_text("file,label\n" + "".join(f"{folder / name},cat\n" for name in names))
    words = ("--passes", "simplify", *QUICK, "--max-drop", "1%", "--preprocess", "imagenet", "--data", labels)
    result = run(model, *words)
    assert result.exit_code == 0, result.output
    assert "warning: the labels do not suit what the model gives: they are not used" in result.stderr


def test_a_table_written_with_data_is_read_without(model, tmp_path):
    words = ("--passes", "quantize{recover=off}", "--target", "tensorrt", "--calibration-table", tmp_path / "t.json")
    with_data = run(model, *words, *PATCHES, "--samples", 24, "--verify", "off", "-o", tmp_path / "a.onnx")
    assert with_data.exit_code == 0, with_data.output
    without = run(model, *words, "--verify", "off", "-o", tmp_path / "b.onnx")
    assert without.exit_code == 0, without.output
    assert "ranges read" in without.stderr
