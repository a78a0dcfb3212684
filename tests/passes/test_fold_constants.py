import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxopt import Graph
from onnxopt.testing import assert_rewrites, plain_context
from onnxopt_passes.eliminate_dead import EliminateDead
from onnxopt_passes.fold_constants import FoldConstants


def folds(before, after, **kwargs):
    """Fold and, where something is folded, drop the Shape nodes that nobody reads any more."""
    passes = FoldConstants() if after is None else [FoldConstants(), EliminateDead()]
    return assert_rewrites(passes, before, after, **kwargs)


def test_constant_node_becomes_an_initializer():
    folds(
        "(float[2] x) => (float[2] y) { c = Constant <value = float[2] {1, 2}> ()  y = Add (x, c) }",
        "(float[2] x) => (float[2] y) <float[2] c = {1, 2}> { y = Add (x, c) }",
    )


@pytest.mark.parametrize(
    ("attribute", "initializer"),
    [
        ("value_float = 2.5", "float c = {2.5}"),
        ("value_floats = [1.0, 2.0]", "float[2] c = {1, 2}"),
        ("value_int = 3", "int64 c = {3}"),
        ("value_ints = [3, 4]", "int64[2] c = {3, 4}"),
    ],
)
def test_every_way_to_write_a_constant(attribute, initializer):
    folds(
        f"(float[2] x) => (float[2] y) {{ c = Constant <{attribute}> ()  d = CastLike (c, x)  y = Add (x, d) }}",
        f"(float[2] x) => (float[2] y) <{initializer}> {{ d = CastLike (c, x)  y = Add (x, d) }}",
    )


def test_chain_of_constants_is_computed_and_only_its_end_stored():
    folds(
        "(float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 5}>"
        "{ s = Add (a, b)  p = Mul (s, a)  y = Add (x, p) }",
        "(float[2] x) => (float[2] y) <float[2] p = {4, 14}> { y = Add (x, p) }",
    )


CHUNK = """{
    s = Shape (x)
    channels = Gather (s, one)
    more = Add (channels, one)
    half = Div (more, two)
    low = Mul (half, zero)  high = Mul (half, one)  top = Mul (half, two)
    a = Slice (x, low, high, one)
    b = Slice (x, high, top, one)
    y = Concat <axis = 1> (b, a)
}"""
NUMBERS = "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>"
CHUNKED = """<int64[1] low = {0}, int64[1] high = {3}, int64[1] top = {6}, int64[1] one = {1}>
    { b = Slice (x, high, top, one)  a = Slice (x, low, high, one)  y = Concat <axis = 1> (b, a) }"""


@pytest.mark.parametrize("shape", ["2,6,3", "batch,6,width"])
def test_chunk_of_a_yolo_export_gets_constant_bounds(shape):
    signature = f"(float[{shape}] x) => (float[{shape}] y)"
    folds(f"{signature} {NUMBERS} {CHUNK}", f"{signature} {CHUNKED}")


def test_shape_arithmetic_in_the_attributes_of_old_operator_sets():
    folds(
        "(float[n,6] x) => (float[m] y) {"
        "s = Shape (x)  w = Slice <starts = [1], ends = [2], axes = [0]> (s)"
        "v = Squeeze <axes = [0]> (w)  u = Unsqueeze <axes = [0]> (v)"
        "c = Cast <to = 7> (u)  k = Concat <axis = 0> (c, c)  r = ReduceProd <keepdims = 1> (k)"
        "flat = Constant <value = int64[1] {-1}> ()  t = Reshape (x, flat)"
        "f = Cast <to = 1> (r)  y = Add (t, f) }",
        "(float[n,6] x) => (float[m] y) <int64[1] flat = {-1}, float[1] f = {36}>"
        "{ t = Reshape (x, flat)  y = Add (t, f) }",
        opset=9,
    )


def test_squeeze_of_unknown_axes_is_not_guessed():
    folds(
        "(float[4,6] x, int64[1] axes) => (int64 y) <int64[1] one = {1}>"
        "{ s = Shape <start = 1> (x)  y = Squeeze (s, axes) }",
        "(float[4,6] x, int64[1] axes) => (int64 y) <int64[1] s = {6}> { y = Squeeze (s, axes) }",
        feeds={"x": np.zeros((4, 6), np.float32), "axes": np.array([0])},
    )


