"""Models that come quantized: taken apart, and quantized anew with the scales they came with."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxopt.calibration.given import GivenRanges
from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.graph import Constant, Graph
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.targets.openvino import OPENVINO
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import graph_text, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ
from onnxopt_passes.strip_qdq import StripQDQ

FLOAT = """(float[1,16,12,12] x) => (float[1,10] y)
<float[16,16,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[32,32,1,1] w3, float[10,32] g, float[10] h,
 float lo = {0}, float hi = {6}> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  s = Sigmoid (a)
  m = Mul (a, s)
  c = Conv <pads = [1, 1, 1, 1]> (m, w2, b2)
  d = Clip (c, lo, hi)
  r = Add (d, m)
  k = Concat <axis = 1> (r, d)
  f = Conv (k, w3)
  u = Relu (f)
  p = GlobalAveragePool (u)
  q = Flatten (p)
  y = Gemm <transB = 1> (q, g, h)
}"""
INPUTS = (InputSpec("x", (1, 16, 12, 12), np.dtype(np.float32)),)
TARGETS = [ORT, OPENVINO, TENSORRT]

TRAINED = """(float[1,16,12,12] x) => (float[1,16,12,12] y)
<float[16,16,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[16,16,1,1] w3,
 float[16,16,1,1] w4, int8 z = {0}, float sx = {0.03125}, float sm = {0.5}, float sr = {1.5},
 float[16] sw = {0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02},
 int8[16] zw = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> {
  xq = QuantizeLinear (x, sx, z)
  xd = DequantizeLinear (xq, sx, z)
  w1q = QuantizeLinear <axis = 0> (w1, sw, zw)
  w1d = DequantizeLinear <axis = 0> (w1q, sw, zw)
  a = Conv <pads = [1, 1, 1, 1]> (xd, w1d, b1)
  s = Sigmoid (a)
  m = Mul (a, s)
  mq = QuantizeLinear (m, sm, z)
  md = DequantizeLinear (mq, sm, z)
  w2q = QuantizeLinear <axis = 0> (w2, sw, zw)
  w2d = DequantizeLinear <axis = 0> (w2q, sw, zw)
  c = Conv <pads = [1, 1, 1, 1]> (md, w2d, b2)
  r = Add (c, md)
  rq = QuantizeLinear (r, sr, z)
  rd = DequantizeLinear (rq, sr, z)
  w3q = QuantizeLinear <axis = 0> (w3, sw, zw)
  w3d = DequantizeLinear <axis = 0> (w3q, sw, zw)
  e = Conv (rd, w3d)
  y = Conv (e, w4)
}"""


def samples():
    return synthetic(INPUTS, 6)


def context(target):
    return Context(target, inputs=INPUTS, fit=samples())


def quantized(target, text=FLOAT):
    graph = parse_graph(text)
    graph.name_nodes()
    surroundings = context(target)
    run_pass(Calibrate(), graph, surroundings, [])
    run_pass(InsertQDQ(), graph, surroundings, [])
    return Graph.from_proto(graph.to_proto())


def retargeted(graph, target, **options):
    """The graph quantized anew, and the record of `calibrate`."""
    graph = Graph.from_proto(graph.to_proto())
    surroundings = context(target)
    run_pass(StripQDQ(**options), graph, surroundings, [])
    record = run_pass(Calibrate(), graph, surroundings, [])
    run_pass(InsertQDQ(), graph, surroundings, [])
    return graph, record


def parameters(graph):
    """All constants that a Q or DQ reads, by name of the node."""
    pairs = [n for n in graph.nodes if n.op in {"QuantizeLinear", "DequantizeLinear"}]
    return {n.name: [t.values for t in n.inputs if isinstance(t, Constant)] for n in pairs}


def scales(graph):
    """Scale and zero point of each quantized activation."""
    found = {}
    for node in graph.nodes_of("QuantizeLinear"):
        if not isinstance(node.inputs[0], Constant):
            found[node.inputs[0].name] = tuple(graph.constant(t) for t in node.inputs[1:3])
    return found


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())


def quality(graph, text=FLOAT, output="y"):
    """SQNR to the float model over samples, in dB."""
    original = parse_graph(text)
    feeds = [s.feeds for s in samples()]
    wanted, got = (np.stack([outputs_of(g, f)[output] for f in feeds]) for g in (original, graph))
    return sqnr(wanted, got)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_the_same_target_again_changes_no_scale_and_no_code(target):
    first = quantized(target)
    second, record = retargeted(first, target)
    wanted, got = parameters(first), parameters(second)
    assert list(wanted) == list(got)
    for name, values in wanted.items():
        for one, other in zip(values, got[name], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert record.counts["tensors measured"] == 0


@pytest.mark.parametrize("before", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("after", TARGETS, ids=lambda t: t.name)
def test_as_good_as_quantized_at_once(before, after):
    given, direct = quantized(before), quality(quantized(after))
    graph, _ = retargeted(given, after)
    assert direct > 20
    assert (
        quality(graph) >= min(direct, quality(given)) - 1.5
    )  # a symmetric range of a picture is kept, with its unused half


def test_weights_keep_their_codes_on_every_target():
    first = quantized(ORT)
    wanted = {k: v for k, v in parameters(first).items() if k.startswith(("w1_", "w2_", "w3_", "g_"))}
    assert wanted
    for target in TARGETS:
        got = parameters(retargeted(first, target)[0])
        shared = wanted.keys() & got.keys()
        assert len(shared) >= 3
        for name in shared:
            for one, other in zip(wanted[name], got[name], strict=True):
                np.testing.assert_array_equal(one, other)


def test_trained_symmetric_scales_stay_where_nothing_bounds_the_values():
    graph, _ = retargeted(parse_graph(TRAINED), ORT)
    found = scales(graph)
    assert found["x"] == (np.float32(0.03125), 128)
    assert found["r"] == (np.float32(1.5), 128)


def test_a_symmetric_range_loses_what_silu_cannot_reach():
    graph, _ = retargeted(parse_graph(TRAINED), ORT)
    scale, zero = scales(graph)["m"]
    assert scale < 0.51 * 0.5
    np.testing.assert_allclose(scale * (255 - zero.astype(float)), 127 * 0.5, rtol=0.01)


def test_trained_weight_scales_and_codes_stay():
    before = parse_graph(TRAINED)
    weights = {c.name: c.values for c in before.initializers()}
    graph, _ = retargeted(before, ORT)
    values = {c.name: c.values for c in graph.initializers()}
    np.testing.assert_array_equal(values["w1_scale"], weights["sw"])
    steps = np.rint(weights["w1"] / weights["sw"].reshape(-1, 1, 1, 1))
    np.testing.assert_array_equal(values["w1_quantized"], np.clip(steps, -128, 127).astype(np.int8))


def test_what_was_int8_for_tensorrt_runs_in_int8_on_onnxruntime():
    given = parse_graph(TRAINED)
    given.name_nodes()
    graph, record = retargeted(given, ORT)
    assert sorted(OrtRuntime().kernels(given.to_proto()).int8) == []
    assert sorted(OrtRuntime().kernels(graph.to_proto()).int8) == ["Conv", "Conv_1", "Conv_2"]  # the last one is final
    assert record.counts["ranges kept from the given pairs"] >= 3


def test_a_relu_that_only_the_saturation_stood_for_comes_back():
    text = """(float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w, float sx = {0.05}, uint8 zx = {128}, float sa = {0.1}, uint8 za = {0}, float sb = {0.0235294},
     float[4,4,1,1] v> {
      xq = QuantizeLinear (x, sx, zx)
      xd = DequantizeLinear (xq, sx, zx)
      a = Conv (xd, w)
      aq = QuantizeLinear (a, sa, za)
      ad = DequantizeLinear (aq, sa, za)
      b = Conv (ad, v)
      bq = QuantizeLinear (b, sb, za)
      bd = DequantizeLinear (bq, sb, za)
      c = MaxPool <kernel_shape = [1, 1]> (bd)
      cq = QuantizeLinear (c, sb, za)
      cd = DequantizeLinear (cq, sb, za)
      d = Conv (cd, v)
      y = Sigmoid (d)
    }"""
    graph = parse_graph(text)
    feeds = random_feeds(graph)
    wanted = outputs_of(graph, feeds)["y"]
    surroundings = plain_context()
    record = run_pass(StripQDQ(), graph, surroundings, [])
    assert [n.op for n in graph.nodes] == ["Conv", "Relu", "Conv", "Clip", "MaxPool", "Conv", "Sigmoid"]
    assert record.counts["Relu and Clip put back"] == 2
    assert surroundings.get(GivenRanges).activations[graph.nodes[1].outputs[0].name].dtype == "uint8"
    assert sqnr(wanted, outputs_of(graph, feeds)["y"]) > 25


def test_a_float_model_is_left_alone_without_a_note():
    graph = parse_graph(FLOAT)
    text = graph_text(graph)
    record = run_pass(StripQDQ(), graph, plain_context(), [])
    assert (record.changed, record.notes, record.counts) == (False, [], {})
    assert graph_text(graph) == text


def test_ranges_outlive_a_second_strip():
    graph = quantized(ORT)
    surroundings = context(ORT)
    run_pass(StripQDQ(), graph, surroundings, [])
    found = surroundings.get(GivenRanges)
    run_pass(StripQDQ(), graph, surroundings, [])
    assert surroundings.get(GivenRanges) is found
    assert found.activations


def test_all_is_found_anew_if_asked_for():
    graph, record = retargeted(parse_graph(TRAINED), ORT, reuse=False)
    assert "ranges kept from the given pairs" not in record.counts
    assert record.counts["tensors measured"] > 0
    assert scales(graph)["x"][0] != np.float32(0.03125)


def test_stripped_it_is_the_float_model_with_rounded_weights():
    graph = quantized(TENSORRT)
    run_pass(StripQDQ(), graph, plain_context(), [])
    assert not any(n.op.endswith("Linear") for n in graph.nodes)
    assert [n.op for n in graph.nodes] == [n.op for n in parse_graph(FLOAT).nodes]
    assert quality(graph) > quality(quantized(TENSORRT))


def test_onnxruntimes_own_16_bit_pairs_are_read():
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    graph (float[1,16,12,12] x) => (float[1,16,12,12] y)
    <float[16,16,1,1] w, float s = {0.001}, uint16 z = {20000}> {
      q = com.microsoft.QuantizeLinear (x, s, z)
      d = com.microsoft.DequantizeLinear (q, s, z)
      a = Conv (d, w)
      y = Conv (a, w)
    }"""
    graph, _ = retargeted(parse_graph(text), ORT)
    scale, zero = scales(graph)["x"]
    np.testing.assert_allclose(scale, 65.535 / 255, rtol=1e-6)
    assert zero == round(20 / scale)


def test_8_bit_floats_become_a_symmetric_range():
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.01])
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [scale, zero]),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )
    graph, surroundings = Graph.from_proto(model), plain_context()
    run_pass(StripQDQ(), graph, surroundings, [])
    found = surroundings.get(GivenRanges).activations["x"]
    assert [n.op for n in graph.nodes] == ["Relu"]
    np.testing.assert_allclose((found.low, found.high), (-4.48, 4.48), rtol=1e-6)


