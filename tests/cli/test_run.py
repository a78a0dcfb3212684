"""`onnxopt run`, as typed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxopt import load, save
from onnxopt.analysis.tensorrt_rules import check
from onnxopt.cli.main import main

TESTDATA = Path(__file__).parents[2] / "testdata"


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copy(TESTDATA / "patches_classifier.onnx", tmp_path / "m.onnx"))


def run(*words):
    return CliRunner().invoke(main, ["run", *map(str, words)])


def test_main_job_with_no_other_option(model):
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    result = run(model, "--passes", "prune,quantize")
    assert result.exit_code == 0, result.output
    assert hashlib.sha256(model.read_bytes()).hexdigest() == before
    assert (model.parent / "m.opt.onnx").is_file()
    assert "accuracy is unverified" in result.stderr
    assert "SQNR" in result.stderr
    assert result.stdout == ""


def test_printed_recipe_runs_to_the_same_bytes_twice(model, tmp_path):
    printed = run(model, "--passes", "quantize", "--print-recipe")
    assert printed.exit_code == 0, printed.output
    assert not (tmp_path / "m.opt.onnx").exists()
    recipe = tmp_path / "r.toml"
    recipe.write_text(printed.stdout)
    outputs = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for output in outputs:
        assert run(model, "--recipe", recipe, "-o", output).exit_code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert any(n.op == "QuantizeLinear" for n in load(outputs[0]).nodes)


def test_what_is_left_beside_int8_turns_fp16_on_request(model, tmp_path):
    output = tmp_path / "h.onnx"
    result = run(model, "--passes", "quantize", "--target", "tensorrt", "--high-precision", "fp16", "-o", output)
    assert result.exit_code == 0, result.output
    half = load(output)
    assert half.opset >= 19
    scales = [c.values for n in half.nodes_of("DequantizeLinear") for c in n.inputs[1:2]]
    assert {s.dtype.name for s in scales} == {"float16"}
    assert half.inputs[0].dtype == "float32"
    assert check(half) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--passes", "simplify"), "high_precision is an option of quantize"),
        (("--recipe", "r.toml"), "--high-precision goes with --passes"),
    ],
)
def test_high_precision_without_quantize_is_refused(model, words, problem):
    refused = run(model, *words, "--high-precision", "fp16")
    assert refused.exit_code == 2
    assert problem in refused.stderr


def test_report_and_dumps_are_written(model, tmp_path):
    result = run(model, "--passes", "simplify", "--report", tmp_path / "r.json", "--dump-after-each", tmp_path / "d")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["schema_version"] == 1
    assert report["model"]["output"] == [str(tmp_path / "m.opt.onnx")]
    assert (tmp_path / "d" / "00-input.onnxtxt").is_file()


def test_own_output_is_replaced_but_nobody_elses(model, tmp_path):
    output = tmp_path / "o.onnx"
    assert run(model, "--passes", "eliminate-dead", "-o", output).exit_code == 0
    assert run(model, "--passes", "eliminate-dead", "-o", output).exit_code == 0
    output.write_bytes(b"mine")
    refused = run(model, "--passes", "eliminate-dead", "-o", output)
    assert refused.exit_code == 2
    assert output.read_bytes() == b"mine"
    assert "--force" in refused.stderr
    assert run(model, "--passes", "eliminate-dead", "-o", output, "--force").exit_code == 0


def test_the_input_is_never_the_output(model):
    result = run(model, "--passes", "simplify", "-o", model, "--force")
    assert result.exit_code == 2
    assert "never changed" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--passes or --recipe"),
        (["--passes", "prune{ratio=2}"], "ratio=2"),
        (["--passes", "prune{rato=0.2}"], "did you mean 'ratio'"),
        (["--passes", "prune{ratio=0.2"], "Quote the pipeline"),
        (["--passes", "pruneratio=0.3,quantize", "prunescope=conv,quantize"], "Quote it"),
        (["--passes", "quantize", "--preprocess", "imagnet", "--data", TESTDATA / "patches" / "train.csv"], "imagenet"),
        (["--passes", "quantize", "-o", "/nowhere/at/all.onnx"], "/nowhere/at"),
        (["--passes", "quantize", "--input-shape", "image:1x3x64x64"], "input"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(model, words, said):
    result = run(model, *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (model.parent / "m.opt.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_files_that_are_no_models(tmp_path, content):
    file = tmp_path / "x.onnx"
    file.write_bytes(content)
    result = run(file, "--passes", "simplify")
    assert result.exit_code == 2
    assert "x.onnx" in result.stderr


def test_truncated_model(model):
    model.write_bytes(model.read_bytes()[:-1000])
    result = run(model, "--passes", "simplify")
    assert result.exit_code == 2
    assert "m.onnx" in result.stderr


def test_a_quantized_model_is_quantized_anew_and_carried_by_simplify(model, tmp_path):
    quantized, again = tmp_path / "q.onnx", tmp_path / "a.onnx"
    assert run(model, "--passes", "quantize", "-o", quantized).exit_code == 0
    assert run(quantized, "--passes", "quantize", "-o", again).exit_code == 0
    refused = run(quantized, "--passes", "calibrate,insert-qdq")
    assert refused.exit_code == 2
    assert "quantized already" in refused.stderr
    assert "run strip-qdq before" in refused.stderr
    assert run(quantized, "--passes", "simplify", "-o", tmp_path / "s.onnx").exit_code == 0


@pytest.mark.parametrize("place", ["m.onnx", "m.opt.onnx", "notes.txt", ".", "no/r.json"])
def test_the_report_replaces_no_model_and_nobody_elses_file(model, tmp_path, place):
    (tmp_path / "notes.txt").write_text("mine")
    before = model.read_bytes()
    result = run(model, "--passes", "eliminate-dead", "--report", tmp_path / place)
    assert result.exit_code == 2, result.output
    assert "--report" in result.stderr or "--force" in result.stderr
    assert model.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "m.opt.onnx").exists()


def test_a_report_is_replaced_by_the_next(model, tmp_path):
    for _ in range(2):
        assert run(model, "--passes", "eliminate-dead", "--report", tmp_path / "r.json").exit_code == 0


def test_a_device_is_no_output(model):
    result = run(model, "--passes", "eliminate-dead", "-o", "/dev/zero")
    assert result.exit_code == 2
    assert "device" in result.stderr


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_weights_beside_the_input_are_never_replaced(model, tmp_path, option):
    save(load(model), tmp_path / "e.onnx", external=True)
    weights = tmp_path / "e.onnx.data"
    before = weights.read_bytes()
    result = run(tmp_path / "e.onnx", "--passes", "eliminate-dead", option, weights, "--force")
    assert result.exit_code == 2
    assert "e.onnx.data holds weights of the input model" in result.stderr
    assert weights.read_bytes() == before
