import numpy as np
import pytest

from onnxopt.testing import assert_rewrites
from onnxopt_passes.merge_duplicates import MergeDuplicates

ENDS = "(float[2] x) => (float[2] y)"


def merges(before, after, **kwargs):
    return assert_rewrites(MergeDuplicates(), before, after, **kwargs)


def test_equal_initializers_become_one():
    merges(
        f"{ENDS} <float[2] a = {{1, 2}}, float[2] b = {{1, 2}}, float[2] c = {{1, 3}}>"
        "{ p = Add (x, a)  q = Mul (p, b)  y = Sub (q, c) }",
        f"{ENDS} <float[2] a = {{1, 2}}, float[2] c = {{1, 3}}> {{ p = Add (x, a)  q = Mul (p, a)  y = Sub (q, c) }}",
    )


@pytest.mark.parametrize("other", ["float[1,2] b = {1, 2}", "float[2] b = {1, 2.5}", "double[2] b = {1, 2}"])
def test_initializers_that_differ_stay(other):
    merges(
        f"{ENDS} <float[2] a = {{1, 2}}, {other}> {{ p = Add (x, a)  c = CastLike (b, x)  q = Mul (p, c)"
        "  f = Flatten <axis = 0> (q)  y = ReduceSum <keepdims = 0> (f) }".replace("float[2] y", "float y"),
        None,
    )


def test_zero_and_minus_zero_differ():
    merges(
        f"{ENDS} <float[2] a = {{0, 0}}, float[2] b = {{-0.0, 0}}>{{ p = Div (x, a)  q = Div (x, b)  y = Max (p, q) }}",
        None,
        feeds={"x": np.zeros(2, np.float32)},
    )


def test_default_that_a_caller_may_override_stays():
    merges(
        "(float[2] x, float[2] a = {1, 2}) => (float[2] y) <float[2] b = {1, 2}> { p = Add (x, a)  y = Mul (p, b) }",
        None,
    )


def test_equal_nodes_become_one_all_the_way_down():
    merges(
        f"{ENDS} <float[2] a = {{1, 2}}, float[2] b = {{1, 2}}>"
        "{ p = Add (x, a)  q = Add (x, b)  r = Relu (p)  s = Relu (q)  y = Mul (r, s) }",
        f"{ENDS} <float[2] a = {{1, 2}}> {{ p = Add (x, a)  r = Relu (p)  y = Mul (r, r) }}",
    )


@pytest.mark.parametrize(
    "nodes",
    [
        "p = Relu (x)  q = Sigmoid (x)",
        "p = LeakyRelu <alpha = 0.1> (x)  q = LeakyRelu <alpha = 0.2> (x)",
        "n = Neg (x)  p = Sub (x, n)  q = Sub (n, x)",
        "p = Clip (x, x)  q = Clip (x, , x)",
        "p = RandomNormalLike (x)  q = RandomNormalLike (x)",
    ],
)
def test_nodes_that_differ_stay(nodes):
    merges(f"{ENDS} {{ {nodes}  y = Add (p, q) }}", None)


def test_constant_nodes_are_compared_by_value():
    constant = "Constant <value = float[2] {1, 2}> ()"
    merges(
        f"{ENDS} {{ a = {constant}  b = {constant}  p = Add (x, a)  y = Mul (p, b) }}",
        f"{ENDS} {{ a = {constant}  p = Add (x, a)  y = Mul (p, a) }}",
    )


def test_name_of_a_graph_output_stays():
    two = "(float[2] x) => (float[2] y, float[2] z)"
    merges(f"{two} {{ a = Relu (x)  z = Relu (x)  y = Neg (a) }}", f"{two} {{ z = Relu (x)  y = Neg (z) }}")


def test_two_equal_graph_outputs_stay():
    merges(
        "(float[2] x) => (float[2] y, float[2] z) { y = Relu (x)  z = Relu (x) }",
        None,
        notes=["Relu 'z': equals another node, but both are graph outputs"],
    )


