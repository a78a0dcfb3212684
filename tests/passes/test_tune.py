"""Kinds of layers are told apart, slower kinds stay float, and nothing is measured unless asked for."""

import numpy as np
import pytest

from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.placement import FloatNodes, plan
from onnxopt.runtime.latency import Latency, Spread
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph
from onnxopt_passes import tune
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ
from onnxopt_passes.tune import Tune

NET = """(float[1,3,12,12] x) => (float[1,16,8,8] y)
<float[16,3,1,1] w1, float[16,1,3,3] w2, float[8,16,1,1] w3, float[32,8,1,1] w4, float[16,32,3,3] w5> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv <group = 16> (b, w2)
  d = Relu (c)
  e = Conv (d, w3)
  f = Relu (e)
  g = Conv (f, w4)
  h = Relu (g)
  y = Conv (h, w5)
}"""
INPUTS = (InputSpec("x", (1, 3, 12, 12), np.dtype(np.float32)),)


def calibrated():
    graph = parse_graph(NET)
    graph.name_nodes()
    context = Context(ORT, inputs=INPUTS, fit=synthetic(INPUTS, 2), holdout=synthetic(INPUTS, 2))
    run_pass(Calibrate(), graph, context, [])
    return graph, context


def latency(speedup, spread):
    return Latency("x", Spread(1.0, 0.0), Spread(speedup, spread))


def test_kinds_are_told_apart():
    graph, _ = calibrated()
    every_conv = {"stem": ("a",), "depthwise": ("c",), "narrow": ("e", "g"), "final": ("y",)}
    placement = plan(graph, ORT, Shapes(*infer(graph)))
    found = tune._kinds(graph, placement)
    assert found.items() <= every_conv.items()
    assert {"narrow", "depthwise"} <= found.keys()  # the table of `ort` itself keeps stem and final layers float


def test_off_it_does_nothing():
    graph, context = calibrated()
    run_pass(Tune(), graph, context, [])
    assert not context.has(FloatNodes)


def test_given_nodes_stay_float_beside_those_of_keep_float():
    graph, context = calibrated()
    context.put(FloatNodes(("g",)))
    run_pass(Tune(nodes=("e",)), graph, context, [])
    assert context.get(FloatNodes).names == ("g", "e")
    run_pass(InsertQDQ(), graph, context, [])
    weights = {t.name for n in graph.nodes_of("Conv") for t in n.inputs[1:2]}
    assert {"w3", "w4"} <= weights
    assert "w2" not in weights


def test_an_unknown_node_is_refused():
    graph, context = calibrated()
    with pytest.raises(UsageError, match="no node writes a tensor 'nothing'"):
        run_pass(Tune(nodes=("nothing",)), graph, context, [])


def test_measuring_names_nodes_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(tune, "SECONDS", 0.01)
    graph, context = calibrated()
    record = run_pass(Tune(on=True), graph, context, [])
    assert set(context.get(FloatNodes).names) <= {"c", "e", "g"}
    assert record.options["nodes"] == context.get(FloatNodes).names
    assert record.details["tune"][0].startswith("int8: ")


def test_what_was_timed_in_vain_is_named(monkeypatch):
    monkeypatch.setattr(tune, "SECONDS", 0.01)
    monkeypatch.setattr(tune, "_surely_faster", lambda latency, rounds: False)
    graph, context = calibrated()
    record = run_pass(Tune(on=True), graph, context, [])
    assert context.get(FloatNodes).names == ()
    assert record.notes[-1][1] == "nothing is faster in float: depthwise, narrow were timed"


@pytest.mark.parametrize(
    ("found", "rounds", "sure"),
    [(latency(1.02, 0.03), 200, True), (latency(1.02, 0.03), 10, False), (latency(0.9, 0.0), 200, False)],
)
def test_faster_means_by_more_than_chance(found, rounds, sure):
    assert tune._surely_faster(found, rounds) is sure
