"""The whole corridor from Python, on the trained models of `testdata/`."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from onnxopt import Pass, UsageError, load, optimize
from onnxopt.errors import OptimizationError
from onnxopt.registry import load_target
from onnxopt.report.run import SCHEMA
from onnxopt.runtime.ort import OrtSession
from onnxopt.testing import parse_graph

TESTDATA = Path(__file__).parents[1] / "testdata"
CLASSIFIER, DETECTOR = TESTDATA / "patches_classifier.onnx", TESTDATA / "shapes_detector.onnx"
CALIBRATION, SCORING = TESTDATA / "patches" / "train.csv", TESTDATA / "patches" / "val.csv"


@pytest.fixture(scope="module")
def quantized():
    return optimize(CLASSIFIER, "quantize", data=CALIBRATION, preprocess="imagenet", eval_data=SCORING, metric="top1")


def test_quantized_classifier_keeps_its_accuracy(quantized):
    before, after = quantized.report.before.score, quantized.report.after.score
    assert before > 0.9
    assert after > before - 0.03


def test_the_runtime_itself_says_that_it_runs_in_int8(quantized):
    assert quantized.report.after.int8_share > 0.9
    assert [u["reason"] for u in quantized.report.unfused] == ["stem: few input channels run faster in float"]


def test_the_file_is_a_third_and_carries_its_history(quantized, tmp_path):
    file = tmp_path / "out.onnx"
    quantized.save(file)
    assert file.stat().st_size < 0.35 * CLASSIFIER.stat().st_size
    metadata = load(file).metadata
    assert metadata["onnxopt.target"] == load_target("ort").name
    assert "insert-qdq" in metadata["onnxopt.recipe"]


def test_report_follows_its_schema(quantized):
    jsonschema.validate(json.loads(quantized.report.to_json()), json.loads(SCHEMA.read_text()))


def test_resolved_recipe_gives_the_same_bytes_twice(quantized):
    digests = {optimize(CLASSIFIER, recipe=quantized.recipe).graph.digest() for _ in range(2)}
    assert digests == {quantized.graph.digest()}


def test_metadata_and_class_names_survive():
    before = load(DETECTOR).metadata
    after = optimize(DETECTOR, "simplify").graph.metadata
    assert before["names"]
    assert before.items() <= after.items()


def test_protobuf_given_is_not_changed():
    model = onnx.load(CLASSIFIER)
    before = model.SerializeToString(deterministic=True)
    result = optimize(model, "simplify")
    assert model.SerializeToString(deterministic=True) == before
    assert len(result.model.graph.node) < len(model.graph.node)


class Lonely(Pass):
    """Put a Q/DQ pair around every Relu, which only costs time."""

    name = "lonely"
    effect = "lossy"

    def run(self, graph, context):
        parameters = [np.asarray(0.05, np.float32), np.asarray(0, np.uint8)]
        for node in graph.nodes_of("Relu", "Clip"):
            tensor, readers = node.outputs[0], graph.consumers(node.outputs[0])
            for _ in range(40):  # so that no noise hides it
                codes = graph.add_node("QuantizeLinear", [tensor, *parameters]).outputs[0]
                tensor = graph.add_node("DequantizeLinear", [codes, *parameters]).outputs[0]
                tensor = graph.add_node("Tanh", [tensor]).outputs[0]
            graph.replace_uses(node.outputs[0], tensor, readers)
        return True


def test_a_slower_stage_is_undone_with_the_reason():
    result = optimize(CLASSIFIER, [Lonely()])
    [stage] = result.report.stages
    assert not stage.kept
    assert "slower on ort" in stage.reason
    assert [n.op for n in result.graph.nodes] == [n.op for n in load(CLASSIFIER).nodes]
    assert result.recipe.pipeline.entries == ()


def test_keep_anyway_undoes_nothing():
    result = optimize(CLASSIFIER, [Lonely()], keep_anyway=True)
    assert any(n.op == "QuantizeLinear" for n in result.graph.nodes)


class Poison(Pass):
    """Make an output NaN."""

    name = "poison"
    effect = "lossy"

    def run(self, graph, context):
        node = graph.producer(graph.outputs[0])
        weight = graph.own_constant(node, 1)
        weight.values = weight.values * np.float32("nan")
        return True


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(OptimizationError, match=r"[Nn]a[Nn]|finite"):
        optimize(CLASSIFIER, [Poison()])


def test_own_metric_and_arrays_as_data():
    feeds = [{"input": np.random.default_rng(i).random((1, 3, 64, 64), dtype=np.float32)} for i in range(4)]
    result = optimize(CLASSIFIER, "simplify", data=feeds, metric=lambda outputs, sample: float(outputs["logits"].max()))
    assert result.report.after.score == pytest.approx(result.report.before.score, rel=1e-4)


def test_without_data_it_says_that_accuracy_is_unverified():
    result = optimize(CLASSIFIER, "quantize")
    assert any("accuracy is unverified" in warning for warning in result.report.warnings)
    session = OrtSession(result.model)
    assert np.isfinite(session.run({"input": np.ones((1, 3, 64, 64), np.float32)})["logits"]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"passes": "qantize"}, "did you mean 'quantize'"),
        ({"passes": "simplify", "target": "otr"}, "did you mean 'ort'"),
        ({"passes": "insert-qdq"}, "CalibrationTable"),
        ({"passes": "simplify", "metric": "topp1"}, "did you mean 'top1'"),
        ({"passes": "simplify", "data": "nowhere.csv"}, "nowhere.csv"),
        ({}, "nothing to do"),
    ],
)
def test_wrong_requests_are_one_sentence(options, said):
    with pytest.raises(UsageError, match=said):
        optimize(CLASSIFIER, **options)


@pytest.mark.parametrize(("ratio", "ruined"), [(0.0, False), (0.99, True)])
def test_a_ruined_model_is_called_one(ratio, ruined):
    net = """(float[1,3,8,8] x) => (float[1,4,8,8] y) <float[64,3,1,1] w1, float[4,64,1,1] w2> {
        a = Conv (x, w1) b = Relu (a) y = Conv (b, w2) }"""
    passes = f"prune{{ratio={ratio}, align=1, compensation=false}}"
    report = optimize(parse_graph(net), passes, keep_anyway=True).report
    assert any("hardly those of the model" in warning for warning in report.warnings) == ruined


class Idle(Pass):
    """Does nothing.

    Effect: exact. Nothing changes.
    """

    name = "idle"
    effect = "exact"

    def run(self, graph, context):
        return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": CLASSIFIER.read_bytes()}, "model is a value of type bytes; give a file"),
        ({"model": None}, "model is a value of type NoneType"),
        ({"target": 3}, "target is a value of type int; give a name"),
        ({"require": ["size<=3MB"]}, "require is a value of type list; give gates in one text"),
        ({"samples": 1.5}, "samples is a value of type float; give a whole number"),
        ({"input_shapes": [1]}, "input_shapes is a value of type list"),
        ({"passes": 1}, "passes: a value of type int"),
        ({"passes": [1]}, "passes: a value of type int"),
        ({"passes": [Idle]}, r"Idle is a class; give one of it, Idle\(\)"),
    ],
)
def test_arguments_of_other_types_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        optimize(**{"model": CLASSIFIER, "passes": "simplify", **arguments})
