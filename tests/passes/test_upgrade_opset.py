import numpy as np
import pytest

from onnxopt import OptimizationError
from onnxopt.manager import run_pass
from onnxopt.testing import assert_rewrites, outputs_of, parse_graph, plain_context, random_feeds
from onnxopt_passes.upgrade_opset import UpgradeOpset


def upgrades(before, after, *, old=11, new=13, **kwargs):
    """Both texts without model header: the one at opset `old`, the other at `new`. Outputs are equal bit for bit."""
    expected = f'<ir_version: 8, opset_import: ["": {new}]> g {after}'
    graph = assert_rewrites(UpgradeOpset(floor=new), before, expected, opset=old, **kwargs)
    source = parse_graph(before, opset=old)
    feeds = kwargs.get("feeds") or random_feeds(source)
    wanted, got = outputs_of(source, feeds), outputs_of(graph, feeds)
    assert {k: v.tobytes() for k, v in wanted.items()} == {k: v.tobytes() for k, v in got.items()}
    return graph


def refuses(before, reason, *, old=11, new=13):
    with pytest.raises(OptimizationError, match=reason):
        run_pass(UpgradeOpset(floor=new), parse_graph(before, opset=old), plain_context(), ())


@pytest.mark.parametrize(
    ("old", "new", "node", "result", "upgraded"),
    [
        (11, 13, "Relu (x)", "float[1,2,3]", "{ y = Relu (x) }"),
        (11, 13, "Squeeze (x)", "float[2,3]", "{ y = Squeeze (x) }"),
        (11, 13, "Squeeze <axes = [0]> (x)", "float[2,3]", "<int64[1] a = {0}> { y = Squeeze (x, a) }"),
        (11, 13, "Unsqueeze <axes = [1]> (x)", "float[1,1,2,3]", "<int64[1] a = {1}> { y = Unsqueeze (x, a) }"),
        (11, 13, "ReduceSum <axes = [1, 2]> (x)", "float[1,1,1]", "<int64[2] a = {1, 2}> { y = ReduceSum (x, a) }"),
        (11, 13, "ReduceMax <axes = [1]> (x)", "float[1,1,3]", "{ y = ReduceMax <axes = [1]> (x) }"),
        (13, 18, "ReduceMax <axes = [1]> (x)", "float[1,1,3]", "<int64[1] a = {1}> { y = ReduceMax (x, a) }"),
        (13, 18, "ReduceL2 (x)", "float[1,1,1]", "{ y = ReduceL2 (x) }"),
        (11, 13, "Dropout <ratio = 0.25> (x)", "float[1,2,3]", "<float r = {0.25}> { y = Dropout (x, r) }"),
        (9, 13, "Clip <max = 6.0> (x)", "float[1,2,3]", "<float h = {6}> { y = Clip (x, , h) }"),
        (9, 13, "Clip <min = 0.5> (x)", "float[1,2,3]", "<float l = {0.5}> { y = Clip (x, l) }"),
        (
            9,
            13,
            "Slice <starts = [0, 1], ends = [1, 9], axes = [1, 2]> (x)",
            "float[1,1,2]",
            "<int64[2] s = {0, 1}, int64[2] e = {1, 9}, int64[2] a = {1, 2}> { y = Slice (x, s, e, a) }",
        ),
        (
            9,
            13,
            "Pad <pads = [0, 0, 1, 0, 0, 0], value = 2.0> (x)",
            "float[1,2,4]",
            "<int64[6] p = {0, 0, 1, 0, 0, 0}, float v = {2}> { y = Pad (x, p, v) }",
        ),
        (
            7,
            13,
            'Upsample <mode = "linear", scales = [1.0, 1.0, 2.0]> (x)',
            "float[1,2,6]",
            """<float[0] r = {}, float[3] s = {1, 1, 2}>
            { y = Resize <coordinate_transformation_mode = "asymmetric", mode = "linear"> (x, r, s) }""",
        ),
    ],
)
def test_operator(old, new, node, result, upgraded):
    ends = f"(float[1,2,3] x) => ({result} y)"
    runtimes = ["ort"] if "Upsample" in node else None  # the reference evaluator knows no Upsample of opset 7
    upgrades(f"{ends} {{ y = {node} }}", f"{ends} {upgraded}", old=old, new=new, runtimes=runtimes)


