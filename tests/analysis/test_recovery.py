"""Refitting of int8 layers: each step against an oracle of its own."""

from dataclasses import replace

import numpy as np
import pytest

from onnxopt.analysis.recovery import Choices, Closeness, closeness, find_layers, recover, sweep
from onnxopt.analysis.recovery.moments import Moments, measure_moments
from onnxopt.analysis.recovery.patches import read_patches
from onnxopt.analysis.recovery.refit import Fitted, Problem, refit
from onnxopt.analysis.recovery.walk import Walk
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.collect import expose
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.kernels import round_rows
from onnxopt.placement import emit, plan
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets.openvino import OPENVINO
from onnxopt.targets.ort import ORT
from onnxopt.testing import outputs_of, parse_graph

NET = """(float[1,8,12,12] x) => (float[1,10] y)
<float[16,8,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[8,16,1,1] w3, float[10,8] g, float[10] gb> {
  a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1)
  b = Relu (a)
  c = Conv <pads = [2, 2, 2, 2], dilations = [2, 2], group = 16> (b, w2)
  d = Relu (c)
  e = Conv (d, w3)
  p = GlobalAveragePool (e)
  q = Flatten (p)
  y = Gemm <transB = 1> (q, g, gb)
}"""
POINTWISE = "(float[1,4,20,20] x) => (float[1,3,20,20] y) <float[3,4,1,1] w> { y = Conv (x, w) }"
INPUTS = (InputSpec("x", (1, 8, 12, 12), np.dtype(np.float32)),)


def quantized(target, *, narrow=1.0):
    """The float net and its int8 form; `narrow` cuts the ranges, so that values are clipped."""
    graph = parse_graph(NET)
    graph.name_nodes()
    samples = [s.feeds for s in synthetic(INPUTS, 6)]
    placement = plan(graph, target, Shapes(*infer(graph)))
    table = CalibrationTable()
    session = OrtSession(expose(graph, [n for n in placement.tensors if n != "x"]).to_proto())
    for name in placement.tensors:
        seen = np.stack([f[name] if name == "x" else session.run(f)[name] for f in samples])
        low, high = float(seen.min()), float(seen.max())
        table[name] = CalibrationEntry(min(low, 0.0) * narrow, max(high, 0.0) * narrow, "minmax", 6)
    reference = graph.copy()
    emit(graph, target, placement, table)
    return reference, graph, samples


def correlated(rows=600, length=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, 4)) @ rng.standard_normal((4, length))).astype(np.float32)


@pytest.mark.parametrize("name", ["a", "c", "e", "y"])
def test_rows_times_weights_are_the_layer(name):
    _, graph, samples = quantized(OPENVINO)
    layer = next(each for each in find_layers(graph) if each.output == name)
    patches = read_patches(layer.node, layer.codes.shape, most=10_000)
    given = OrtSession(expose(graph, [layer.input, name]).to_proto(), optimized=False).run(samples[0])
    rows, targets = patches.rows(given[layer.input], given[name])
    bias = layer.bias() if layer.bias() is not None else np.zeros(layer.channels, np.float32)
    groups, columns, _ = patches.shape
    computed = rows @ patches.matrix(layer.weight()).transpose(0, 2, 1) + bias.reshape(groups, 1, columns)
    np.testing.assert_allclose(computed, targets, rtol=0, atol=2e-5 * np.abs(targets).max())
    np.testing.assert_array_equal(patches.weight(patches.matrix(layer.codes)), layer.codes)


def test_a_walk_computes_what_one_run_computes():
    _, graph, samples = quantized(ORT)
    layers = find_layers(graph)
    whole = OrtSession(expose(graph, [each.input for each in layers]).to_proto(), optimized=False)
    wanted = [whole.run(f) for f in samples]
    walk = Walk(graph, samples, (), optimized=False)
    for layer in layers:
        walk.before(layer.node)
        for values, run in zip(walk.values(layer.input), wanted, strict=True):
            np.testing.assert_array_equal(values, run[layer.input])


def test_a_walk_sees_constants_changed_ahead_of_it():
    _, graph, samples = quantized(ORT)
    first, second = find_layers(graph)[:2]
    walk = Walk(graph, samples, (), optimized=False)
    walk.before(first.node)
    first.prepare(integer_bias=True, with_bias=False)
    first.set_weight(np.zeros_like(first.codes), first.scale)
    walk.before(second.node)
    changed = OrtSession(expose(graph, [second.input]).to_proto(), optimized=False).run(samples[0])
    np.testing.assert_array_equal(next(walk.values(second.input)), changed[second.input])


@pytest.mark.parametrize("target", [ORT, OPENVINO], ids=lambda t: t.name)
def test_bias_correction_takes_the_mean_error_away(target):
    reference, graph, samples = quantized(target, narrow=0.9)
    name = find_layers(graph)[-2].output

    def mean_error(rounded):
        sessions = [OrtSession(expose(g, [name]).to_proto(), optimized=False) for g in (reference, rounded)]
        wanted, got = (np.stack([s.run(f)[name] for f in samples]) for s in sessions)
        return np.abs((wanted - got).mean(axis=(0, 1, 3, 4))).max()

    before = mean_error(graph)
    assert recover(graph, reference, target, samples, Choices(bias=True)) == len(find_layers(graph))
    assert mean_error(graph) < 0.3 * before  # not 0: errors are weighted, so that outliers do not decide


