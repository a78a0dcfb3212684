import numpy as np
import pytest

from onnxopt.testing import assert_rewrites, parse_graph
from onnxopt_passes.fuse_conv import FuseConv


def fuses(before, after, **kwargs):
    return assert_rewrites(FuseConv(), before, after, **kwargs)


IMAGE = "(float[1,4,5,5] x) => (float[1,6,5,5] y)"
CONV = "a = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w)"
FUSED = f"{IMAGE} <float[6,4,3,3] w, float[6] b> {{ y = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w, b) }}"
SCALED = f"{IMAGE} <float[6,4,3,3] w> {{ y = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w) }}"
STATISTICS = "float[6] s, float[6] t, float[6] m, float[6] v = {0.5, 1, 2, 3, 0.1, 7}"
NORMALIZATION = "BatchNormalization <epsilon = 0.001> (a, s, t, m, v)"


def test_batch_normalization_goes_into_the_conv_before_it():
    fuses(f"{IMAGE} <float[6,4,3,3] w, {STATISTICS}> {{ {CONV}  y = {NORMALIZATION} }}", FUSED)


def test_weights_are_the_ones_on_paper():
    fuses(
        """(float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1, 2}, float[2] b = {1, 1},
        float[2] s = {3, 4}, float[2] t = {1, 0}, float[2] m = {2, 1}, float[2] v = {1, 4}>
        { a = Conv (x, w, b)  y = BatchNormalization <epsilon = 0.0> (a, s, t, m, v) }""",
        """(float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {3, 4}, float[2] b = {-2, 0}>
        { y = Conv (x, w, b) }""",
    )


@pytest.mark.parametrize(
    ("node", "constant", "after"),
    [
        ("Mul (a, c)", "float[6,1,1] c", SCALED),
        ("Mul (c, a)", "float[1,6,1,1] c", SCALED),
        ("Mul (a, c)", "float c = {3}", SCALED),
        ("Div (a, c)", "float[6,1,1] c", SCALED),
        ("Add (a, c)", "float[6,1,1] c", FUSED),
        ("Add (c, a)", "float[1] c = {3}", FUSED),
        ("Sub (a, c)", "float[6,1,1] c", FUSED),
        ("Sub (c, a)", "float[6,1,1] c", FUSED),
    ],
)
def test_arithmetic_per_channel_goes_into_the_conv_before_it(node, constant, after):
    fuses(f"{IMAGE} <float[6,4,3,3] w, {constant}> {{ {CONV}  y = {node} }}", after)


@pytest.mark.parametrize(
    ("node", "constant", "reason"),
    [
        ("Add (a, c)", "float[1,6,5,5] c", "the constant is not one number per channel"),
        ("Add (a, c)", "float[5] c", "the constant is not one number per channel"),
        ("Add (a, c)", "float[1,1,6,1,1] c", "the constant may widen"),
        ("Div (c, a)", "float[6,1,1] c", "it divides by the activation"),
        ("Div (a, c)", "float[6,1,1] c = {1, 2, 0, 1, 1, 1}", "it divides by 0"),
        ("Mul (a, c)", "float[6,1,1] c = {1, 2, 3, 4, 5, 3.4e38}", "the weights would not be finite"),
    ],
)
def test_arithmetic_that_stays(node, constant, reason):
    shape = "[1,1,6,5,5]" if "1,1,6" in constant else "[1,6,5,5]"
    image = f"(float[1,4,5,5] x) => (float{shape} y)"
    large = parse_graph(f"{image} <float[6,4,3,3] w, {constant}> {{ {CONV}  y = {node} }}")
    for weight in large.initializers():
        weight.values = weight.values * np.float32(100) if weight.name == "w" else weight.values
    fuses(large, None, notes=[reason])


def test_scales_and_shifts_behind_each_other_all_go():
    fuses(
        f"{IMAGE} <float[6,4,3,3] w, float[6,1,1] c, float[1,6,1,1] d, {STATISTICS}>"
        f"{{ {CONV}  n = {NORMALIZATION}  p = Mul (n, c)  y = Add (p, d) }}",
        FUSED,
    )