def test_split_sizes_become_an_input_and_later_equal_parts_are_counted():
    ends = "(float[2,4] x) => (float[2,4] y)"
    unequal = "a, b = Split <axis = 1, split = [1, 3]> (x)  y = Concat <axis = 1> (b, a)"
    upgrades(
        f"{ends} {{ {unequal} }}",
        f"{ends} <int64[2] s = {{1, 3}}> {{ a, b = Split <axis = 1> (x, s)  y = Concat <axis = 1> (b, a) }}",
    )
    equal = "a, b = Split <axis = 1{0}> (x)  y = Concat <axis = 1> (b, a)"
    upgrades(f"{ends} {{ {equal.format('')} }}", f"{ends} {{ {equal.format(', num_outputs = 2')} }}", new=18)


def test_top_k():
    ends = "(float[2,4] x) => (float[2,2] y, int64[2,2] i)"
    upgrades(f"{ends} {{ y, i = TopK <k = 2> (x) }}", f"{ends} <int64[1] k = {{2}}> {{ y, i = TopK (x, k) }}", old=9)


@pytest.mark.parametrize(
    ("old", "op", "scales", "rounding"),
    [
        (9, "Upsample", "1, 1, 2", "floor"),
        (9, "Upsample", "1, 1, 1.7", "floor"),
        (10, "Resize", "1, 1, 2", "floor"),
        (10, "Resize", "1, 1, 1.7", "floor"),
        (10, "Resize", "1, 1, 0.5", "ceil"),
        (10, "Resize", "1, 1, 0.7", "ceil"),
    ],
)
def test_nearest_sampling_stays_what_it_was(old, op, scales, rounding):
    ends = "(float[1,2,6] x) => (float[1,2,n] y)"
    upgrades(
        f'{ends} <float[3] s = {{{scales}}}> {{ y = {op} <mode = "nearest"> (x, s) }}',
        f"""{ends} <float[0] r = {{}}, float[3] s = {{{scales}}}>
        {{ y = Resize <coordinate_transformation_mode = "asymmetric", mode = "nearest", nearest_mode = "{rounding}">
           (x, r, s) }}""",
        old=old,
        runtimes=["ort"],  # the reference evaluator knows Resize from opset 11 on
    )


def test_nearest_sampling_by_computed_scales_is_refused():
    refuses(
        "(float[1,2,6] x, float[3] s) => (float[1,2,n] y) { y = Resize (x, s) }",
        r"Resize 'y' cannot be taken to a newer opset: whether it makes larger or smaller",
        old=10,
    )


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(
    ("shape", "axis"), [("2,3", ""), ("2,3,4", "<axis = 2>"), ("2,3,4", "<axis = -1>"), ("2,3,1,1", "<axis = 1>")]
)
def test_softmax_over_the_last_axis(op, shape, axis):
    ends = f"(float[{shape}] x) => (float[{shape}] y)"
    upgrades(f"{ends} {{ y = {op} {axis} (x) }}", f"{ends} {{ y = {op} {axis or '<axis = 1>'} (x) }}")


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_over_several_axes_is_written_out(op):
    ends = "(float[2,3,4] x) => (float[2,3,4] y)"
    upgrades(
        f"{ends} {{ y = {op} (x) }}",
        f"{ends} <int64[3] s = {{2, 3, 4}}>"
        f"{{ f = Flatten <axis = 1> (x)  g = {op} <axis = -1> (f)  y = Reshape (g, s) }}",
        runtimes=["ort"],  # the reference evaluator takes one axis at any opset
    )


def test_softmax_of_a_tensor_with_open_sizes_is_written_out():
    ends = "(float[n,3,4] x) => (float[n,3,4] y)"
    upgrades(
        f"{ends} {{ y = Softmax (x) }}",
        f"{ends} {{ f = Flatten <axis = 1> (x)  g = Softmax <axis = -1> (f)  s = Shape (x)  y = Reshape (g, s) }}",
        runtimes=["ort"],
    )


def test_batch_normalization():
    ends = "(float[1,2,2] x) => (float[1,2,2] y)"
    constants = "<float[2] s, float[2] b, float[2] m, float[2] v = {1, 2}>"
    upgrades(
        f"{ends} {constants} {{ y = BatchNormalization <spatial = 1> (x, s, b, m, v) }}",
        f"{ends} {constants} {{ y = BatchNormalization (x, s, b, m, v) }}",
        old=8,
        new=15,
        runtimes=["ort"],
    )


def test_nodes_in_nested_graphs_are_upgraded_too():
    ends, squeeze = "(float[1,2] x, bool c) => (float[2] y)", "Squeeze <axes = [0]>"
    upgrades(
        f"""{ends} {{ y = If (c) <then_branch = t () => (float[2] p) {{ p = {squeeze} (x) }},
                                  else_branch = e () => (float[2] q) {{ n = Neg (x)  q = {squeeze} (n) }}> }}""",
        f"""{ends} <int64[1] a = {{0}}, int64[1] b = {{0}}>
            {{ y = If (c) <then_branch = t () => (float[2] p) {{ p = Squeeze (x, a) }},
                           else_branch = e () => (float[2] q) {{ n = Neg (x)  q = Squeeze (n, b) }}> }}""",
    )


