from onnxopt.testing import assert_rewrites, parse_graph, plain_context
from onnxopt_passes.eliminate_dead import EliminateDead

ENDS = "(float[2] x) => (float[2] y)"


def cleans(before, after, **kwargs):
    return assert_rewrites(EliminateDead(), before, after, **kwargs)


def test_chain_that_no_output_needs_goes():
    cleans(f"{ENDS} {{ a = Neg (x)  b = Relu (a)  c = Add (a, b)  y = Sigmoid (x) }}", f"{ENDS} {{ y = Sigmoid (x) }}")


def test_initializers_that_no_node_reads_go():
    cleans(
        f"{ENDS} <float[2] w = {{1, 2}}, float[2] v = {{3, 4}}> {{ d = Mul (x, v)  y = Mul (x, w) }}",
        f"{ENDS} <float[2] w = {{1, 2}}> {{ y = Mul (x, w) }}",
    )


def test_initializer_that_was_never_read_goes():
    cleans(f"{ENDS} <float[2] w = {{1, 2}}> {{ y = Relu (x) }}", f"{ENDS} {{ y = Relu (x) }}")


def test_live_graph_stays():
    cleans(f"{ENDS} {{ a = Neg (x)  y = Relu (a) }}", None)


def test_output_that_nobody_reads_beside_one_that_is_stays():
    cleans("(float[4] x) => (float[2] y) { a, b = Split <axis = 0> (x)  y = Relu (a) }", None)


def test_inputs_stay():
    graph = cleans(
        "(float[2] x, float[2] z) => (float[2] y) { d = Neg (z)  y = Relu (x) }",
        "(float[2] x, float[2] z) => (float[2] y) { y = Relu (x) }",
    )
    assert [t.name for t in graph.inputs] == ["x", "z"]


def test_what_a_nested_graph_reads_stays():
    cleans(
        """(float[2] x, bool b) => (float[2] y) <float[2] w = {1, 2}> {
            a = Neg (x)  d = Abs (x)
            y = If (b) <then_branch = t () => (float[2] p) { p = Mul (a, w) },
                        else_branch = e () => (float[2] q) { q = Relu (a) }> }""",
        """(float[2] x, bool b) => (float[2] y) <float[2] w = {1, 2}> {
            a = Neg (x)
            y = If (b) <then_branch = t () => (float[2] p) { p = Mul (a, w) },
                        else_branch = e () => (float[2] q) { q = Relu (a) }> }""",
    )


def test_custom_operator_without_readers_goes_like_any_other():
    graph = parse_graph(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[2] x) => (float[2] y)
        { d = own.Log (x)  y = Relu (x) }"""
    )
    context = plain_context()
    assert EliminateDead().run(graph, context)
    assert [n.op for n in graph.nodes] == ["Relu"]
    assert context.record.counts == {"nodes removed": 1}


def test_deep_graph_needs_no_deep_stack():
    chain = "a0 = Neg (x)  " + "  ".join(f"a{i + 1} = Neg (a{i})" for i in range(3000))
    cleans(f"{ENDS} {{ {chain}  y = Relu (a3000) }}", None)