def test_refitting_brings_the_outputs_closer():
    reference, graph, samples = quantized(ORT, narrow=0.9)
    judged = list(synthetic(INPUTS, 6))
    choosing = [s.feeds for s in synthetic(INPUTS, 9)][6:]
    before = closeness(graph, reference, judged).sqnr_db
    recover(graph, reference, ORT, samples, Choices(bias=True, refit=True), judged=choosing)
    assert closeness(graph, reference, judged).sqnr_db > before + 1
    assert np.isfinite(outputs_of(graph, samples[0])["y"]).all()


def test_no_step_changes_nothing():
    reference, graph, samples = quantized(ORT)
    before = outputs_of(graph, samples[0])["y"]
    recover(graph, reference, ORT, samples, Choices())
    np.testing.assert_array_equal(outputs_of(graph, samples[0])["y"], before)


def fitted(rows, weight, choices, *, limit=7):
    """Squared error of a layer's outputs with weights rounded to nearest, and with fitted ones."""
    squares = (rows.T @ rows)[None].astype(np.float64) / len(rows)
    products = weight.astype(np.float64) @ squares
    moments = Moments(len(rows), np.zeros((1, rows.shape[1])), np.zeros((1, weight.shape[1])), squares, products)
    scale = (np.abs(weight).max(axis=-1) / limit).astype(np.float32)
    codes = np.clip(np.rint(weight / scale[..., None]), -limit, limit).astype(np.int8)
    start = Fitted(codes, scale, None)
    found = refit(Problem(moments, weight, start, limit), choices)
    return [np.square(rows @ (weight - f.codes * f.scale[..., None])[0].T).sum() for f in (start, found)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [("rounding",), ("scales",), ("scales", "rounding")])
def test_rounding_to_the_inputs_beats_rounding_to_nearest_where_inputs_are_correlated(seed, steps):
    weight = np.random.default_rng(seed + 10).standard_normal((1, 16, 24)).astype(np.float32)
    nearest, found = fitted(correlated(seed=seed), weight, Choices(**dict.fromkeys(steps, True)))
    assert found < nearest * (0.5 if "rounding" in steps else 1.1)


@pytest.mark.parametrize("zeros", [0.5, 0.1])
def test_zeros_of_a_sparse_layer_stay(zeros):
    generator = np.random.default_rng(3)
    weight = generator.standard_normal((1, 16, 24)).astype(np.float32)
    gone = generator.random(weight.shape) < zeros
    weight[gone] = 0
    rows = correlated(seed=3)
    squares = (rows.T @ rows)[None].astype(np.float64) / len(rows)
    moments = Moments(
        len(rows), np.zeros((1, 24)), np.zeros((1, 16)), squares, 1.3 * weight.astype(np.float64) @ squares
    )
    start = Fitted(np.zeros(weight.shape, np.int8), np.full((1, 16), 0.02, np.float32), None)
    choices = Choices(refit=True, scales=True, rounding=True)
    found = refit(Problem(moments, weight, start, 127), choices)
    assert (found.codes[gone] == 0).all() == (zeros == 0.5)
    assert found.codes[~gone].any()


def moments_of(rows, targets):
    """Moments of a layer of one group, each row with the same weight."""
    means = [a.mean(axis=0) for a in (rows, targets)]
    apart = [a - mean for a, mean in zip((rows, targets), means, strict=True)]
    covariance, shared = (np.mean(a[:, :, None] * apart[0][:, None, :], axis=0)[None] for a in apart)
    return Moments(len(rows), means[0][None], means[1][None], covariance, shared)


@pytest.mark.parametrize(("shift", "refitted"), [(0.0, False), (0.5, True)])
def test_samples_that_nothing_is_fitted_to_choose_how_far_weights_go(shift, refitted):
    """Noise in 30 rows of 24 values is not to be learnt by heart; a gain that all rows share is."""
    random = np.random.default_rng(4)
    weight = random.standard_normal((1, 8, 24)).astype(np.float32)
    sets = [random.standard_normal((count, 24)) for count in (30, 200, 2000)]
    wanted = [rows @ weight[0].T * (1 + shift) + 3 * random.standard_normal((len(rows), 8)) for rows in sets]
    moments, judged, _ = (moments_of(r, t) for r, t in zip(sets, wanted, strict=True))
    scale = (np.abs(weight).max(axis=-1) / 127).astype(np.float32)
    start = Fitted(np.rint(weight / scale[..., None]).astype(np.int8), scale, np.zeros(8, np.float32))
    problem = Problem(moments, weight, start, 127)
    blind, chosen = (refit(problem, Choices(refit=True), j) for j in (None, judged))

    def error(found):
        given = sets[2] @ (found.codes * found.scale[..., None])[0].T + found.bias
        return float(np.square(wanted[2] - given).mean())

    assert error(chosen) <= error(blind)
    assert error(chosen) <= error(start) * 1.01
    assert np.array_equal(chosen.codes, start.codes) != refitted