@pytest.mark.parametrize("group", [2, 4])
def test_grouped_conv(group):
    conv = f"Conv <group = {group}>"
    fuses(
        f"(float[1,4,3,3] x) => (float[1,8,1,1] y) <float[8,{4 // group},3,3] w, float[8] b, float[8,1,1] c>"
        f"{{ a = {conv} (x, w, b)  y = Mul (a, c) }}",
        f"(float[1,4,3,3] x) => (float[1,8,1,1] y) <float[8,{4 // group},3,3] w, float[8] b>{{ y = {conv} (x, w, b) }}",
    )


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_conv(group):
    conv, ends = f"ConvTranspose <group = {group}, strides = [2, 2]>", "(float[1,4,3,3] x) => (float[1,6,7,7] y)"
    fuses(
        f"{ends} <float[4,{6 // group},3,3] w, {STATISTICS}> {{ a = {conv} (x, w)  y = {NORMALIZATION} }}",
        f"{ends} <float[4,{6 // group},3,3] w, float[6] b> {{ y = {conv} (x, w, b) }}",
        runtimes=["ort"],  # the reference evaluator of onnx 1.23 fails on transposed convolutions in groups
    )


@pytest.mark.parametrize(("transposed", "shape"), [(0, "4,6"), (1, "6,4")])
@pytest.mark.parametrize("bias", ["", ", float[6] b", ", float[1,6] b", ", float b = {2}"])
def test_gemm(transposed, shape, bias):
    ends = "(float[2,4] x) => (float[2,6] y)"
    third = ", b" if bias else ""
    fuses(
        f"{ends} <float[{shape}] w, {STATISTICS}{bias}>"
        f"{{ a = Gemm <alpha = 0.5, beta = 2.0, transB = {transposed}> (x, w{third})  y = {NORMALIZATION} }}",
        f"{ends} <float[{shape}] w, float[6] b>"
        f"{{ y = Gemm <alpha = 0.5, beta = 1.0, transB = {transposed}> (x, w, b) }}",
    )


def test_gemm_with_a_bias_per_row_stays():
    fuses(
        "(float[2,4] x) => (float[2,6] y) <float[4,6] w, float[2,1] b, float[6] c>"
        "{ a = Gemm (x, w, b)  y = Add (a, c) }",
        None,
        notes=["the bias of Gemm 'a' is not one number per channel"],
    )


def test_matmul_and_add_are_a_gemm():
    ends = "(float[2,4] x) => (float[2,6] y)"
    fuses(
        f"{ends} <float[4,6] w, float[6] b> {{ a = MatMul (x, w)  y = Add (a, b) }}",
        f"{ends} <float[4,6] w, float[6] b> {{ y = Gemm (x, w, b) }}",
    )


def test_matmul_of_more_axes_takes_scales_only():
    ends = "(float[2,3,4] x) => (float[2,3,6] y)"
    fuses(
        f"{ends} <float[4,6] w, float[6] b, float[6] c> {{ a = MatMul (x, w)  s = Mul (a, c)  y = Add (s, b) }}",
        f"{ends} <float[4,6] w, float[6] b> {{ s = MatMul (x, w)  y = Add (s, b) }}",
        notes=["Add 'y': only a MatMul of two matrices takes a bias"],
    )


def test_adding_zero_behind_a_matmul_of_more_axes_goes():
    ends = "(float[2,3,4] x) => (float[2,3,6] y)"
    fuses(
        f"{ends} <float[4,6] w, float b = {{0}}> {{ a = MatMul (x, w)  y = Add (a, b) }}",
        f"{ends} <float[4,6] w> {{ y = MatMul (x, w) }}",
    )


def test_batch_normalization_along_another_axis_than_the_weight_stays():
    fuses(
        "(float[1,3,4] x) => (float[1,3,6] y)"
        "<float[4,6] w, float[3] s, float[3] t, float[3] m, float[3] v = {1, 2, 3}>"
        "{ a = MatMul (x, w)  y = BatchNormalization (a, s, t, m, v) }",
        None,
        notes=["its channels are not those of the weight"],
    )


def test_dynamic_sizes_do_not_matter():
    ends = "(float[n,4,h,w] x) => (float[n,6,h,w] y)"
    before = f"{ends} <float[6,4,1,1] k, float[6,1,1] c> {{ a = Conv (x, k)  y = Add (a, c) }}"
    fuses(before, f"{ends} <float[6,4,1,1] k, float[6] c> {{ y = Conv (x, k, c) }}")


def test_half_precision():
    ends = "(float16[1,1,1,1] x) => (float16[1,2,1,1] y)"
    fuses(
        f"{ends} <float16[2,1,1,1] w, float16[2,1,1] c> {{ a = Conv (x, w)  y = Mul (a, c) }}",
        f"{ends} <float16[2,1,1,1] w> {{ y = Conv (x, w) }}",
        runtimes=["reference"],
    )


