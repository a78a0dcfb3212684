"""Activations in front of depthwise convolutions: the same outputs, better ones in int8, and only where it holds."""

import numpy as np
import pytest

from onnxopt.analysis.recovery.equalization import ROOM, STRONGEST, find_depthwise, strengthen
from onnxopt.calibration.collect import expose
from onnxopt.calibration.given import GivenRange, GivenRanges
from onnxopt.calibration.store import TableFile
from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.equalize_activations import EqualizeActivations

NET = """(float[1,8,9,9] x) => (float[1,8,9,9] y)
<float[16,8,1,1] w1, float[16] b1, float[16,1,3,3] w2, float[8,16,1,1] w3, float lo = {0}, float hi = {6}> {
  a = Conv (x, w1, b1)
  b = Clip (a, lo, hi)
  c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
  y = Conv (c, w3)
}"""
CLIP = "b = Clip (a, lo, hi)"
INPUTS = (InputSpec("x", (1, 8, 9, 9), np.dtype(np.float32)),)
FEEDS = next(iter(synthetic(INPUTS, 1))).feeds


def network(text=NET, *, spread=30.0):
    """Channels between the first two Conv differ by `spread`; the second takes that back."""
    graph = parse_graph(text)
    first, middle, _ = graph.nodes_of("Conv")
    uneven = np.geomspace(1 / spread, 1, 16).astype(np.float32)
    for node, index, factor in ((first, 1, uneven), (first, 2, uneven), (middle, 1, 1 / uneven)):
        constant = graph.own_constant(node, index)
        constant.values = constant.values * factor.reshape(-1, *[1] * (constant.values.ndim - 1))
    return graph


def peaks_of(graph):
    name = find_depthwise(graph)[0][1].inputs[0].name
    values = outputs_of(expose(graph, [name]), FEEDS)[name]
    return {name: np.abs(values).max(axis=(0, 2, 3)).astype(np.float64)}


def ran(graph, *, made_up=False, artefact=None, samples=15, **options):
    fit, holdout = synthetic(INPUTS, samples).split_holdout()
    context = Context(TENSORRT, inputs=INPUTS, fit=fit, holdout=holdout, synthetic=made_up)
    if artefact is not None:
        context.put(artefact)
    return run_pass(EqualizeActivations(**options), graph, context, [])


@pytest.mark.parametrize(
    "text",
    [NET, NET.replace(CLIP, "b = Relu (a)"), NET.replace(CLIP, "b = LeakyRelu <alpha = 0.1> (a)")],
    ids=["clip", "relu", "leaky"],
)
def test_outputs_stay_and_all_channels_reach_as_far(text):
    graph = network(text)
    before, peaks = outputs_of(graph, FEEDS)["y"], peaks_of(graph)
    assert strengthen(graph, find_depthwise(graph), peaks) > 8
    np.testing.assert_allclose(outputs_of(graph, FEEDS)["y"], before, rtol=0, atol=1e-5 * np.abs(before).max())
    ((name, reached),) = peaks_of(graph).items()
    weak = (peaks[name] > 0) & (peaks[name] * ROOM * STRONGEST > peaks[name].max())
    assert weak.sum() > 8
    assert (reached[weak] > 0.999 * peaks[name].max() / ROOM).all()
    assert reached.max() < 1.001 * peaks[name].max()


def test_a_channel_without_values_keeps_its_weights():
    graph = network()
    peaks = {name: np.where(np.arange(16) < 3, 0.0, peak) for name, peak in peaks_of(graph).items()}
    first = next(iter(graph.nodes_of("Conv")))
    before = graph.constant(first.inputs[1]).copy()
    strengthen(graph, find_depthwise(graph), peaks)
    np.testing.assert_array_equal(graph.constant(first.inputs[1])[:3], before[:3])


@pytest.mark.parametrize(
    "text",
    [
        NET.replace(CLIP, "b = Sigmoid (a)"),
        NET.replace("float lo = {0}", "float lo = {-1}"),
        NET.replace("w2, float[8,16,1,1]", "w0, float[16,16,3,3] w2, float[8,16,1,1]").replace(
            "group = 16", "group = 1"
        ),
        NET.replace("y = Conv (c, w3)", "d = Conv (c, w3)  e = ReduceMax (b)  y = Add (d, e)"),
    ],
    ids=["sigmoid", "clip below 0", "not depthwise", "read by others"],
)
def test_other_neighbours_are_left_alone(text):
    graph = parse_graph(text)
    assert not find_depthwise(graph)
    assert not ran(graph).changed


def test_stays_where_int8_gains_and_is_taken_back_where_it_does_not():
    even = network(spread=1.0)
    bias = even.own_constant(next(iter(even.nodes_of("Conv"))), 2)
    bias.values = bias.values + 4
    helped, not_helped = ran(network(spread=60.0)), ran(even)
    assert helped.changed
    assert helped.options["keep"] is True
    assert helped.counts["channels scaled"] > 8
    assert not not_helped.changed
    assert not_helped.options["keep"] is False
    assert "taken back" in not_helped.notes[0][1]


@pytest.mark.parametrize("few", [{"made_up": True}, {"samples": 6}], ids=["made up", "few"])
def test_samples_that_do_not_tell_what_channels_reach(few):
    record = ran(network(spread=60.0), **few)
    assert not record.changed
    assert "8 real samples and more tell" in record.notes[0][1]


def test_with_a_table_weights_stay_as_its_ranges_know_them(tmp_path):
    record = ran(network(spread=60.0), artefact=TableFile.at(tmp_path / "t.json"), keep=True)
    assert not record.changed
    assert "ranges in a table" in record.notes[0][1]


@pytest.mark.parametrize("peak", [1.0, np.nan, np.inf])
def test_nothing_to_scale_leaves_the_graph_as_it_is(peak):
    graph = network()
    shared = next(iter(graph.nodes_of("Conv"))).inputs[1]
    (name,) = peaks_of(graph)
    peaks = np.ones(16)
    peaks[3] = peak
    assert strengthen(graph, find_depthwise(graph), {name: peaks}) == 0
    assert next(iter(graph.nodes_of("Conv"))).inputs[1] is shared
    assert all(np.isfinite(graph.constant(n.inputs[1])).all() for n in graph.nodes_of("Conv"))


def test_bounds_of_one_element_are_bounds():
    text = NET.replace("float lo = {0}, float hi = {6}", "float[1] lo = {0}, float[1] hi = {6}")
    assert find_depthwise(parse_graph(text))


def test_a_model_that_came_quantized_keeps_its_weights():
    record = ran(network(spread=60.0), artefact=GivenRanges({"b": GivenRange(0.0, 1.0, "uint8")}), keep=True)
    assert not record.changed
    assert "was quantized when it came" in record.notes[0][1]
