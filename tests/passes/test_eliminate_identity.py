import re

import numpy as np
import pytest

from onnxopt.testing import assert_rewrites
from onnxopt_passes.eliminate_identity import EliminateIdentity

ENDS = "(float[2,3,4,4] x) => (float[2,3,4,4] y)"
CONSTANTS = {
    "one": "float one = {1}",
    "ones": "float[3,1,1] ones = {1, 1, 1}",
    "wide": "float[2,1,1,1,1] wide = {1, 1}",
    "almost": "float[3,1,1] almost = {1, 1, 2}",
    "zero": "float zero = {0}",
    "minus_zero": "float minus_zero = {-0.0}",
    "half": "float half = {0.5}",
    "no": "bool no = {0}",
    "yes": "bool yes = {1}",
    "shape": "int64[4] shape = {2, 3, 4, 4}",
    "swapped": "int64[4] swapped = {3, 2, 4, 4}",
    "once": "int64[4] once = {1, 1, 1, 1}",
    "no_pads": "int64[8] no_pads = {0, 0, 0, 0, 0, 0, 0, 0}",
    "pads": "int64[8] pads = {0, 0, 1, 0, 0, 0, -1, 0}",
    "start": "int64[1] start = {0}",
    "back": "int64[1] back = {-1}",
    "low": "int64[1] low = {-9223372036854775807}",
    "four": "int64[1] four = {4}",
    "at": "int64[1] at = {2}",
    "end": "int64[1] end = {9223372036854775807}",
    "by_one": "float[4] by_one = {1, 1, 1, 1}",
}


def graph(body, ends=ENDS):
    """Text of a graph with the constants that its body names."""
    used = [text for name, text in CONSTANTS.items() if re.search(rf"\b{name}\b", body)]
    return f"{ends} <{', '.join(used)}> {{ {body} }}" if used else f"{ends} {{ {body} }}"


def rewrites(before, after, **kwargs):
    return assert_rewrites(EliminateIdentity(), before, after, **kwargs)


@pytest.mark.parametrize(
    "node",
    [
        "Identity (x)",
        "Concat <axis = 1> (x)",
        "Sum (x)",
        "Max (x)",
        "Min (x)",
        "Mean (x)",
        "Dropout (x)",
        "Dropout (x, half)",
        "Dropout (x, half, no)",
        "Split <axis = 1> (x)",
        "Transpose <perm = [0, 1, 2, 3]> (x)",
        "Cast <to = 1> (x)",
        "CastLike (x, half)",
        "Pad (x, no_pads)",
        "Slice (x, start, end, at)",
        "Slice (x, start, four, at)",
        "Tile (x, once)",
        "Resize (x, , by_one)",
        'Resize <mode = "linear"> (x, , by_one)',
        "Resize (x, , , shape)",
        "MaxPool <kernel_shape = [1, 1]> (x)",
        "AveragePool <kernel_shape = [1, 1], strides = [1, 1]> (x)",
        "Reshape (x, shape)",
        "Expand (x, shape)",
        "Expand (x, once)",
        "Mul (x, one)",
        "Mul (ones, x)",
        "Div (x, one)",
        "Sub (x, zero)",
        "Add (x, minus_zero)",
    ],
)
def test_hands_on_its_input(node):
    rewrites(graph(f"a = {node}  y = Relu (a)"), f"{ENDS} {{ y = Relu (x) }}")


@pytest.mark.parametrize(
    "node",
    [
        "Transpose <perm = [0, 1, 3, 2]> (x)",
        "Pad (x, pads)",
        "Slice (x, back, low, at, back)",
        "MaxPool <kernel_shape = [1, 1], strides = [2, 2], pads = [2, 2, 2, 2]> (x)",
        "Mul (x, almost)",
        "Mul (x, zero)",
        "Add (x, one)",
        "Sub (x, minus_zero)",
    ],
)
def test_changes_its_input(node):
    rewrites(graph(f"a = {node}  y = Relu (a)"), None)


def test_reshape_to_another_shape_stays():
    rewrites(graph("a = Reshape (x, swapped)  y = Relu (a)", "(float[2,3,4,4] x) => (float[3,2,4,4] y)"), None)


def test_constant_that_widens_its_operand_stays():
    rewrites(graph("a = Mul (x, wide)  y = Relu (a)", "(float[2,3,4,4] x) => (float[2,2,3,4,4] y)"), None)