def test_nodes_with_several_outputs():
    ends = "(float[4] x) => (float[2] y)"
    merges(
        f"{ends} {{ a, b = Split <axis = 0> (x)  c, d = Split <axis = 0> (x)"
        "  p = Add (a, d)  q = Add (b, c)  y = Mul (p, q) }",
        f"{ends} {{ a, b = Split <axis = 0> (x)  p = Add (a, b)  q = Add (b, a)  y = Mul (p, q) }}",
    )


def test_nested_graphs_read_what_is_left():
    branches = """<then_branch = t () => (float[2] p) {{ p = Add ({0}, {1}) }},
                   else_branch = e () => (float[2] q) {{ q = Sub ({0}, {1}) }}>"""
    ends = "(float[2] x, bool b) => (float[2] y)"
    merges(
        f"{ends} {{ a = Relu (x)  c = Relu (x)  y = If (b) {branches.format('a', 'c')} }}",
        f"{ends} {{ a = Relu (x)  y = If (b) {branches.format('a', 'a')} }}",
    )


def test_nodes_of_other_domains_stay():
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2] x) => (float[2] y)
        { a = com.microsoft.QuickGelu (x)  b = com.microsoft.QuickGelu (x)  y = Add (a, b) }"""
    merges(text, None)


HALVES = "(float[n,4,2] x) => (float[n,m,2] y)"


def cut(axis, start, end):
    """A Slice as it was written up to opset 9."""
    return f"Slice <axes = [{axis}], starts = [{start}], ends = [{end}]> (x)"


@pytest.mark.parametrize(("low", "high"), [((1, 0, 1), (1, 1, 4)), ((-2, 0, -3), (1, -3, 99))])
def test_slices_that_make_up_a_tensor_become_a_split(low, high):
    merges(
        f"{HALVES} {{ b = {cut(*high)}  a = {cut(*low)}  y = Concat <axis = 1> (b, a) }}",
        f"{HALVES} {{ a, b = Split <axis = 1, split = [1, 3]> (x)  y = Concat <axis = 1> (b, a) }}",
        opset=9,
    )


def test_slices_with_their_arguments_as_inputs():
    merges(
        f"{HALVES} <int64[1] low = {{0}}, int64[1] one = {{1}}, int64[1] end = {{9223372036854775807}}>"
        "{ a = Slice (x, low, one, one)  b = Slice (x, one, end, one, one)  y = Concat <axis = 1> (b, a) }",
        f"{HALVES} <int64[2] s = {{1, 3}}> {{ a, b = Split <axis = 1> (x, s)  y = Concat <axis = 1> (b, a) }}",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 0, 1), (1, 2, 4)),  # a gap
        ((1, 0, 3), (1, 1, 4)),  # an overlap
        ((1, 1, 2), (1, 2, 4)),  # the start is missing
        ((1, 0, 2), (2, 0, 1)),  # two axes
        ((0, 0, 1), (0, 1, 99)),  # an axis of unknown size
    ],
)
def test_slices_that_are_no_parts_of_a_whole_stay(first, second):
    ends = "(float[n,4,2] x) => (float[p] y)"
    flat = "f = Reshape (a, t)  g = Reshape (b, t)  y = Concat <axis = 0> (f, g)"
    merges(f"{ends} <int64[1] t = {{-1}}> {{ a = {cut(*first)}  b = {cut(*second)}  {flat} }}", None, opset=9)


def test_slice_that_turns_its_input_round_stays():
    merges(
        f"{HALVES} <int64[1] one = {{1}}, int64[1] back = {{-1}}, int64[1] low = {{-9}}, int64[1] end = {{9}}>"
        "{ a = Slice (x, back, low, one, back)  b = Slice (x, one, end, one)  y = Concat <axis = 1> (b, a) }",
        None,
    )
