"""Errors inside a model, tensor by tensor."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, synthetic
from onnxopt.evaluation.layer_noise import measure_noise, quantizers, worst_spectra
from onnxopt.testing import parse_graph

INPUTS = (InputSpec("x", (1, 4), np.dtype(np.float32)),)

FLOAT = """(float[1,4] x) => (float[1,4] y) { a = Relu (x)  b = Sigmoid (a)  y = Neg (b) }"""
PAIRS = """(float[1,4] x) => (float[1,4] y) < float s = {0.25}, uint8 z = {0} > {
    a = Relu (x)  aq = QuantizeLinear (a, s, z)  af = DequantizeLinear (aq, s, z)
    b = Sigmoid (af)  y = Neg (b) }"""


@pytest.fixture
def samples():
    return synthetic(INPUTS, 8)


def test_a_tensor_is_read_behind_its_pair(samples):
    noise = measure_noise(parse_graph(FLOAT), parse_graph(PAIRS), INPUTS, samples)
    assert set(noise.sqnr_db) == {"a", "b", "y"}
    signal = error = 0.0
    for sample in samples:
        a = np.maximum(sample.feeds["x"], 0).astype(np.float64)
        rounded = np.clip(np.rint(a / 0.25), 0, 255) * 0.25
        signal, error = signal + (a**2).sum(), error + ((a - rounded) ** 2).sum()
    assert noise.sqnr_db["a"] == pytest.approx(10 * np.log10(signal / error))


def test_equal_models_are_equal_everywhere(samples):
    noise = measure_noise(parse_graph(FLOAT), parse_graph(FLOAT), INPUTS, samples)
    assert set(noise.sqnr_db.values()) == {np.inf}
    assert worst_spectra(parse_graph(FLOAT), noise, INPUTS, samples) == ()


def test_ranges_of_quantizers():
    found = quantizers(parse_graph(PAIRS))
    assert {name: (q.scale, q.low, q.high) for name, q in found.items()} == {"a": (0.25, 0.0, 63.75)}


def test_weights_and_channelwise_quantizers_are_left_out():
    graph = parse_graph("""(float[1,4] x) => (float[1,4] y) <
        float[4] s = {1,1,1,1}, int8[4] z = {0,0,0,0}, float t = {1}, int8 u = {0}, float[4] w = {1,2,3,4} > {
        q = QuantizeLinear <axis = 1> (x, s, z)  f = DequantizeLinear <axis = 1> (q, s, z)
        wq = QuantizeLinear (w, t, u)  wf = DequantizeLinear (wq, t, u)
        y = Add (f, wf) }""")
    assert quantizers(graph) == {}


def test_a_folded_normalization_is_compared_with_what_it_gave():
    inputs = (InputSpec("x", (1, 1, 4, 4), np.dtype(np.float32)),)
    samples = synthetic(inputs, 4)
    before = parse_graph("""(float[1,1,4,4] x) => (float[1,1,4,4] y) <
        float[1,1,1,1] w = {2}, float[1] g = {3}, float[1] b = {1}, float[1] m = {0}, float[1] v = {1} > {
        c = Conv (x, w)  n = BatchNormalization <epsilon = 0.0> (c, g, b, m, v)  y = Relu (n) }""")
    after = parse_graph("""(float[1,1,4,4] x) => (float[1,1,4,4] y) < float[1,1,1,1] w = {6}, float[1] b = {1} > {
        c = Conv (x, w, b)  y = Relu (c) }""")
    noise = measure_noise(before, after, inputs, samples)
    assert noise.counterparts["c"] == "n"
    assert noise.sqnr_db["c"] > 100


def test_a_tensor_in_other_terms_is_not_compared(samples):
    """Scaled by one layer and back by the next: nothing is wrong with it."""
    text = """(float[1,4] x) => (float[1,4] y) < float s = {%s}, float t = {%s} > {
        a = Mul (x, s)  r = Relu (a)  b = Mul (r, t)  y = Neg (b) }"""
    noise = measure_noise(parse_graph(text % (1, 1)), parse_graph(text % (8, 0.125)), INPUTS, samples)
    assert set(noise.sqnr_db) == {"b", "y"}


def test_tensors_of_other_shapes_are_not_compared(samples):
    other = parse_graph("(float[1,4] x) => (float[1,4] y) { a = Concat <axis = 1> (x, x)  y = Identity (x) }")
    assert set(measure_noise(parse_graph(FLOAT), other, INPUTS, samples).sqnr_db) == {"y"}


def test_spectra_count_every_value_and_what_is_clipped(samples):
    graph, text = parse_graph(FLOAT), PAIRS.replace("0.25", "0.001")
    noise = measure_noise(graph, parse_graph(text), INPUTS, samples)
    (found,) = worst_spectra(graph, noise, INPUTS, samples)
    values = np.concatenate([np.maximum(s.feeds["x"], 0).ravel() for s in samples])
    assert sum(found.counts) == values.size
    assert (found.tensor, found.low, found.high) == ("a", 0.0, pytest.approx(0.255))
    assert found.clipped == pytest.approx((values > 0.2555).mean(), abs=0.02)
    assert found.edges[0] == values.min()
    assert found.edges[-1] == pytest.approx(values.max())