def test_adding_zero_is_not_exact():
    rewrites(graph("y = Add (x, zero)"), None, notes=["Add 'y': adding 0 turns -0 into +0"])


def test_adding_zero_to_whole_numbers_is_exact():
    ends = "(int64[2] x) => (int64[2] y)"
    rewrites(f"{ends} <int64 z = {{0}}> {{ a = Add (x, z)  y = Neg (a) }}", f"{ends} {{ y = Neg (x) }}")


def test_dropout_in_training_stays():
    rewrites(graph("a = Dropout <seed = 1> (x, half, yes)  y = Relu (a)"), None)


def test_dropout_whose_mask_is_read_stays():
    ends = "(float[2] x) => (float[2] y, bool[2] m)"
    rewrites(f"{ends} {{ a, m = Dropout (x)  y = Relu (a) }}", None)


def test_pool_whose_indices_are_read_stays():
    ends = "(float[1,1,2,2] x) => (float[1,1,2,2] y, int64[1,1,2,2] i)"
    rewrites(f"{ends} {{ a, i = MaxPool <kernel_shape = [1, 1]> (x)  y = Relu (a) }}", None)


def test_names_of_graph_outputs_stay():
    rewrites(
        "(float[2] x) => (float[2] y) { a = Relu (x)  y = Identity (a) }",
        "(float[2] x) => (float[2] y) { y = Relu (x) }",
    )


def test_node_between_input_and_output_stays():
    rewrites("(float[2] x) => (float[2] y) { y = Identity (x) }", None, notes=["Identity 'y': stands between"])


def test_two_outputs_that_are_one_tensor_keep_their_names():
    rewrites("(float[2] x) => (float[2] y, float[2] z) { y = Relu (x)  z = Identity (y) }", None)


def test_nested_graphs_read_what_is_left():
    rewrites(
        """(float[2] x, bool b) => (float[2] y) {
            a = Identity (x)
            y = If (b) <then_branch = t () => (float[2] p) { p = Neg (a) },
                        else_branch = e () => (float[2] q) { q = Abs (a) }>
        }""",
        """(float[2] x, bool b) => (float[2] y) {
            y = If (b) <then_branch = t () => (float[2] p) { p = Neg (x) },
                        else_branch = e () => (float[2] q) { q = Abs (x) }>
        }""",
    )


def test_identities_of_weights_that_an_exporter_shares():
    rewrites(
        "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { v = Identity (w)  a = Mul (x, w)  y = Mul (a, v) }",
        "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Mul (x, w)  y = Mul (a, w) }",
    )


def test_dynamic_batch_is_known_to_stay():
    ends = "(float[n,3,4,4] x) => (float[n,3,4,4] y)"
    rewrites(
        f"{ends} <int64[4] t = {{0, 3, 4, -1}}> {{ a = Reshape (x, t)  y = Relu (a) }}", f"{ends} {{ y = Relu (x) }}"
    )


def test_symbol_that_names_two_dimensions_proves_nothing():
    rewrites(
        "(float[q,q,2] x, float[q,q,2] z) => (float[a,b,2] y) { s = Shape (z)  e = Expand (x, s)  y = Relu (e) }",
        None,
        feeds={"x": np.ones((1, 2, 2), np.float32), "z": np.ones((3, 2, 2), np.float32)},
    )


def test_transposes_become_one_or_none():
    ends = "(float[2,3,4] x) => (float[4,2,3] y)"
    rewrites(
        f"{ends} {{ a = Transpose <perm = [1, 2, 0]> (x)  b = Transpose <perm = [1, 2, 0]> (a)  y = Relu (b) }}",
        f"{ends} {{ b = Transpose <perm = [2, 0, 1]> (x)  y = Relu (b) }}",
    )
    same = "(float[2,3,4] x) => (float[2,3,4] y)"
    rewrites(f"{same} {{ a = Transpose (x)  b = Transpose (a)  y = Relu (b) }}", f"{same} {{ y = Relu (x) }}")


def test_transpose_that_others_read_stays_for_them():
    ends = "(float[2,3] x) => (float[2,3] y, float[3,2] z)"
    rewrites(
        f"{ends} {{ a = Transpose (x)  b = Transpose (a)  y = Relu (b)  z = Neg (a) }}",
        f"{ends} {{ y = Relu (x)  a = Transpose (x)  z = Neg (a) }}",
    )