def test_without_correlation_rounding_is_rounding_to_nearest():
    weight = np.random.default_rng(0).standard_normal((2, 5, 9)).astype(np.float32)
    scale = np.full((2, 5), 0.1, np.float32)
    identity = np.broadcast_to(np.eye(9, dtype=np.float32), (2, 9, 9))
    codes = round_rows(weight, scale, identity, qmin=-127, qmax=127)
    np.testing.assert_array_equal(codes, np.rint(weight / np.float32(0.1)).astype(np.int8))


def test_one_wild_row_does_not_decide_the_bias():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 6, 20, 20)).astype(np.float32)
    graph = parse_graph("(float[1,6,20,20] x) => (float[1,4,20,20] y) <float[4,6,1,1] w> { y = Conv (x, w) }")
    weight = graph.nodes[0].inputs[1].values
    patches = read_patches(graph.nodes[0], weight.shape, most=400)
    wanted = outputs_of(graph, {"x": rows})["y"] + 0.01 * rng.standard_normal((1, 4, 20, 20)).astype(np.float32)
    wanted[0, :, 3, 3] += 1000
    matrix = patches.matrix(weight)
    moments = measure_moments(patches, [(rows, wanted)], matrix, np.zeros((1, 4), np.float32))
    offset = moments.wanted - np.einsum("gcl,gl->gc", matrix, moments.inputs)
    assert np.abs(offset).max() < 0.01


def test_moments_of_inputs_far_from_zero_keep_their_small_variance():
    rows = (1000 + 0.01 * np.random.default_rng(2).standard_normal((1, 400, 4))).astype(np.float32)
    patches = read_patches(parse_graph(POINTWISE).nodes[0], (3, 4, 1, 1), most=400)
    wanted = np.zeros((1, 3, 20, 20), np.float32)
    values = rows[0].T.reshape(1, 4, 20, 20)
    matrix, offset = np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), np.float32)
    moments = measure_moments(patches, [(values, wanted)], matrix, offset)
    exact = np.cov(rows[0].T.astype(np.float64), bias=True)
    np.testing.assert_allclose(moments.covariance[0], exact, atol=0.02 * exact.max())


def test_a_layer_of_more_inputs_than_rows_can_tell_about_gets_its_bias_right_and_keeps_its_weights(monkeypatch):
    monkeypatch.setattr(sweep, "LONGEST", 16)
    reference, graph, samples = quantized(OPENVINO, narrow=0.6)
    before = {layer.output: layer.codes.copy() for layer in find_layers(graph)}
    recover(graph, reference, OPENVINO, samples, Choices(bias=True, refit=True))
    same = {layer.output: np.array_equal(layer.codes, before[layer.output]) for layer in find_layers(graph)}
    assert same["a"]  # 8 channels of 3 x 3
    assert not same["e"]  # 16 channels
    session, wanted = OrtSession(expose(graph, ["a"]).to_proto()), OrtSession(expose(reference, ["a"]).to_proto())
    means = [np.mean([s.run(f, ["a"])["a"].mean(axis=(0, 2, 3)) for f in samples], axis=0) for s in (session, wanted)]
    np.testing.assert_allclose(*means, atol=0.02 * np.abs(means[1]).max())


def test_rounding_stays_only_where_samples_that_it_was_not_fitted_to_gain():
    random = np.random.default_rng(5)
    weight = random.standard_normal((1, 8, 24)).astype(np.float32)
    mixing = random.standard_normal((24, 24))
    alike, unlike = random.standard_normal((200, 24)) @ mixing, random.standard_normal((200, 24))
    scale = (np.abs(weight).max(axis=-1) / 7).astype(np.float32)
    nearest = np.clip(np.rint(weight / scale[..., None]), -7, 7).astype(np.int8)
    problem = Problem(moments_of(alike, alike @ weight[0].T), weight, Fitted(nearest, scale, None), 7)
    kept, taken_back = (
        refit(problem, Choices(rounding=True), moments_of(rows, rows @ weight[0].T)).codes for rows in (alike, unlike)
    )
    assert (kept != nearest).any()
    np.testing.assert_array_equal(taken_back, nearest)


def test_one_answer_of_few_that_turns_says_nothing():
    before, after = Closeness({"y": 20.0}, 1.0, 16), Closeness({"y": 22.0}, 1 - 1 / 16, 16)
    assert after.improves(before)
    assert not Closeness({"y": 22.0}, 1 - 2 / 16, 16).improves(before)
    assert not replace(after, answers=400).improves(replace(before, answers=400))


def test_closer_numbers_do_not_make_up_for_other_answers():
    before = Closeness({"boxes": 20.0, "scores": 10.0}, 0.9)
    assert Closeness({"boxes": 19.0, "scores": 11.0}, 0.9).improves(before)
    assert Closeness({"boxes": 19.0, "scores": 11.0}, None).improves(before)
    assert not Closeness({"boxes": 30.0, "scores": 10.0}, 0.95).improves(before)
    assert not Closeness({"boxes": 30.0, "scores": 20.0}, 0.85).improves(before)
