"""Clips between convolutions: the same outputs, all codes used, and only where a Clip can be moved."""

import numpy as np
import pytest

from onnxopt.analysis.recovery.centering import center, find_clips
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.collect import expose
from onnxopt.calibration.given import GivenRange, GivenRanges
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.placement import emit, plan
from onnxopt.targets.openvino import OPENVINO
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.center_clips import CenterClips

NET = """(float[1,8,9,9] x) => (float[1,8,9,9] y)
<float[32,8,1,1] w1, float[32] b1, float[8,32,1,1] w2, float[8] b2, float lo = {0}, float hi = {6}> {
  a = Conv (x, w1, b1)
  b = Clip (a, lo, hi)
  y = Conv (b, w2, b2)
}"""
LONGER = NET.replace(
    "float[8,32,1,1] w2, float[8] b2", "float[16,32,1,1] w2, float[16] b2, float[8,16,1,1] w3"
).replace("y = Conv (b, w2, b2)", "c = Conv (b, w2, b2)  y = Conv (c, w3)")
READ = "y = Conv (b, w2, b2)"
INPUTS = (InputSpec("x", (1, 8, 9, 9), np.dtype(np.float32)),)
SAMPLES = synthetic(INPUTS, 15)
FEEDS = next(iter(SAMPLES)).feeds


def seen(graph):
    return np.stack([outputs_of(expose(graph, ["b"]), s.feeds)["b"] for s in SAMPLES])


def ran(graph, *, artefact=None, target=TENSORRT, **options):
    fit, holdout = SAMPLES.split_holdout()
    context = Context(target, inputs=INPUTS, fit=fit, holdout=holdout)
    if artefact is not None:
        context.put(artefact)
    return run_pass(CenterClips(**options), graph, context, [])


@pytest.mark.parametrize(
    "text",
    [
        NET,
        NET.replace("x, w1, b1", "x, w1").replace("float[32] b1, ", ""),
        NET.replace("b, w2, b2", "b, w2").replace("float[8] b2, ", ""),
        NET.replace("float lo = {0}, float hi = {6}", "float[1] lo = {0}, float[1] hi = {6}"),
        NET.replace(READ, "c = Conv (b, w2, b2)  d = Conv (b, w2)  y = Add (c, d)"),
        NET.replace("float[8,32,1,1] w2", "float[8,8,1,1] w2").replace("Conv (b", "Conv <group = 4> (b"),
    ],
    ids=["biases", "no bias in front", "no bias behind", "bounds of one element", "two readers", "groups"],
)
def test_outputs_stay_and_what_the_clip_writes_is_centered(text):
    graph = parse_graph(text)
    before = outputs_of(graph, FEEDS)["y"]
    peak = seen(graph).max()
    assert peak > 0.1
    assert center(graph, find_clips(graph), {"b": peak}).by == {"b": pytest.approx(-peak / 2)}
    np.testing.assert_allclose(outputs_of(graph, FEEDS)["y"], before, rtol=0, atol=1e-5 * np.abs(before).max())
    assert seen(graph).max() == pytest.approx(peak / 2, rel=1e-5)
    assert seen(graph).min() == pytest.approx(-peak / 2, rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        NET.replace("Conv (b", "Conv <pads = [0, 0, 1, 0]> (b").replace("float[1,8,9,9] y", "float[1,8,10,9] y"),
        NET.replace("Conv (b", 'Conv <auto_pad = "SAME_UPPER"> (b'),
        NET.replace("b = Clip (a, lo, hi)", "b = Relu (a)"),
        NET.replace("float lo = {0}", "float lo = {-1}"),
        NET.replace("b = Clip (a, lo, hi)", "b = Clip (a, lo)"),
        NET.replace("a = Conv (x, w1, b1)", "z = Conv (x, w1, b1)  a = Tanh (z)"),
        NET.replace(READ, "c = Conv (b, w2, b2)  d = ReduceMax (b)  y = Add (c, d)"),
        NET.replace(READ, "c = Conv (b, w2, b2)  d = ReduceMax (a)  y = Add (c, d)"),
        NET.replace("(float[1,8,9,9] y)", "(float[1,8,9,9] y, float[1,32,9,9] b)"),
        NET.replace("=> (float[1,8,9,9] y)", "=> (float[8,1,9,9] y)").replace(
            READ, "p = Conv (x, w1, b1)  y = Conv (p, b)"
        ),
    ],
    ids=[
        "padding",
        "automatic padding",
        "relu",
        "from -1",
        "no upper bound",
        "another writer",
        "another reader",
        "unclipped values read",
        "an output",
        "read as weights",
    ],
)
def test_other_neighbours_are_left_alone(text):
    graph = parse_graph(text)
    assert not find_clips(graph)
    assert not ran(graph).changed