RESHAPE = """{{ s = Shape (x)  n = Gather (s, zero)  m = Unsqueeze (n, zero1)
    t = Concat <axis = 0> (m, {rest})  y = Reshape (x, t) }}"""
PLACES = "<int64 zero = {0}, int64[1] zero1 = {0}, int64[1] four = {4}, int64[1] left = {-1}>"


def test_reshape_keeps_a_dynamic_batch_as_it_was():
    folds(
        f"(float[batch,8,3] x) => (float[batch,4,6] y) {PLACES} {RESHAPE.format(rest='four, left')}",
        "(float[batch,8,3] x) => (float[batch,4,6] y) <int64[3] t = {0, 4, -1}> { y = Reshape (x, t) }",
    )


def test_reshape_with_one_unknown_size_takes_what_is_left():
    folds(
        f"(float[a,8] x) => (float[4,b] y) {PLACES}"
        "{ s = Shape (x)  n = Gather (s, zero1)  d = Add (n, n)  t = Concat <axis = 0> (four, d)  y = Reshape (x, t) }",
        "(float[a,8] x) => (float[4,b] y) <int64[2] t = {4, -1}> { y = Reshape (x, t) }",
    )


def test_symbol_that_names_two_dimensions_is_not_believed():
    folds(
        f"(float[q,q,8] x) => (float[a,4,b] y) {PLACES} {RESHAPE.format(rest='four, left')}",
        None,
        feeds={"x": np.zeros((2, 2, 8), np.float32)},
    )


def test_zeros_meant_literally_leave_a_dynamic_batch_alone():
    reshape = RESHAPE.format(rest="four, left").replace("Reshape (", "Reshape <allowzero = 1> (")
    folds(f"(float[batch,8,3] x) => (float[batch,4,6] y) {PLACES} {reshape}", None)


def test_size_from_another_tensor_is_not_taken_for_the_inputs_own():
    reshape = RESHAPE.format(rest="four, left").replace("Shape (x)", "Shape (z)")
    feeds = {"x": np.zeros((2, 8, 3), np.float32), "z": np.zeros((3, 1), np.float32)}
    folds(f"(float[n,8,3] x, float[m,1] z) => (float[a,4,b] y) {PLACES} {reshape}", None, feeds=feeds)


SPREAD = "(float[4,1] x) => (float[4,256] y) <int64[2] s = {4, 256}> { o = ConstantOfShape (s)  y = Add (x, o) }"


def test_values_within_the_limit_are_stored():
    folds(SPREAD, "(float[4,1] x) => (float[4,256] y) <float[4,256] o> { y = Add (x, o) }")


def test_file_does_not_grow_beyond_the_limit():
    limited = FoldConstants(max_bytes=4000)
    assert_rewrites(limited, SPREAD, None, notes=["ConstantOfShape 'o': its output of 4096 bytes"])


TWICE = """(float[4,1] x) => (float[4,256] y) <int64[2] s = {4, 256}> {
    o = ConstantOfShape (s)  p = ConstantOfShape <value = float[1] {2}> (s)  z = Add (x, o)  y = Add (z, p) }"""
ONCE = """(float[4,1] x) => (float[4,256] y) <int64[2] s = {4, 256}, float[4,256] p> {
    o = ConstantOfShape (s)  z = Add (x, o)  y = Add (z, p) }"""


def test_limit_holds_for_all_growth_together_and_over_repeated_runs():
    limited, context = FoldConstants(max_bytes=5000), plain_context()
    graph = assert_rewrites(limited, TWICE, ONCE, context=context)
    assert_rewrites(limited, graph, None, context=context, notes=["max_bytes forbids it"])


def test_same_size_is_no_growth():
    assert_rewrites(
        FoldConstants(max_bytes=0),
        "(float[1,2] x) => (float[1,3] y) <float[3,2] w> { t = Transpose <perm = [1, 0]> (w)  y = MatMul (x, t) }",
        "(float[1,2] x) => (float[1,3] y) <float[2,3] t> { y = MatMul (x, t) }",
    )


def test_weight_that_others_read_too_is_growth():
    assert_rewrites(
        FoldConstants(max_bytes=0),
        "(float[1,2] x) => (float[1,2] y) <float[2,2] w>"
        "{ t = Transpose <perm = [1, 0]> (w)  z = MatMul (x, t)  y = MatMul (z, w) }",
        None,
        notes=["Transpose 't': storing its output would let the file grow by 16 bytes"],
    )


