"""`onnxopt compare`, `bench` and `bisect` on models that differ in a known way."""

import json
import sys

import numpy as np
import pytest

from onnxopt import load


@pytest.fixture
def off_by_tenth(net, store):
    """The same classifier, its last layer scaled by 1.1: the error is 20 dB below the signal."""
    graph = load(net)
    gemm = next(graph.nodes_of("Gemm"))
    for index in (1, 2):
        weight = graph.own_constant(gemm, index)
        weight.values = (weight.values * np.float32(1.1)).astype(np.float32)
    return store("other.onnx", graph)


def test_a_known_difference(onnxopt, net, off_by_tenth):
    result = onnxopt("compare", net, off_by_tenth, "--json", "--samples", 3)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["samples"] == 3
    assert found["top1_agreement"] == 1
    scores = found["outputs"]["scores"]
    assert scores["sqnr_db"] == pytest.approx(20, abs=0.01)
    assert scores["cosine"] == pytest.approx(1)
    assert scores["equal"] is False
    assert "says nothing about accuracy" in result.stderr


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_no_number_cannot_be_compared(onnxopt, store, words):
    broken = store("nan.onnx", "(float[1,4] x) => (float[1,4] y) { a = Sub (x, x)  y = Div (a, a) }")
    sound = store("sound.onnx", "(float[1,4] x) => (float[1,4] y) { y = Relu (x) }")
    for pair in ((broken, broken), (sound, broken), (broken, sound)):
        result = onnxopt("compare", *pair, *words)
        assert result.exit_code == 1
        assert "Error: output 'y': NaN or infinite, so the models cannot be compared" in result.stderr
        assert result.stdout


def test_equal_models(onnxopt, net):
    assert json.loads(onnxopt("compare", net, net, "--json").stdout)["outputs"]["scores"]["equal"] is True
    text = onnxopt("compare", net, net).stdout
    assert "equal" in text
    assert "top-1 agreement: 100.0%" in text


def test_text(onnxopt, net, off_by_tenth):
    text = onnxopt("compare", net, off_by_tenth).stdout
    row = next(line for line in text.splitlines() if line.startswith("scores"))
    assert row.split()[2:] == ["20.00", "1.000000"]


def test_own_data(onnxopt, net, off_by_tenth, tmp_path):
    images = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    result = onnxopt("compare", net, off_by_tenth, "--json", "--data", tmp_path / "data.npz")
    assert json.loads(result.stdout)["samples"] == 5
    assert "accuracy" not in result.stderr


def test_other_names(onnxopt, net, net_text, store):
    other = store("renamed.onnx", net_text.replace("image", "picture").replace("scores", "logits"))
    assert json.loads(onnxopt("compare", net, other, "--json").stdout)["outputs"]["scores"]["equal"] is True


def test_half_precision_inputs(onnxopt, net, net_text, store):
    text = net_text.replace("float[N,3,8,8] image", "float16[N,3,8,8] half")
    text = text.replace("a = Conv", "image = Cast <to = 1> (half)\n    a = Conv", 1)
    result = onnxopt("compare", net, store("half.onnx", text), "--json")
    assert 40 < json.loads(result.stdout)["outputs"]["scores"]["sqnr_db"] < 100


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("8,8] image", "8,8] image, float[1] more"), "takes 2 inputs, the first model 1"),
        (("8,8] image", "9,9] image"), "does not take what the first model takes"),
        (("scores) <", "scores, float[N,8] f) <"), "has 1 outputs"),
    ],
)
def test_models_that_cannot_be_compared(onnxopt, net, net_text, store, change, problem):
    other = store("other.onnx", net_text.replace(*change))
    result = onnxopt("compare", net, other)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_bench(onnxopt, net, off_by_tenth):
    result = onnxopt("bench", net, off_by_tenth, net, "--rounds", 3, "--json")
    assert result.exit_code == 0
    timed = json.loads(result.stdout)
    assert [m["model"] for m in timed["models"]] == ["net.onnx (1)", "other.onnx", "net.onnx (2)"]
    assert timed["rounds"] == 3
    assert timed["threads"] == 1
    assert timed["runtime"].startswith("onnxruntime ")
    assert timed["models"][0]["speedup"] == 1
    assert all(m["median_ms"] > 0 for m in timed["models"])


