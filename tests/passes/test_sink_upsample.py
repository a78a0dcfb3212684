"""Up-sampling behind 1x1 convolutions."""

import pytest

from onnxopt.analysis.cost import Cost
from onnxopt.manager import run_pass
from onnxopt.report.record import PassRecord
from onnxopt.testing import assert_rewrites, parse_graph, plain_context
from onnxopt_passes.sink_upsample import SinkUpsample

UP = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
SCALES = "float[4] scales = {1, 1, 2, 2}"
AGAIN = "float[4] again = {1, 1, 2, 2}"
PYRAMID = "(float[1,4,2,3] x, float[1,2,4,6] y) => (float[1,3,4,6] z)"
POINT = "kernel_shape = [1, 1]"


def rewrites(before, after, **kwargs):
    return assert_rewrites(SinkUpsample(), before, after, **kwargs)


@pytest.mark.parametrize("order", ["u, y", "y, u"])
def test_a_concat_of_an_upsampling_becomes_a_sum(order):
    rewrites(
        f"{PYRAMID} <{SCALES}, float[3,6,1,1] w, float[3] b> {{ u = Resize <{UP}> (x, , scales)"
        f" c = Concat <axis = 1> ({order}) z = Conv (c, w, b) }}",
        f"{PYRAMID} <{SCALES}, float[3,4,1,1] v, float[3,2,1,1] w, float[3] b> {{ q = Conv <{POINT}> (y, w, b)"
        f" p = Conv <{POINT}> (x, v) u = Resize <{UP}> (p, , scales) z = Add (q, u) }}",
    )


def test_an_upsampling_alone_changes_places():
    ends = "(float[1,4,2,3] x) => (float[1,3,4,6] z)"
    rewrites(
        f"{ends} <{SCALES}, float[3,4,1,1] w, float[3] b> {{ u = Resize <{UP}> (x, , scales) z = Conv (u, w, b) }}",
        f"{ends} <{SCALES}, float[3,4,1,1] w, float[3] b> {{ p = Conv <{POINT}> (x, w, b)"
        f" z = Resize <{UP}> (p, , scales) }}",
    )


def test_two_upsamplings_and_two_others():
    rewrites(
        f"(float[1,3,2,2] x, float[1,3,2,2] k, float[1,1,4,4] y, float[1,2,4,4] h) => (float[1,3,4,4] z)"
        f" <{SCALES}, float[3,9,1,1] w> {{ u = Resize <{UP}> (x, , scales) v = Resize <{UP}> (k, , scales)"
        f" c = Concat <axis = 1> (u, y, v, h) z = Conv (c, w) }}",
        f"(float[1,3,2,2] x, float[1,3,2,2] k, float[1,1,4,4] y, float[1,2,4,4] h) => (float[1,3,4,4] z)"
        f" <{SCALES}, {AGAIN}, float[3,3,1,1] wu, float[3,3,1,1] wv, float[3,3,1,1] wr> {{"
        f" c = Concat <axis = 1> (y, h) q = Conv <{POINT}> (c, wr) p = Conv <{POINT}> (x, wu)"
        f" u = Resize <{UP}> (p, , scales) s = Add (q, u) r = Conv <{POINT}> (k, wv)"
        f" v = Resize <{UP}> (r, , again) z = Add (s, v) }}",
    )


@pytest.mark.parametrize(
    "how",
    [
        'mode = "nearest", coordinate_transformation_mode = "half_pixel", nearest_mode = "round_prefer_floor"',
        'mode = "nearest", coordinate_transformation_mode = "half_pixel", nearest_mode = "round_prefer_ceil"',
        'mode = "nearest"',
    ],
)
@pytest.mark.parametrize("factors", ["2, 2", "1, 3", "4, 2"])
def test_every_form_of_repeating_pixels(how, factors):
    height, width = (int(f) for f in factors.split(", "))
    ends = f"(float[1,4,5,3] x) => (float[1,3,{5 * height},{3 * width}] z)"
    scales = f"float[4] scales = {{1, 1, {factors}}}"
    rewrites(
        f"{ends} <{scales}, float[3,4,1,1] w> {{ u = Resize <{how}> (x, , scales) z = Conv (u, w) }}",
        f"{ends} <{scales}, float[3,4,1,1] w> {{ p = Conv <{POINT}> (x, w) z = Resize <{UP}> (p, , scales) }}",
    )


def test_target_sizes_become_scales():
    ends = "(float[1,4,2,3] x) => (float[1,3,4,6] z)"
    rewrites(
        f"{ends} <int64[4] sizes = {{1, 4, 4, 6}}, float[3,4,1,1] w> {{ u = Resize <{UP}> (x, , , sizes)"
        " z = Conv (u, w) }",
        f"{ends} <{SCALES}, float[3,4,1,1] w> {{ p = Conv <{POINT}> (x, w) z = Resize <{UP}> (p, , scales) }}",
    )


