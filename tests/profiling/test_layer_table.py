"""One row per layer: types, error, time, and why not int8."""

import pytest

from onnxopt.evaluation.layer_noise import LayerNoise, Quantizer
from onnxopt.profiling.layer_table import Known, layer_table
from onnxopt.profiling.peaks import Peaks
from onnxopt.profiling.profile import LayerTime, Profile
from onnxopt.registry import load_target
from onnxopt.runtime.adapter import Kernels
from onnxopt.testing import parse_graph

GRAPH = """(float[1,4,8,8] x) => (float[1,4,8,8] y) <
    float s = {0.1}, uint8 z = {128}, float ws = {0.05}, int8 wz = {0}, int8[4,4,1,1] w1, float[4,4,1,1] w2
> {
    xq = QuantizeLinear (x, s, z)  xf = DequantizeLinear (xq, s, z)
    wf = DequantizeLinear (w1, ws, wz)
    a = Conv (xf, wf)
    r = Relu (a)
    rq = QuantizeLinear (r, s, z)  rf = DequantizeLinear (rq, s, z)
    y = Conv (rf, w2)
}"""
PEAKS = Peaks(1e9, 1e9, 1e9, 1e9)
NOISE = LayerNoise({"a": 30.0, "r": 28.0, "y": 25.0}, {"x": Quantizer(0.1, -1, 1), "r": Quantizer(0.2, 0, 50)}, {})


@pytest.fixture
def graph():
    found = parse_graph(GRAPH)
    for number, node in enumerate(found.nodes):
        node.name = f"{node.op}_{number}"
    return found


@pytest.fixture
def target():
    return load_target("ort-vnni")


def profile(*layers):
    return Profile("m", "m", "runtime 1", 1.0, 0.0, list(layers), PEAKS)


def known(**changes):
    kernels = Kernels(frozenset({"Conv_3"}), frozenset({"Conv_7"}))
    fields = {"kernels": kernels, "noise": NOISE, "profile": None, "before": None, "macs": {"Conv_3": 1024}}
    return Known(**{**fields, **changes})


def test_without_a_profile_every_node_has_a_row(graph, target):
    rows = {row.name: row for row in layer_table(graph, target, known())}
    assert list(rows) == ["Conv_3", "Relu_4", "Conv_7"]
    assert (rows["Conv_3"].int8, rows["Conv_3"].reason, rows["Conv_3"].macs) == (True, "", 1024)
    assert rows["Conv_7"].int8 is False
    assert rows["Conv_7"].reason.startswith("its input is quantized and its weights are not")
    assert rows["Relu_4"].int8 is None
    assert [row.sqnr_db for row in rows.values()] == [30.0, 28.0, 25.0]


def test_a_layer_has_the_scale_of_the_quantizer_behind_its_activation(graph, target):
    rows = {row.name: row for row in layer_table(graph, target, known())}
    assert (rows["Conv_3"].scale, rows["Relu_4"].scale, rows["Conv_7"].scale) == (0.2, 0.2, None)


def test_times_are_those_of_the_profile(graph, target):
    after = LayerTime("conv1", "Conv", precision="int8", milliseconds=1.0, conversions_ms=0.5, macs=9, nodes=["Conv_3"])
    after.bound = "compute"
    before = LayerTime("conv1", "Conv", milliseconds=4.0)
    (row,) = layer_table(graph, target, known(profile=profile(after), before=profile(before)))
    assert (row.name, row.kind, row.milliseconds, row.before_ms, row.bound) == ("conv1", "int8", 1.5, 4.0, "compute")
    assert (row.int8, row.macs) == (True, 9)


def test_a_layer_with_one_float_part_is_float(graph, target):
    both = LayerTime("split", "Conv", nodes=["Conv_3", "Conv_7"])
    (row,) = layer_table(graph, target, known(profile=profile(both)))
    assert row.int8 is False
    assert row.sqnr_db == 25.0


def test_what_was_not_measured_is_left_out(graph, target):
    rows = layer_table(graph, target, known(kernels=None, noise=None, macs={}))
    assert {(row.int8, row.sqnr_db, row.scale, row.macs) for row in rows} == {(None, None, None, None)}


def test_of_very_many_layers_the_slowest_are_shown(graph, target, monkeypatch):
    monkeypatch.setattr("onnxopt.profiling.layer_table.MOST", 2)
    layers = [LayerTime(name, "Add", milliseconds=ms) for name, ms in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    assert [row.name for row in layer_table(graph, target, known(profile=profile(*layers)))] == ["b", "c"]
