"""The named pipeline `simplify` as a whole: fixpoint, bounds, and equal outputs on graphs nobody thought of."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt import load
from onnxopt.graph import Graph
from onnxopt.manager import run_step
from onnxopt.pipeline import resolve
from onnxopt.testing import assert_preserves, graph_text, plain_context

TESTDATA = Path(__file__).parents[2] / "testdata"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def simplify(graph: Graph | str, **kwargs) -> Graph:
    """Run the pipeline twice over, which is as far as these graphs need, and compare outputs."""
    passes = resolve("simplify")[0].passes
    return assert_preserves([*passes, *passes], graph, **kwargs)


def rounds(graph: Graph) -> int:
    """Run the pipeline in place; how often it went over the graph."""
    [step] = resolve("simplify")[0].steps
    return len(run_step(step, graph, plain_context(), ())) // len(step.passes)


def ops(graph):
    return [n.op for n in graph.nodes]


def test_all_passes_run_together_until_nothing_changes():
    [stage] = resolve("simplify{max_bytes=5}")
    [step] = stage.steps
    assert step.repeat > 1
    assert step.passes[0].option_values() == {"max_bytes": 5}


def test_block_of_a_detector():
    graph = simplify(
        """(float[1,4,8,8] x) => (float[1,8,8,8] y) <float[8,4,3,3] w, int64[1] zero = {0}, int64[1] one = {1},
        int64[1] two = {2}, float[8] s, float[8] b, float[8] m, float[8] v = {1, 2, 3, 4, 5, 6, 7, 8}> {
            i = Identity (w)
            a = Conv <pads = [1, 1, 1, 1]> (x, i)
            n = BatchNormalization (a, s, b, m, v)
            g = Sigmoid (n)  c = Mul (n, g)
            shape = Shape (c)  channels = Gather (shape, one)  half = Div (channels, two)
            low = Mul (half, zero)  middle = Mul (half, one)  high = Mul (half, two)
            p = Slice (c, low, middle, one)  q = Slice (c, middle, high, one)
            y = Concat <axis = 1> (q, p)
        }"""
    )
    assert ops(graph) == ["Conv", "Sigmoid", "Mul", "Split", "Concat"]


def test_normalization_as_old_exporters_wrote_it():
    graph = simplify(
        """(float[1,2,4,4] x) => (float[1,3,4,4] y) <float[3,2,1,1] w, float[3] s, float[3] b> {
            a = Conv (x, w)
            t = Unsqueeze <axes = [1, 2]> (s)  m = Mul (a, t)
            u = Unsqueeze <axes = [1, 2]> (b)  n = Add (m, u)
            d = Dropout (n)  y = Relu (d) }""",
        opset=9,
    )
    assert ops(graph) == ["Conv", "Relu"]


def test_head_of_a_classifier_with_a_dynamic_batch():
    graph = simplify(
        """(float[batch,4,1,1] x) => (float[batch,3] y) <float[4,3] w, float[3] b, int64 zero = {0},
        int64[1] first = {0}, int64[1] left = {-1}> {
            s = Shape (x)  n = Gather (s, zero)  u = Unsqueeze (n, first)  t = Concat <axis = 0> (u, left)
            f = Reshape (x, t)  m = MatMul (f, w)  y = Add (m, b) }"""
    )
    assert ops(graph) == ["Reshape", "Gemm"]
    target = graph.constant(graph.nodes[0].inputs[1])
    assert target is not None
    assert target.tolist() == [0, -1]


@pytest.mark.parametrize("file", sorted(TESTDATA.glob("*.onnx")), ids=lambda f: f.stem)
def test_trained_model(file):
    graph = load(file)
    feeds = {
        t.name: np.random.default_rng(0).random([d if isinstance(d, int) else 1 for d in t.shape], dtype=np.float32)
        for t in graph.inputs
    }
    after = simplify(graph, feeds=feeds, runtimes=["ort"])
    assert len(after.nodes) <= len(graph.nodes)
    assert after.nbytes() <= graph.nbytes()
    assert after.metadata == graph.metadata
    assert [t.name for t in after.outputs] == [t.name for t in graph.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "shufflenet", "inception_v1"])
def test_weights_that_a_file_computes_do_not_blow_it_up(name):
    graph = load(LIGHT / f"light_{name}.onnx")
    before = graph.nbytes()
    nodes = len(graph.nodes)
    assert rounds(graph) <= 3
    assert len(graph.nodes) < nodes
    assert graph.nbytes() - before <= 1 << 20
    onnx.checker.check_model(graph.to_proto(), full_check=True)


OPERATORS = {
    "relu": "Relu ({0})",
    "neg": "Neg ({0})",
    "identity": "Identity ({0})",
    "dropout": "Dropout ({0})",
    "one": "Mul ({0}, one)",
    "scale": "Mul ({0}, scale)",
    "shift": "Add (shift, {0})",
    "divide": "Div ({0}, scale)",
    "less": "Sub ({0}, shift)",
    "everywhere": "Add ({0}, map)",
    "conv": "Conv <pads = [1, 1, 1, 1]> ({0}, weight, bias)",
    "grouped": "Conv <group = 2> ({0}, grouped)",
    "depthwise": "Conv <group = 4, pads = [1, 1, 1, 1]> ({0}, depthwise)",
    "transposed": "ConvTranspose ({0}, point)",
    "normalize": "BatchNormalization ({0}, scale1, bias, mean, variance)",
    "pad": "Conv (pad_{1}, weight)",
    "turn": "Transpose <perm = [0, 1, 3, 2]> ({0})",
    "flat": "Reshape ({0}, flat)",
    "shape": "Reshape ({0}, shape)",
    "swap": "Concat <axis = 1> (high_{1}, low_{1})",
    "add": "Add ({0}, {2})",
    "multiply": "Mul ({2}, {0})",
    "shaped": "Reshape ({0}, shape_{1})",
}
BEFORE = {
    "pad": "pad_{1} = Pad ({0}, pads)",
    "swap": "low_{1} = Slice ({0}, zero, two, first)  high_{1} = Slice ({0}, two, four, first)",
    "shaped": "shape_{1} = Shape ({2})",
}
CONSTANTS = """<float one = {1}, float[4,1,1] scale = {2, -0.5, 1, 3}, float[4,1,1] shift = {0, 1, -1, 0.5},
    float[1,4,6,6] map, float[4,4,3,3] weight, float[4] bias, float[4,2,1,1] grouped, float[4,1,3,3] depthwise,
    float[4,4,1,1] point, float[4] scale1, float[4] mean, float[4] variance = {0.5, 1, 2, 4},
    int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, int64[2] flat = {1, -1}, int64[4] shape = {1, 4, 6, 6},
    int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, int64[1] first = {1}>"""


@st.composite
def graphs(draw):
    """A graph of up to twelve nodes on tensors of one size; each reads one or two earlier ones."""
    names, body = ["x"], []
    for index in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(sorted(OPERATORS)))
        source, other = names[-1 - draw(st.integers(0, min(1, len(names) - 1)))], draw(st.sampled_from(names))
        name = f"a{index}"
        if kind == "flat":
            body.append(f"flat_{index} = {OPERATORS['flat'].format(source)}")
            body.append(f"{name} = Reshape (flat_{index}, shape)")
        else:
            body.append(BEFORE.get(kind, "").format(source, index, other))
            body.append(f"{name} = {OPERATORS[kind].format(source, index, other)}")
        names.append(name)
    outputs = dict.fromkeys([names[-1], draw(st.sampled_from(names[1:]))])
    declared = ", ".join(f"float[1,4,6,6] {name}" for name in outputs)
    return f"(float[1,4,6,6] x) => ({declared}) {CONSTANTS} {{ {'  '.join(body)} }}"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(graphs())
def test_any_graph_computes_the_same_and_comes_to_rest(text):
    after = simplify(text, runtimes=["ort"])
    before = graph_text(after)
    assert rounds(after) == 1, "a third run changes something"
    assert graph_text(after) == before


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(graphs())
def test_very_many_graphs_compute_the_same(text):
    simplify(text, runtimes=["ort"])