def test_weights_in_blocks_become_floats():
    text = """<ir_version: 10, opset_import: ["": 21]>
    graph (float[2,4] x) => (float[2,3] y)
    <int8[4,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[2,3] s = {1, 2, 3, 10, 20, 30}> {
      d = DequantizeLinear <axis = 0, block_size = 2> (w, s)
      y = MatMul (x, d)
    }"""
    graph = parse_graph(text)
    feeds = random_feeds(graph)
    wanted = outputs_of(graph, feeds)["y"]
    run_pass(StripQDQ(), graph, plain_context(), [])
    assert [n.op for n in graph.nodes] == ["MatMul"]
    np.testing.assert_array_equal(outputs_of(graph, feeds)["y"], wanted)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "y = QLinearConv (x, s, z, w, s, z, s, z)",
            "QLinearConv 'y' computes with integers itself; export the model in QDQ format",
        ),
        ("y = ConvInteger (x, w, z, z)", "ConvInteger 'y'"),
    ],
)
def test_integer_operators_are_refused_by_name(text, named):
    kind = "int32" if "ConvInteger" in text else "uint8"
    model = (
        f"(uint8[1,1,4,4] x) => ({kind}[1,1,4,4] y) <uint8[1,1,1,1] w, float s = {{0.1}}, uint8 z = {{0}}> {{ {text} }}"
    )
    with pytest.raises(UsageError, match=named):
        run_pass(StripQDQ(), parse_graph(model), plain_context(), [])