def test_random_values_stay_random():
    before = "(float[2] x) => (float[2] y) { r = RandomNormal <shape = [2], seed = 1.0> ()  y = Add (x, r) }"
    folds(before, None)


def test_quantized_weights_stay_quantized():
    folds(
        "(float[1,2] x) => (float[1,2] y) <int8[2,2] w = {1, 2, 3, 4}, float s = {0.5}, int8 z = {0}>"
        "{ d = DequantizeLinear (w, s, z)  y = MatMul (x, d) }",
        None,
        notes=["1 quantized weights stay quantized"],
    )


def test_default_that_a_caller_may_override_is_no_constant():
    folds("(float[2] x, float[2] w = {1, 2}) => (float[2] y) { n = Neg (w)  y = Add (x, n) }", None)


def test_graph_output_stays_the_output_of_a_node():
    folds(
        "(float[2] x) => (float[2] y, float[2] z) <float[2] a = {1, 2}> { b = Neg (a)  y = Neg (b)  z = Add (x, b) }",
        "(float[2] x) => (float[2] y, float[2] z) <float[2] b = {-1, -2}> { y = Neg (b)  z = Add (x, b) }",
        notes=["Neg 'y': a graph output"],
    )


def test_reads_from_inside_a_nested_graph_see_the_stored_value():
    folds(
        """(float[2] x, bool b) => (float[2] y) <float[2] a = {1, 2}> {
            c = Neg (a)
            y = If (b) <then_branch = t () => (float[2] p) { p = Add (x, c) },
                        else_branch = e () => (float[2] q) { q = Sub (x, c) }>
        }""",
        """(float[2] x, bool b) => (float[2] y) <float[2] c = {-1, -2}> {
            y = If (b) <then_branch = t () => (float[2] p) { p = Add (x, c) },
                        else_branch = e () => (float[2] q) { q = Sub (x, c) }>
        }""",
        notes=["what stands inside a nested graph"],
    )


def test_operator_that_the_runtime_lacks_is_left_with_its_words():
    folds(
        "(double[2] x) => (double[2] y) <double[1,1,2,2] a = {1, 2, 3, 4}, double[1,1,1,1] w = {2}>"
        "{ c = ConvTranspose (a, w)  f = Flatten (c)  s = ReduceSum <keepdims = 0> (f)  y = Add (x, s) }",
        None,
        notes=["ConvTranspose 'c': ONNX Runtime cannot"],
        feeds={"x": np.zeros(2)},
    )


def test_what_has_no_size_beforehand_is_left():
    folds(
        "(int64[1,2] x) => (int64[1,2] y) <float[2] a = {1, 0}> { c = NonZero (a)  y = Add (x, c) }",
        None,
        notes=["NonZero 'c': how large its output is cannot be told"],
    )


def test_other_types_than_float_and_integer_are_folded():
    folds(
        "(bool[2] x) => (bool[2] y) <float[2] a = {1, 3}, float two = {2}> { g = Greater (a, two)  y = And (x, g) }",
        "(bool[2] x) => (bool[2] y) <bool[2] g = {0, 1}> { y = And (x, g) }",
    )


def test_bfloat16_is_left_alone():
    tensor = helper.make_tensor("a", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    nodes = [helper.make_node("Neg", ["a"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.BFLOAT16, [2])], [value("y", TensorProto.BFLOAT16, [2])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, [tensor]), opset_imports=[helper.make_opsetid("", 17)]
    )
    folds(Graph.from_proto(model), None)


def test_old_file_format_keeps_its_rule_that_initializers_are_inputs():
    graph = assert_rewrites(
        FoldConstants(),
        """<ir_version: 3, opset_import: ["": 9]> g (float[2] x, float[2] a = {1, 2}) => (float[2] y)
        { b = Neg (a)  c = Add (b, a)  y = Add (x, c) }""",
        """<ir_version: 3, opset_import: ["": 9]> g (float[2] x, float[2] c = {0, 0}) => (float[2] y)
        { y = Add (x, c) }""",
    )
    assert [v.name for v in graph.to_proto().graph.input] == ["x", "c"]