READ_TWICE = "(float[1,4,5,5] x) => (float[1,6,5,5] y, float[1,6,5,5] z) <float[6,4,3,3] w, float[6,1,1] c>"


def test_conv_that_others_read_stays():
    fuses(
        f"{READ_TWICE} {{ {CONV}  y = Mul (a, c)  z = Relu (a) }}",
        None,
        notes=["Mul 'y': what Conv 'a' computes is read by 2 nodes"],
    )


def test_conv_that_is_a_graph_output_stays():
    fuses(
        f"{READ_TWICE.replace(' z)', ' a)')} {{ {CONV}  y = Mul (a, c) }}",
        None,
        notes=["Mul 'y': what Conv 'a' computes is a graph output"],
    )


def test_shared_weight_is_copied_before_it_is_changed():
    ends = "(float[1,1,2,2] x) => (float[1,1,2,2] y, float[1,1,2,2] z)"
    fuses(
        f"{ends} <float[1,1,1,1] w = {{2}}, float c = {{3}}> {{ a = Conv (x, w)  y = Mul (a, c)  z = Conv (x, w) }}",
        f"{ends} <float[1,1,1,1] v = {{6}}, float[1,1,1,1] w = {{2}}> {{ y = Conv (x, v)  z = Conv (x, w) }}",
    )


def test_weights_that_are_computed_stay():
    fuses(
        "(float[1,1,2,2] x, float[1,1,1,1] w) => (float[1,1,2,2] y) <float c = {3}>{ a = Conv (x, w)  y = Mul (a, c) }",
        None,
        notes=["the weight of Conv 'a' is not constant"],
    )


def test_batch_normalization_in_training_stays():
    fuses(
        f"{IMAGE} <float[6,4,3,3] w, {STATISTICS}>"
        f"{{ {CONV}  y, p, q = {NORMALIZATION.replace('<', '<training_mode = 1, ')} }}",
        None,
        notes=["it normalizes by the batch at hand"],
    )


def test_variance_that_is_not_positive_stays():
    statistics = STATISTICS.replace("0.5", "-0.5")
    fuses(
        f"{IMAGE} <float[6,4,3,3] w, {statistics}> {{ {CONV}  y = {NORMALIZATION} }}",
        None,
        notes=["its variance is not positive"],
    )


BEFORE = "(float[1,4,5,5] x) => (float[1,6,3,3] y)"


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("Mul (x, c)", "float[4,1,1] c"),
        ("Sub (x, c)", "float[4,1,1] c"),
        ("BatchNormalization (x, s, t, m, v)", "float[4] s, float[4] t, float[4] m, float[4] v = {1, 2, 3, 4}"),
    ],
)
def test_scale_and_shift_before_a_conv_that_does_not_pad(group, node, constants):
    weight, conv = f"float[6,{4 // group},3,3] w", f"Conv <group = {group}>"
    scaled = f"{BEFORE} <{weight}> {{ y = {conv} (x, w) }}"
    shifted = f"{BEFORE} <{weight}, float[6] b> {{ y = {conv} (x, w, b) }}"
    before = f"{BEFORE} <{weight}, {constants}> {{ a = {node}  y = {conv} (a, w) }}"
    fuses(before, scaled if "Mul" in node else shifted)


def test_scale_before_a_conv_that_pads_goes_and_shift_stays():
    fuses(
        f"{IMAGE} <float[6,4,3,3] w, float[4,1,1] m, float[4,1,1] s = {{1, 2, 3, 4}}>"
        f"{{ c = Sub (x, m)  n = Div (c, s)  y = {CONV.removeprefix('a = ').replace('(x', '(n')} }}",
        f"{IMAGE} <float[6,4,3,3] w, float[4,1,1] m>"
        f"{{ c = Sub (x, m)  y = {CONV.removeprefix('a = ').replace('(x', '(c')} }}",
        notes=["Sub 'c': a shift before padding cannot go behind it"],
    )


def test_scale_before_a_transposed_conv():
    ends = "(float[1,4,3,3] x) => (float[1,6,5,5] y)"
    fuses(
        f"{ends} <float[4,3,3,3] w, float[4,1,1] c> {{ a = Mul (x, c)  y = ConvTranspose <group = 2> (a, w) }}",
        f"{ends} <float[4,3,3,3] w> {{ y = ConvTranspose <group = 2> (x, w) }}",
        runtimes=["ort"],
    )