def test_half_precision_is_refused():
    text = """<ir_version: 9, opset_import: ["": 19]>
    graph (float16[4] x) => (float16[4] y) <float16 s, int8 z = {0}> {
      q = QuantizeLinear (x, s, z)
      y = DequantizeLinear (q, s, z)
    }"""
    with pytest.raises(UsageError, match="half precision; give the float32 export"):
        run_pass(StripQDQ(), parse_graph(text), plain_context(), [])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("t = Abs (s)  q = QuantizeLinear (x, t, z)  y = DequantizeLinear (q, t, z)", "computed when the model runs"),
        ("q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, t, z)", "has another scale or zero point"),
        ("q = QuantizeLinear (x, s, z)  p = Reshape (q, shape)  y = DequantizeLinear (p, s, z)", "reads its integers"),
    ],
)
def test_what_cannot_be_taken_out_is_named_and_refused_later(body, why):
    text = f"""(float[4] x) => (float[4] y)
    <float s = {{0.5}}, float t = {{0.25}}, uint8 z = {{3}}, int64[1] shape = {{4}}> {{ {body} }}"""
    text = text.replace("float t = {0.25}, ", "") if "t = Abs" in body else text
    graph, surroundings = parse_graph(text), context(ORT)
    record = run_pass(StripQDQ(), graph, surroundings, [])
    assert not record.changed
    assert any(why in reason for _, reason in record.notes)
    surroundings.put(CalibrationTable())
    with pytest.raises(UsageError, match=r"quantized already: it holds QuantizeLinear .*strip-qdq cannot take it out"):
        run_pass(InsertQDQ(), graph, surroundings, [])