def test_what_others_share_stays_as_it_is():
    text = NET.replace("float hi = {6}>", "float hi = {6}, float[32,8,1,1] w3, float[8,32,1,1] w4>").replace(
        READ, "c = Conv (b, w2, b2)  d = Conv (x, w3, b1)  e = Clip (d, lo, hi)  f = Conv (e, w4, b2)  y = Add (c, f)"
    )
    graph = parse_graph(text)
    before = outputs_of(graph, FEEDS)["y"]
    first, _ = find_clips(graph)
    center(graph, [first], {"b": 4.0})
    np.testing.assert_allclose(outputs_of(graph, FEEDS)["y"], before, rtol=0, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("peak", [0.0, np.nan, np.inf])
def test_a_clip_without_a_finite_peak_stays(peak):
    graph = parse_graph(NET)
    assert not center(graph, find_clips(graph), {"b": peak}).by
    np.testing.assert_array_equal(outputs_of(graph, FEEDS)["y"], outputs_of(parse_graph(NET), FEEDS)["y"])


@pytest.mark.parametrize(("between", "helps"), [(True, True), (False, False)])
def test_stays_where_int8_gains(between, helps):
    graph = parse_graph(LONGER)
    if not between:  # nearly all values are 0 or 6, which have codes either way
        weight = graph.own_constant(graph.nodes[0], 1)
        weight.values = weight.values * 1000
    record = ran(graph)
    assert record.changed == helps
    assert record.options["keep"] is helps
    assert record.counts.get("clips centered", 0) == helps
    assert helps or "taken back" in record.notes[0][1]


def test_where_the_clip_lets_nothing_through_int8_layers_give_their_bias_and_no_more():
    centered = parse_graph(LONGER)
    bias = centered.own_constant(centered.nodes[0], 2)
    bias.values = np.full_like(bias.values, -100)
    shifts = center(centered, find_clips(centered), {"b": 6.0})
    table = CalibrationTable()
    for name, reach in {"x": 1.0, "b": 3.0, "c": 50.0}.items():
        table[name] = CalibrationEntry(-reach, reach, "minmax", 1)
    given = []
    for added in (None, shifts):
        graph = centered.copy()
        emit(graph, TENSORRT, plan(graph, TENSORRT, Shapes(*infer(graph))), table, shifts=added)
        given.append(outputs_of(expose(graph, ["c"]), FEEDS)["c"])
    own = parse_graph(LONGER).nodes[2].inputs[2].values.reshape(1, -1, 1, 1)
    assert np.abs(given[0] - own).max() > 0.01
    np.testing.assert_allclose(given[1], np.broadcast_to(own, given[1].shape), rtol=0, atol=1e-4)


@pytest.mark.parametrize("target", [ORT, OPENVINO])
def test_codes_for_what_is_never_negative_need_no_centering(target):
    record = ran(parse_graph(NET), target=target, keep=True)
    assert not record.changed


@pytest.mark.parametrize(
    ("artefact", "reason"),
    [
        (lambda path: TableFile.at(path / "t.json"), "a table of ranges"),
        (lambda _: GivenRanges({"b": GivenRange(0.0, 1.0, "uint8")}), "was quantized when it came"),
    ],
    ids=["a table", "came quantized"],
)
def test_where_ranges_are_given_activations_stay_as_they_are(artefact, reason, tmp_path):
    record = ran(parse_graph(NET), artefact=artefact(tmp_path), keep=True)
    assert not record.changed
    assert reason in record.notes[0][1]