@pytest.mark.parametrize(("transposed", "shape"), [(0, "4,6"), (1, "6,4")])
def test_scale_and_shift_before_a_gemm(transposed, shape):
    ends, attrs = "(float[2,4] x) => (float[2,6] y)", f"<alpha = 0.5, transB = {transposed}>"
    fuses(
        f"{ends} <float[{shape}] w, float[4] c, float[4] d>"
        f"{{ a = Mul (x, c)  e = Add (a, d)  y = Gemm {attrs} (e, w) }}",
        f"{ends} <float[{shape}] w, float[6] b> {{ y = Gemm {attrs} (x, w, b) }}",
    )


def test_scale_before_a_gemm_that_transposes_its_input_stays():
    fuses(
        "(float[4,4] x) => (float[4,6] y) <float[4,6] w, float[4] c> { a = Mul (x, c)  y = Gemm <transA = 1> (a, w) }",
        None,
        notes=["transposes its input"],
    )


def test_constant_that_widens_what_a_conv_reads_stays():
    fuses(
        "(float[1,1,5,5] x) => (float[1,6,3,3] y) <float[6,4,3,3] w, float[4,1,1] c>"
        "{ a = Mul (x, c)  y = Conv (a, w) }",
        None,
        notes=["how many channels it reads is not known"],
    )


def test_scale_that_two_convs_read_stays():
    fuses(
        "(float[1,1,2,2] x) => (float[1,1,2,2] y, float[1,1,2,2] z) <float[1,1,1,1] w = {2}, float c = {3}>"
        "{ a = Mul (x, c)  y = Conv (a, w)  z = Conv (a, w) }",
        None,
        notes=["what Mul 'a' computes is read by 2 nodes"],
    )


PADS = "int64[8] p = {0, 0, 1, 2, 0, 0, 3, 0}"


@pytest.mark.parametrize("value", ["", ", z"])
def test_pad_with_zeros_becomes_the_convs_own(value):
    zero = ", float z = {0}" if value else ""
    fuses(
        f"(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w, {PADS}{zero}>"
        f"{{ q = Pad (x, p{value})  y = Conv <pads = [1, 1, 1, 1]> (q, w) }}",
        "(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w> { y = Conv <pads = [2, 3, 4, 1]> (x, w) }",
    )


def test_pad_of_named_axes():
    fuses(
        "(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w, int64[2] p = {1, 2}, int64[1] axes = {-1}>"
        '{ q = Pad (x, p, , axes)  y = Conv <auto_pad = "VALID"> (q, w) }',
        "(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w> { y = Conv <pads = [0, 1, 0, 2]> (x, w) }",
        opset=18,
    )


@pytest.mark.parametrize(
    ("pad", "reason"),
    [
        ('Pad <mode = "reflect"> (x, p)', "it does not pad with a constant"),
        ("Pad (x, p, one)", "it does not pad with zeros"),
        ("Pad (x, channels)", "it pads other axes than height and width"),
        ("Pad (x, cut)", "or cuts off"),
    ],
)
def test_pad_that_stays(pad, reason):
    constants = {
        "(x, p": PADS,
        "one": "float one = {1}",
        "channels": "int64[8] channels = {0, 1, 0, 0, 0, 0, 0, 0}",
        "cut": "int64[8] cut = {0, 0, -1, 0, 0, 0, 0, 0}",
    }
    used = ", ".join(text for name, text in constants.items() if name in pad)
    channels = 2 if "channels" in pad else 1
    fuses(
        f"(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,{channels},3,3] w, {used}>{{ q = {pad}  y = Conv (q, w) }}",
        None,
        notes=[reason],
    )


def test_pad_before_a_conv_that_chooses_its_own_padding_stays():
    fuses(
        f"(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w, {PADS}>"
        '{ q = Pad (x, p)  y = Conv <auto_pad = "SAME_UPPER"> (q, w) }',
        None,
        notes=["chooses its padding itself"],
    )


def test_pad_in_the_attributes_of_old_operator_sets():
    fuses(
        "(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w>"
        "{ q = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x)  y = Conv (q, w) }",
        "(float[1,1,4,4] x) => (float[1,1,a,b] y) <float[1,1,3,3] w> { y = Conv <pads = [1, 1, 1, 1]> (x, w) }",
        opset=9,
    )
