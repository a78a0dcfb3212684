"""What stays float is found from structure."""

from onnxopt.placement.tail import find_tail, is_expectation
from onnxopt.testing import parse_graph

DETECTOR = """(float[1,8,4,4] x) => (float[1,4,16] y)
<float[8,8,1,1] w1, float[12,8,1,1] w2, float[1,4,1,1] bins = {0, 1, 2, 3}, int64[3] s1 = {1, 4, 48}> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = Reshape (c, s)
  e = Transpose <perm = [0, 2, 1, 3]> (d)
  f = Softmax <axis = 1> (e)
  g = Conv (f, bins)
  y = Reshape (g, t)
}"""


def detector():
    text = DETECTOR.replace("int64[3] s1 = {1, 4, 48}", "int64[4] s = {1, 3, 4, 16}, int64[3] t = {1, 3, 16}")
    return parse_graph(text.replace("float[1,4,16] y", "float[1,3,16] y"))


def ops(graph, identities):
    return [n.op for n in graph.nodes if id(n) in identities]


def test_expectation_over_bins_is_tail_and_the_conv_before_it_is_final():
    graph = detector()
    tail = find_tail(graph)
    assert ops(graph, tail.nodes) == ["Reshape", "Transpose", "Softmax", "Conv", "Reshape"]
    assert [n.inputs[1].name for n in graph.nodes if id(n) in tail.final] == ["w2"]


def test_ordinary_1x1_conv_is_no_expectation():
    graph = detector()
    convs = list(graph.nodes_of("Conv"))
    assert [is_expectation(graph, n) for n in convs] == [False, False, True]


def test_expectation_with_a_row_of_ones_is_recognised_too():
    graph = parse_graph("""(float[1,3,4,4] x) => (float[1,2,4,4] y)
        <float[2,3,1,1] w = {0, 1, 2, 1, 1, 1}> { y = Conv (x, w) }""")
    assert is_expectation(graph, graph.nodes[0])
