"""Gates on a whole run: recipes made slower and made wrong are refused, and nothing is written."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxopt import UsageError, load, optimize
from onnxopt.cli.main import main
from onnxopt.errors import GateMissed

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER, DETECTOR = TESTDATA / "patches_classifier.onnx", TESTDATA / "shapes_detector.onnx"
SHAPES, PATCHES = TESTDATA / "shapes" / "data.yaml", TESTDATA / "patches" / "train.csv"

MISTAKES = '''
"""Two passes that do what one should not."""

import numpy as np

from onnxopt import Context, Graph, Pass


def pair(graph: Graph, tensor, scale: float):
    """Q and DQ behind a tensor, as uint8."""
    parameters = [np.asarray(scale, np.float32), np.asarray(0, np.uint8)]
    codes = graph.add_node("QuantizeLinear", [tensor, *parameters]).outputs[0]
    return graph.add_node("DequantizeLinear", [codes, *parameters]).outputs[0]


class Lonely(Pass):
    """Put pairs in front of operators that have no int8 kernel, where they only cost time."""

    name = "lonely"
    effect = "lossy"

    def run(self, graph: Graph, context: Context) -> bool:
        for node in graph.nodes_of("Relu", "Clip"):
            tensor, readers = node.outputs[0], graph.consumers(node.outputs[0])
            for _ in range(24):
                tensor = graph.add_node("Tanh", [pair(graph, tensor, 0.05)]).outputs[0]
            graph.replace_uses(node.outputs[0], tensor, readers)
        return True


class QuantizeTail(Pass):
    """Quantize what a detector gives: boxes up to 255 pixels and scores up to 1 share one scale."""

    name = "quantize-tail"
    effect = "lossy"

    def run(self, graph: Graph, context: Context) -> bool:
        last = graph.producer(graph.outputs[0])
        for index, part in enumerate(list(last.inputs)):
            if graph.constant(part) is None:
                last.inputs[index] = pair(graph, part, 1.0)
        return True
'''


@pytest.fixture
def mistakes(distribute):
    points = {"lonely": "mistakes:Lonely", "quantize-tail": "mistakes:QuantizeTail"}
    return distribute("mistakes", {"onnxopt.passes": points}, mistakes=MISTAKES)


def run(model, folder, *words):
    """What the command said, and the files that it left."""
    copy = Path(shutil.copy(model, folder / model.name))
    result = CliRunner().invoke(main, ["run", str(copy), *map(str, words)])
    return result, sorted(f.name for f in folder.iterdir() if f.is_file() and f.name != model.name)


@pytest.mark.usefixtures("mistakes")
def test_a_slower_recipe_is_refused_with_the_reason(tmp_path):
    report = tmp_path / "r.json"
    result, left = run(CLASSIFIER, tmp_path, "--passes", "lonely", "--require", "speedup>=1.2", "--report", report)
    assert result.exit_code == 3, result.output
    assert "speedup>=1.2 is missed" in result.stderr
    assert "at least 1.20 x is wanted" in result.stderr
    assert "lonely: slower on ort" in result.stderr
    assert left == []


@pytest.mark.usefixtures("mistakes")
def test_a_slower_recipe_is_refused_although_nothing_may_be_undone(tmp_path):
    words = ("--passes", "lonely", "--require", "speedup>=1.2", "--keep-anyway")
    result, left = run(CLASSIFIER, tmp_path, *words)
    assert result.exit_code == 3, result.output
    assert left == []


@pytest.mark.usefixtures("mistakes")
def test_without_a_gate_the_slower_stage_is_undone(tmp_path):
    result, left = run(CLASSIFIER, tmp_path, "--passes", "lonely")
    assert result.exit_code == 0, result.output
    assert "lonely: slower on ort" in result.stderr
    assert left == ["patches_classifier.opt.onnx"]
    assert [n.op for n in load(tmp_path / left[0]).nodes] == [n.op for n in load(CLASSIFIER).nodes]


@pytest.mark.usefixtures("mistakes")
def test_a_wrong_recipe_is_refused_with_the_reason(tmp_path):
    words = ("--passes", "quantize-tail", "--data", SHAPES, "--require", "map>=-1pt", "--keep-anyway")
    result, left = run(DETECTOR, tmp_path, *words)
    assert result.exit_code == 3, result.output
    assert "map>=-1pt is missed: coco-map 0." in result.stderr
    assert "as the float model has 0." in result.stderr
    assert left == []


def test_a_recipe_brings_its_gates(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('version = 1\n[budget]\nrequire = "size<=1kB"\n[[pipeline]]\npass = "simplify"\n')
    with pytest.raises(GateMissed, match="size<=1kB is missed"):
        optimize(CLASSIFIER, recipe=recipe)
    assert optimize(CLASSIFIER, recipe=recipe, require="size<=9MB").recipe.require == "size<=9MB"


def test_kept_gates_stand_in_report_and_resolved_recipe(tmp_path):
    report = tmp_path / "r.json"
    words = ("--data", PATCHES, "--preprocess", "imagenet", "--require", "top1>=-1pt, size<=-0%, sqnr>=40dB")
    result, left = run(CLASSIFIER, tmp_path, "--passes", "simplify", *words, "--report", report)
    assert result.exit_code == 0, result.output
    assert left == ["patches_classifier.opt.onnx", "r.json"]
    assert "top1>=-1pt is kept" in result.stderr
    found = json.loads(report.read_text())
    assert [gate["kept"] for gate in found["gates"]] == [True, True, True]
    assert 'require = "top1>=-1pt,size<=-0%,sqnr>=40dB"' in found["recipe"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"require": "speedup>=2", "target": "tensorrt"}, "speedup>=2 cannot be judged: the target cannot run here"),
        ({"require": "score>=-1pt"}, "cannot be judged without a metric"),
        ({"require": "map>=-1pt", "metric": "top1"}, "the metric in use is top1"),
        ({"require": "spedup>=2"}, "did you mean 'speedup'"),
        ({"require": "top1>=-1pt"}, "class number"),
    ],
)
def test_what_cannot_be_judged_is_wrong_usage(options, said):
    with pytest.raises(UsageError, match=said):
        optimize(CLASSIFIER, "simplify", **options)