def test_softmax_in_a_nested_graph_is_refused():
    refuses(
        """(float[2,3,4] x, bool c) => (float[2,3,4] y) {
            y = If (c) <then_branch = t () => (float[2,3,4] p) { p = Softmax (x) },
                        else_branch = e () => (float[2,3,4] q) { q = Neg (x) }> }""",
        "Softmax 'p'.*nested graph",
    )


@pytest.mark.parametrize("opset", [13, 17])
def test_never_lowers(opset):
    text = "(float[1,2] x) => (float[2] y) <int64[1] a = {0}> { y = Squeeze (x, a) }"
    assert_rewrites(UpgradeOpset(floor=13), text, None, opset=opset)


def test_file_keeps_its_metadata_and_takes_the_format_of_its_opset():
    graph = parse_graph(
        """<ir_version: 6, opset_import: ["": 11, "com.microsoft": 1], metadata_props: ["names": "cat", "stride": "32"]>
        g (float[1,2] x) => (float[2] y) { q = com.microsoft.QuickGelu (x)  y = Squeeze <axes = [0]> (q) }"""
    )
    graph.nodes[0].name = "activation"
    run_pass(UpgradeOpset(), graph, plain_context(), ())
    assert (graph.opsets, graph.ir_version) == ({"": 13, "com.microsoft": 1}, 7)
    assert graph.metadata == {"names": "cat", "stride": "32"}
    assert next(iter(graph.nodes)).name == "activation"


def test_newer_formats_than_old_runtimes_load_are_not_asked_for():
    graph = parse_graph("(float[2] x) => (float[2] y) { y = Relu (x) }")
    run_pass(UpgradeOpset(floor=24), graph, plain_context(), ())
    assert graph.ir_version == 10


def test_oldest_format_becomes_one_whose_initializers_are_constants():
    graph = parse_graph(
        """<ir_version: 3, opset_import: ["": 9]> g (float[2] x, float[2] w = {1, 2}) => (float[2] y)
        { y = Add (x, w) }"""
    )
    run_pass(UpgradeOpset(), graph, plain_context(), ())
    assert graph.overridable == []
    assert [v.name for v in graph.to_proto().graph.input] == ["x"]


@pytest.mark.parametrize(
    ("text", "reason", "old", "new"),
    [
        ("(float[2] x) => (float[2] y) { y = Relu (x) }", "opset 6 cannot be upgraded", 6, 13),
        (
            "(float[2,2] x) => (float[2,2] y, bool[2,2] m) { y, m = Dropout (x)  }",
            "its mask is read",
            7,
            13,
        ),
        (
            """(float[1,4,2] x) => (float[1,4,2] y) <float[2] s, float[2] b>
            { y = GroupNormalization <num_groups = 2> (x, s, b) }""",
            "GroupNormalization means something else since opset 21",
            18,
            21,
        ),
        ("(float[1,4,1] x) => (float[1,4,2] y) { y = DFT <axis = 1> (x) }", "since opset 20", 17, 20),
    ],
)
def test_what_cannot_be_kept_is_refused(text, reason, old, new):
    refuses(text, reason, old=old, new=new)


def test_local_functions_are_refused():
    graph = parse_graph(
        """<ir_version: 8, opset_import: ["": 11, "own": 1]> g (float[2] x) => (float[2] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["": 11]> twice (a) => (b) { b = Add (a, a) }"""
    )
    with pytest.raises(OptimizationError, match="local functions"):
        run_pass(UpgradeOpset(), graph, plain_context(), ())


def test_sampling_modes_get_their_new_names():
    ends = "(float[1,1,2,2] x, float[1,2,2,2] g) => (float[1,1,2,2] y)"
    upgrades(
        f"{ends} {{ y = GridSample (x, g) }}",
        f'{ends} {{ y = GridSample <mode = "linear"> (x, g) }}',
        old=16,
        new=20,
        runtimes=["ort"],
    )


def test_scatter_gets_its_new_name():
    ends = "(float[3] x, float[1] u) => (float[3] y)"
    upgrades(
        f"{ends} <int64[1] i = {{1}}> {{ y = Scatter (x, i, u) }}",
        f"{ends} <int64[1] i = {{1}}> {{ y = ScatterElements (x, i, u) }}",
        old=9,
        feeds={"x": np.zeros(3, np.float32), "u": np.ones(1, np.float32)},
        runtimes=["ort"],
    )
