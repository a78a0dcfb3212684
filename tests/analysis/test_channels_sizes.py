"""Shape arithmetic: what is known before the model runs is what the model computes."""

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups, cut
from onnxopt.analysis.channels.sizes import numbers
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.graph import Graph
from onnxopt.testing import outputs_of, parse_graph, random_feeds

ARITHMETIC = """(float[2,3,6,4] x) => (float[2,4,6,4] y)
    <float[8,3,1,1] w, int64 i1 = {1}, int64[2] i32 = {3,2},
     int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2},
     int64[1] end = {9223372036854775807}, int64[1] back = {-1}, int64[2] pair = {2,1}, int64[1] minus = {-1},
     int64 s0 = {0}, int64 s3 = {3}, int64 s1 = {1}, int64[2] square = {2,2}, int64[1] long = {4}> {
    a = Conv (x, w)  s = Shape (a)  tail = Shape <start = 2> (a)  c = Gather <axis = 0> (s, i1)
    hw = Gather <axis = 0> (s, i32)  up = Unsqueeze (c, zero)  down = Squeeze (up, zero)
    half = Div (up, two)  rest = Sub (up, half)  both = Concat <axis = 0> (half, rest, tail)  twice = Mul (half, two)
    more = Add (twice, one)  m = Mod (more, two)  lo = Min (more, up)  hi = Max (more, up)
    cut = Slice (s, one, end)  r = Slice (s, back, minus, zero, back)  q = Reshape (s, square)  t = Transpose (q)
    ones = ConstantOfShape <value = int64[1] {1}> (long)  wide = Expand (up, pair)  same = Equal (s, twice)
    w1 = Where (same, ones, s)  n = Range (s0, s3, s1)  p = ReduceProd <keepdims = 0> (s)  big = Greater (s, two)
    small = LessOrEqual (s, two)  cast = Cast <to = 6> (s)
    u = Slice (a, zero, half, one)  y = Relu (u) }"""


def returning(graph: Graph, names: list[str]) -> Graph:
    copy = graph.copy()
    tensors = copy.tensors()
    shapes = Shapes(*infer(graph))
    for name in names:
        tensors[name].dtype, tensors[name].shape = shapes.dtype(tensors[name]), None
    copy.ir.outputs = [tensors[n] for n in names]
    return copy


def test_known_values_are_those_of_the_runtime() -> None:
    graph = parse_graph(ARITHMETIC)
    relations = ChannelGroups.of(graph).relations
    tensors = [t for n in graph.nodes for t in n.outputs if n.op not in {"Conv", "Relu"}]
    known = {t.name: sizes for t in tensors if (sizes := relations.sizes(t)) is not None}
    assert len(known) == len(tensors) - 1  # all but the slice of the activation
    values = outputs_of(returning(graph, list(known)), random_feeds(graph))
    for name, sizes in known.items():
        assert sizes.shape == values[name].shape, name
        assert numbers(sizes) == [int(v) for v in values[name].ravel()], name


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("f = Cast <to = 1> (c)  r = Sqrt (f)  y = Div (a, r)", "the scale of an attention"),
        ("l = Range (zero, c, one)  t = Cast <to = 1> (l)  m = ReduceMean (t)  y = Mul (a, m)", "a range"),
    ],
)
def test_a_value_read_as_data_stays_what_it_was(body: str, output: str) -> None:
    text = f"""(float[1,3,4,4] x) => (float[1,2,4,4] z)
        <float[6,3,1,1] w, float[2,6,1,1] w2, int64 i1 = {{1}}, int64 zero = {{0}}, int64 one = {{1}}> {{
        a = Conv (x, w)  s = Shape (a)  c = Gather <axis = 0> (s, i1)  {body}  z = Conv (y, w2) }}"""
    graph = parse_graph(text)
    found = ChannelGroups.of(graph)
    quiet = graph.copy()
    last = quiet.nodes_of("Conv")
    next(last)
    weights = quiet.own_constant(next(last), 1)
    weights.values = weights.values * np.array([1, 0, 0, 1, 0, 1], np.float32).reshape(1, 6, 1, 1)
    feeds = random_feeds(graph)
    wanted = outputs_of(quiet, feeds)["z"]
    cut(graph, found.relations, found.kept({"a": [0, 3, 5]}))
    assert np.abs(outputs_of(graph, feeds)["z"] - wanted).max() <= 1e-5 * np.abs(wanted).max(), output
    assert not list(graph.nodes_of("Shape"))  # nobody reads it any more