@pytest.mark.parametrize(
    "views",
    [
        "a = Reshape (x, left)  b = Reshape (a, shape)",
        "a = Flatten (x)  b = Reshape (a, shape)",
        "a = Unsqueeze (x, left)  b = Squeeze (a, left)",
        "a = Unsqueeze (x, left)  b = Squeeze (a)",
    ],
)
def test_views_that_undo_each_other_go(views):
    ends = "(float[2,3] x) => (float[2,3] y)"
    constants = [text for text in ("int64[1] left = {-1}", "int64[2] shape = {2, 3}") if text.split()[1] in views]
    rewrites(f"{ends} <{', '.join(constants)}> {{ {views}  y = Relu (b) }}", f"{ends} {{ y = Relu (x) }}")


def test_views_of_a_tensor_with_open_sizes_that_undo_each_other_go():
    ends = "(float[n,m] x) => (float[n,m] y)"
    rewrites(
        f"{ends} <int64[1] i = {{1}}> {{ a = Unsqueeze (x, i)  b = Squeeze (a, i)  y = Relu (b) }}",
        f"{ends} {{ y = Relu (x) }}",
    )


def test_two_views_are_one():
    rewrites(
        "(float[n,3,4] x) => (float[n,2,6] y) <int64[2] s = {0, -1}, int64[3] t = {0, 2, 6}>"
        "{ a = Reshape (x, s)  y = Reshape (a, t) }",
        "(float[n,3,4] x) => (float[n,2,6] y) <int64[3] t = {0, 2, 6}> { y = Reshape (x, t) }",
    )


def test_views_with_several_unknown_sizes_stay():
    rewrites(
        "(float[n,m] x, int64[3] t) => (float[a,b,c] y) <int64[1] s = {-1}> { a = Reshape (x, s)  y = Reshape (a, t) }",
        None,
        feeds={"x": np.zeros((2, 6), np.float32), "t": np.array([2, 2, 3])},
        notes=["more than one size of its output is not known"],
    )


def test_view_that_others_read_stays():
    rewrites(
        "(float[2,6] x) => (float[3,4] y, float[12] z) <int64[1] s = {-1}, int64[2] t = {3, 4}>"
        "{ a = Reshape (x, s)  y = Reshape (a, t)  z = Relu (a) }",
        None,
    )


FLOAT, INT8, INT32, INT64, FLOAT16, DOUBLE = 1, 3, 6, 7, 10, 11


@pytest.mark.parametrize(
    ("given", "middle", "last"), [("float16", FLOAT, INT32), ("int8", FLOAT, INT64), ("bool", INT64, FLOAT)]
)
def test_cast_that_loses_nothing_goes(given, middle, last):
    result = {FLOAT: "float", INT32: "int32", INT64: "int64"}[last]
    ends = f"({given}[2] x) => ({result}[2] y)"
    rewrites(
        f"{ends} {{ a = Cast <to = {middle}> (x)  y = Cast <to = {last}> (a) }}",
        f"{ends} {{ y = Cast <to = {last}> (x) }}",
    )


def test_widening_and_narrowing_back_is_nothing():
    ends = "(float16[2] x) => (float16[2] y)"
    rewrites(
        f"{ends} {{ a = Cast <to = {FLOAT}> (x)  b = Cast <to = {FLOAT16}> (a)  y = Neg (b) }}",
        f"{ends} {{ y = Neg (x) }}",
    )


@pytest.mark.parametrize(
    ("given", "middle"), [("float", FLOAT16), ("float", INT64), ("int64", DOUBLE), ("int64", INT32), ("double", FLOAT)]
)
def test_cast_that_loses_something_stays(given, middle):
    last = {"float": FLOAT, "int64": INT64, "double": DOUBLE}[given]
    rewrites(f"({given}[2] x) => ({given}[2] y) {{ a = Cast <to = {middle}> (x)  y = Cast <to = {last}> (a) }}", None)


def test_slices_along_two_axes_are_one():
    rewrites(
        "(float[1,1,4,6] x) => (float[1,1,2,3] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {99},"
        "int64[1] h = {2}, int64[1] w = {-1}, int64[1] two = {2}>"
        "{ a = Slice (x, zero, end, h, two)  y = Slice (a, one, end, w, two) }",
        "(float[1,1,4,6] x) => (float[1,1,2,3] y) <int64[2] s = {0, 1}, int64[2] e = {99, 99}, int64[2] a = {2, 3},"
        "int64[2] t = {2, 2}> { y = Slice (x, s, e, a, t) }",
    )