@pytest.mark.parametrize(
    ("target", "hint"), [("openvino", "timed; pip install 'onnxopt[openvino]'"), ("tensorrt", "timed\n")]
)
def test_bench_says_what_to_install(onnxopt, net, monkeypatch, target, hint):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not there: importing it fails
    result = onnxopt("bench", net, "--target", target)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_a_fixed_batch(onnxopt, net_text, store):
    four = store("four.onnx", net_text.replace("[N,", "[4,"))
    assert onnxopt("compare", four, four).exit_code == 0
    assert onnxopt("bench", four, "--rounds", 3).exit_code == 0


def test_bench_as_text(onnxopt, net):
    result = onnxopt("bench", net, "--rounds", 3)
    assert result.stdout.splitlines()[0].split()[:3] == ["model", "median", "ms"]
    assert "3 interleaved rounds, 1 threads, onnxruntime" in result.stderr


def test_bench_tells_files_of_one_name_apart(onnxopt, net, net_text, store, tmp_path):
    (tmp_path / "b").mkdir()
    twin = store("b/net.onnx", net_text)
    models = json.loads(onnxopt("bench", net, twin, "--rounds", 3, "--json").stdout)["models"]
    assert [m["model"] for m in models] == [str(net), str(twin)]


def test_bench_needs_a_target_that_runs_here(onnxopt, net, distribute):
    elsewhere = "from dataclasses import replace\nfrom onnxopt.targets.ort import ORT\n"
    elsewhere += "AWAY = replace(ORT, name='away', adapter='')\n"
    distribute("away", {"onnxopt.targets": {"away": "away_target:AWAY"}}, away_target=elsewhere)
    result = onnxopt("bench", net, "--target", "away")
    assert result.exit_code == 2
    assert "cannot run on this machine" in result.stderr


CULPRIT = """
from onnxopt import Context, Graph, Pass, option

class Scale(Pass):
    \"\"\"Scale the last layer.\"\"\"

    name = "scale"
    effect = "lossy"
    by: float = option(default=1.0, help="Factor.")

    def run(self, graph: Graph, context: Context) -> bool:
        if self.by < 0:
            raise ValueError("negative")
        weight = graph.own_constant(next(graph.nodes_of("Gemm")), 1)
        weight.values = (weight.values * self.by).astype("float32")
        return True

def small_enough(path: str) -> bool:
    from onnxopt import load
    graph = load(path)
    gemm = next(graph.nodes_of("Gemm"))
    assert abs(graph.constant(gemm.inputs[1])).max() < 50
    return True
"""


@pytest.fixture
def culprit(distribute):
    distribute("culprit", {"onnxopt.passes": {"scale": "culprit_plugin:Scale"}}, culprit_plugin=CULPRIT)


PASSES = "scale{by=1.01},scale{by=0.99},eliminate-dead,scale{by=100.0},scale{by=1.02}"


@pytest.mark.usefixtures("culprit")
@pytest.mark.parametrize("check", [("--min-sqnr", "20"), ("--check", "culprit_plugin:small_enough")])
def test_bisect(onnxopt, net, check):
    result = onnxopt("bisect", net, "--passes", PASSES, *check)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "scale{by=100.0}\n"
    assert "after change 3 of 4" in result.stderr


@pytest.mark.usefixtures("culprit")
def test_bisect_where_all_is_well(onnxopt, net):
    result = onnxopt("bisect", net, "--passes", "scale{by=1.01}", "--min-sqnr", "20")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "all 2 graphs are good" in result.stderr


@pytest.mark.usefixtures("culprit")
def test_bisect_where_the_model_is_bad_already(onnxopt, net, store):
    graph = load(net)
    graph.own_constant(next(graph.nodes_of("Gemm")), 1).values = np.full((8, 5), 99, np.float32)
    result = onnxopt(
        "bisect",
        store("bad.onnx", graph),
        "--passes",
        "scale{by=1.01}",
        "--check",
        "culprit_plugin:small_enough",
    )
    assert result.exit_code == 2
    assert "before any pass has run" in result.stderr


@pytest.mark.usefixtures("culprit")
def test_bisect_blames_what_came_before_a_failure(onnxopt, net):
    result = onnxopt("bisect", net, "--passes", "scale{by=100.0},scale{by=-1.0}", "--min-sqnr", "20")
    assert result.stdout == "scale{by=100.0}\n"
    assert "the pipeline stopped: pass scale failed: ValueError: negative" in result.stderr


def test_bisect_wants_one_check(onnxopt, net):
    for checks in ((), ("--min-sqnr", "20", "--check", "a:b")):
        result = onnxopt("bisect", net, "--passes", "eliminate-dead", *checks)
        assert result.exit_code == 2
        assert "either --check or --min-sqnr" in result.stderr