LEFT = "(float[1,4,4,4] x) => (float[1,3,N,M] z)"


@pytest.mark.parametrize(
    ("resize", "scales"),
    [
        ('mode = "linear"', "2, 2"),
        ('mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "ceil"', "2, 2"),
        ('mode = "nearest", coordinate_transformation_mode = "align_corners"', "2, 2"),
        (UP, "1.5, 1.5"),
        (UP, "0.5, 0.5"),
        (UP, "1, 1"),
    ],
)
def test_what_does_not_repeat_pixels_stays(resize, scales):
    rewrites(
        f"{LEFT} <float[4] scales = {{1, 1, {scales}}}, float[3,4,1,1] w> {{ u = Resize <{resize}> (x, , scales)"
        " z = Conv (u, w) }",
        None,
    )


@pytest.mark.parametrize(
    ("conv", "weight"),
    [
        ("Conv <pads = [1, 1, 1, 1]> (u, w)", "float[3,4,3,3] w"),
        ("Conv <strides = [2, 2]> (u, w)", "float[3,4,1,1] w"),
        ("Conv <pads = [1, 1, 1, 1]> (u, w)", "float[3,4,1,1] w"),
        ("Conv <group = 2> (u, w)", "float[4,2,1,1] w"),
    ],
)
def test_other_convolutions_stay(conv, weight):
    count = weight[6]
    rewrites(
        f"(float[1,4,4,4] x) => (float[1,{count},H,W] z) <{SCALES}, {weight}>"
        f" {{ u = Resize <{UP}> (x, , scales) z = {conv} }}",
        None,
    )


@pytest.mark.parametrize(
    ("body", "weight", "reason"),
    [
        ("z = Conv (c, w)  e = Neg (c)", "float[3,6,1,1] w", "is read elsewhere too"),
        ("z = Conv (c, w)  e = Neg (y)", "float[5,6,1,1] w", "makes more channels than it reads from an up-sampling"),
    ],
)
def test_reasons(body, weight, reason):
    assert_rewrites(
        SinkUpsample(),
        f"(float[1,4,2,3] x, float[1,2,4,6] y) => (float[1,{weight[6]},4,6] z, float[1,C,4,6] e) <{SCALES}, {weight}>"
        f" {{ u = Resize <{UP}> (x, , scales) c = Concat <axis = 1> (u, y) {body} }}",
        None,
        notes=[reason],
    )


def test_the_upsampling_stays_for_other_readers():
    ends = "(float[1,4,2,3] x) => (float[1,3,4,6] z, float[1,4,4,6] e)"
    rewrites(
        f"{ends} <{SCALES}, float[3,4,1,1] w> {{ u = Resize <{UP}> (x, , scales) z = Conv (u, w) e = Neg (u) }}",
        f"{ends} <{SCALES}, {AGAIN}, float[3,4,1,1] w> {{ p = Conv <{POINT}> (x, w) z = Resize <{UP}> (p, , again)"
        f" u = Resize <{UP}> (x, , scales) e = Neg (u) }}",
    )


def test_macs_go_down():
    graph = parse_graph(
        f"{PYRAMID} <{SCALES}, float[3,6,1,1] w> {{ u = Resize <{UP}> (x, , scales)"
        " c = Concat <axis = 1> (u, y) z = Conv (c, w) }"
    )
    context = plain_context()
    context.bind(graph.copy(), PassRecord(""))
    assert context.get(Cost).total_macs == 3 * 6 * 24
    run_pass(SinkUpsample(), graph, context, [])
    context.bind(graph, PassRecord(""))
    assert context.get(Cost).total_macs == 3 * 4 * 6 + 3 * 2 * 24


def test_a_concat_may_read_one_upsampling_twice():
    rewrites(
        f"(float[1,4,2,3] x) => (float[1,3,4,6] z) <{SCALES}, float[3,8,1,1] w> {{ u = Resize <{UP}> (x, , scales)"
        f" c = Concat <axis = 1> (u, u) z = Conv (c, w) }}",
        f"(float[1,4,2,3] x) => (float[1,3,4,6] z) <{SCALES}, {AGAIN}, float[3,4,1,1] v, float[3,4,1,1] w> {{"
        f" p = Conv <{POINT}> (x, v) u = Resize <{UP}> (p, , scales) q = Conv <{POINT}> (x, w)"
        f" t = Resize <{UP}> (q, , again) z = Add (u, t) }}",
    )