def test_slices_along_one_axis_stay():
    rewrites(
        "(float[6] x) => (float[2] y) <int64[1] one = {1}, int64[1] end = {5}, int64[1] at = {0}, int64[1] last = {-1}>"
        "{ a = Slice (x, one, end, at)  y = Slice (a, one, last, last) }",
        None,
    )


def test_concats_become_one():
    rewrites(
        "(float[1,2] x, float[1,3] z) => (float[1,12] y)"
        "{ a = Concat <axis = 1> (x, z)  b = Concat <axis = 1> (z, x, x)  y = Concat <axis = 1> (a, b) }",
        "(float[1,2] x, float[1,3] z) => (float[1,12] y) { y = Concat <axis = 1> (x, z, z, x, x) }",
    )


@pytest.mark.parametrize(
    ("before", "ends"),
    [
        ("a = Concat <axis = 0> (x, x)  y = Concat <axis = 1> (a, a)", "(float[1,2] x) => (float[2,4] y)"),
        ("a = Concat <axis = 1> (x, x)  y = Concat <axis = 1> (a, a)", "(float[1,2] x) => (float[1,8] y)"),
    ],
)
def test_concats_that_cannot_be_one_stay(before, ends):
    rewrites(f"{ends} {{ {before} }}", None)


SPLIT = "(float[1,4] x) => (float[1,4] y) { a, b = Split <axis = 1> (x)"


def test_parts_of_a_split_in_order_are_the_whole():
    rewrites(
        f"{SPLIT}  c = Concat <axis = 1> (a, b)  y = Relu (c) }}", "(float[1,4] x) => (float[1,4] y) { y = Relu (x) }"
    )


def test_parts_of_a_split_in_another_order_stay():
    rewrites(f"{SPLIT}  c = Concat <axis = 1> (b, a)  y = Relu (c) }}", None)


def test_parts_of_a_split_within_a_concat_are_the_whole_and_a_lone_part_is_a_slice():
    ends = "(float[1,4] x) => (float[1,7] y)"
    rewrites(
        f"""{ends} <int64[2] sizes = {{1, 3}}> {{ a, b = Split <axis = 1> (x, sizes)  c = Neg (b)
            y = Concat <axis = 1> (a, b, c) }}""",
        f"""{ends} <int64[1] start = {{1}}, int64[1] end = {{4}}, int64[1] axis = {{1}}> {{
            b = Slice (x, start, end, axis)  c = Neg (b)  y = Concat <axis = 1> (x, c) }}""",
    )


def test_split_with_several_parts_read_stays_a_split():
    ends = "(float[1,4] x) => (float[1,8] y)"
    rewrites(
        f"""{ends} {{ a, b = Split <axis = 1> (x)  c = Neg (b)  d = Neg (a)
            y = Concat <axis = 1> (a, b, c, d) }}""",
        f"""{ends} {{ a, b = Split <axis = 1> (x)  c = Neg (b)  d = Neg (a)
            y = Concat <axis = 1> (x, c, d) }}""",
    )


def test_attributes_of_old_operator_sets():
    rewrites(
        """(float[2,3] x) => (float[2,3] y) {
            a = Pad <pads = [0, 0, 0, 0]> (x)  b = Slice <starts = [0], ends = [3], axes = [1]> (a)
            c = Unsqueeze <axes = [0]> (b)  d = Squeeze <axes = [0]> (c)  e = Dropout (d)  y = Relu (e) }""",
        "(float[2,3] x) => (float[2,3] y) { y = Relu (x) }",
        opset=9,
    )


def test_operators_of_other_domains_are_not_touched():
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2] x) => (float[2] y)
        { a = com.microsoft.Identity (x)  y = Relu (a) }"""
    rewrites(text, None)


def test_long_chain_collapses_in_one_run():
    chain = "a0 = Identity (x)  " + "".join(f"a{i + 1} = Transpose (a{i})  " for i in range(50))
    rewrites(
        f"(float[2,2] x) => (float[2,2] y) {{ {chain} y = Relu (a50) }}",
        "(float[2,2] x) => (float[2,2] y) { y = Relu (x) }",
    )