def test_integers_from_outside_stay():
    text = """(uint8[4] x) => (float[4] y) <float s = {0.5}, uint8 z = {3}> {
      d = DequantizeLinear (x, s, z)
      y = Relu (d)
    }"""
    record = run_pass(StripQDQ(), parse_graph(text), plain_context(), [])
    assert record.notes == [("DequantizeLinear 'd'", "stays quantized: its integers come from graph input 'x'")]


def test_a_pair_between_input_and_output_becomes_an_identity():
    text = """(float[4] x) => (float[4] y) <float s = {0.5}, uint8 z = {3}> {
      q = QuantizeLinear (x, s, z)
      y = DequantizeLinear (q, s, z)
    }"""
    graph = parse_graph(text)
    run_pass(StripQDQ(), graph, plain_context(), [])
    assert [n.op for n in graph.nodes] == ["Identity"]
    assert [t.name for t in graph.outputs] == ["y"]


def test_quantized_bins_of_a_box_head_are_whole_again():
    bins = ", ".join(str(round(i * 127 / 15)) for i in range(16))
    text = f"""(float[1,16,4,9] x) => (float[1,1,4,9] y)
    <int8[1,16,1,1] w = {{{bins}}}, float s = {{0.11811024}}, int8 z = {{0}}> {{
      d = DequantizeLinear (w, s, z)
      p = Softmax <axis = 1> (x)
      y = Conv (p, d)
    }}"""
    graph = parse_graph(text)
    run_pass(StripQDQ(), graph, plain_context(), [])
    weight = graph.constant(graph.nodes[-1].inputs[1])
    np.testing.assert_array_equal(weight.ravel(), np.arange(16))


def test_constants_that_should_not_have_been_rounded_are_named():
    text = """(float[3] x) => (float[3] y) <int8[3] anchors_quantized = {1, 50, 127}, float s = {0.5}, int8 z = {0}> {
      d = DequantizeLinear (anchors_quantized, s, z)
      y = Add (x, d)
    }"""
    record = run_pass(StripQDQ(), parse_graph(text), plain_context(), [])
    assert record.notes == [("anchors", "came in 8 bits although it is no weight: what that lost stays lost")]
