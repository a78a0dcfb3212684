"""Q/DQ pairs: emitted as ONNX Runtime fuses them, and computing what they say."""

import numpy as np
import pytest

from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.targets.ort import ORT
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ

NET = """(float[1,3,16,16] x) => (float[1,10] y)
<float[8,3,3,3] s, float[8] sb, float[8,8,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[16,16,1,1] w3,
 float[10,16] g, float[10] gb, float lo = {0}, float hi = {6}> {
  a = Conv <pads = [1, 1, 1, 1]> (x, s, sb)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, w1, b1)
  d = Clip (c, lo, hi)
  e = Conv <pads = [1, 1, 1, 1], group = 8> (d, w2, b2)
  r = Add (e, b)
  k = Concat <axis = 1> (r, d)
  f = Conv (k, w3)
  p = GlobalAveragePool (f)
  q = Flatten (p)
  y = Gemm <transB = 1> (q, g, gb)
}"""


def quantized(text=NET, **options):
    graph = parse_graph(text)
    graph.name_nodes()
    inputs = (InputSpec("x", (1, 3, 16, 16), np.dtype(np.float32)),)
    data = synthetic(inputs, 6)
    context = Context(ORT, inputs=inputs, fit=data)
    before = graph.copy()
    run_pass(Calibrate(), graph, context, [])
    record = run_pass(InsertQDQ(**options), graph, context, [])
    return before, graph, record, data


def test_every_weighted_layer_but_the_stem_runs_in_int8():
    _, graph, _, _ = quantized()
    kernels = OrtRuntime().kernels(graph.to_proto())
    assert sorted(kernels.int8) == ["Conv_1", "Conv_2", "Conv_3", "Gemm"]
    assert sorted(kernels.floating) == ["Conv"]


def test_outputs_depend_on_the_input_and_stay_close():
    before, graph, _, data = quantized()
    first, second = [s.feeds for s in data][:2]
    wanted, other, got = outputs_of(before, first)["y"], outputs_of(before, second)["y"], outputs_of(graph, first)["y"]
    assert np.abs(wanted - other).max() > 0.01 * np.abs(wanted).max()
    noise = ((wanted - got) ** 2).sum()
    assert 10 * np.log10((wanted**2).sum() / noise) > 20


def test_equals_the_same_rounding_spelled_out_in_float():
    before, graph, _, data = quantized()
    reference = InsertQDQ().reference(before, graph)
    feeds = next(iter(data)).feeds
    wanted, got = outputs_of(reference, feeds)["y"], outputs_of(graph, feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_relu6_keeps_its_bounds():
    _, graph, _, _ = quantized()
    values = {c.name: c.values for c in graph.initializers()}
    assert values["d_zero_point"] == 0
    assert values["d_scale"] <= np.float32(6 / 255)


def test_bias_is_int32_with_the_product_of_the_scales():
    _, graph, _, _ = quantized()
    values = {c.name: c.values for c in graph.initializers()}
    assert values["b1_quantized"].dtype == np.int32
    np.testing.assert_array_equal(values["b1_scale"], values["b_scale"] * values["w1_scale"])


def test_all_channels_zero_do_not_divide_by_zero():
    zeros = ", ".join(["0"] * 576)
    text = NET.replace("float[8,8,3,3] w1", f"float[8,8,3,3] w1 = {{{zeros}}}")
    _, graph, _, data = quantized(text)
    feeds = next(iter(data)).feeds
    assert np.isfinite(outputs_of(graph, feeds)["y"]).all()


def test_an_excluded_layer_really_stays_float():
    _, graph, record, _ = quantized(ignore=("Conv_2",))
    kernels = OrtRuntime().kernels(graph.to_proto())
    assert "Conv_2" in kernels.floating
    assert ("Conv 'Conv_2'", "asked to stay float") in record.notes


@pytest.mark.parametrize("ignore", ["Conv_2", "Conv_*", "d"])
def test_names_patterns_and_outputs_may_be_excluded(ignore):
    assert quantized(ignore=(ignore,))[2].notes


@pytest.mark.parametrize("ignore", ["Cnv_2", "nothing*"])
def test_a_pattern_that_matches_nothing_is_refused(ignore):
    graph = parse_graph(NET)
    context = Context(ORT)
    context.put(CalibrationTable())
    with pytest.raises(UsageError, match=r"insert-qdq: '.*' matches no node; names look like \['"):
        run_pass(InsertQDQ(ignore=(ignore,)), graph, context, [])


def test_quantized_models_are_refused():
    _, graph, _, _ = quantized()
    context = Context(ORT)
    context.put(CalibrationTable())
    with pytest.raises(UsageError, match="quantized already"):
        run_pass(InsertQDQ(), graph, context, [])


def test_needs_opset_13():
    graph = parse_graph(NET, opset=12)
    context = Context(ORT)
    context.put(CalibrationTable())
    with pytest.raises(UsageError, match="upgrade-opset"):
        run_pass(InsertQDQ(), graph, context, [])


def test_nothing_to_quantize_changes_nothing_and_says_so():
    graph = parse_graph("(float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu (x) }")
    context = Context(ORT)
    context.put(CalibrationTable())
    record = run_pass(InsertQDQ(), graph, context, [])
    assert not record.changed
    assert "nothing to quantize" in record.notes[0][1]


def test_a_range_that_calibration_did_not_see_is_named():
    graph = parse_graph(NET)
    context = Context(ORT)
    context.put(CalibrationTable())
    with pytest.raises(UsageError, match="no range for tensor"):
        run_pass(InsertQDQ(), graph, context, [])


def test_what_only_a_nested_graph_reads_is_quantized_outside_of_it():
    before, graph, _, data = quantized("""(float[1,3,16,16] x) => (float[1,8,16,16] y)
        <float[8,3,3,3] s, float[8,8,1,1] w, bool c = {1}> {
        a = Conv <pads = [1, 1, 1, 1]> (x, s)
        b = Relu (a)
        d = Conv (b, w)
        e = Relu (d)
        y = If (c) <then_branch = t () => (float[1,8,16,16] p) { p = Neg (e) },
            else_branch = f () => (float[1,8,16,16] q) { q = Abs (e) }> }""")
    assert graph.producer(list(graph.nodes_of("Conv"))[1].inputs[1]).op == "DequantizeLinear"
    feeds = next(iter(data)).feeds
    wanted, got = (outputs_of(g, feeds)["y"] for g in (before, graph))
    np.testing.assert_allclose(got, wanted, atol=0.05 * np.abs(wanted).max())


def test_half_precision_is_the_reason_why_nothing_is_quantized():
    graph = parse_graph("(float16[1,8,4,4] x) => (float16[1,8,4,4] y) <float16[8,8,1,1] w> { y = Conv (x, w) }")
    context = Context(ORT, fit=None)
    context.put(CalibrationTable())
    record = run_pass(InsertQDQ(), graph, context, [])
    assert "its weights are float16; give the float32 export" in record.notes[-1][1]
