"""The checks that everything else is checked with must themselves be able to fail."""

import numpy as np
import pytest

from onnxopt import Context, Graph, Pass
from onnxopt.testing import (
    assert_preserves,
    assert_rewrites,
    graph_text,
    outputs_of,
    parse_graph,
    plain_context,
    random_feeds,
)

ENDS = "(float[2] x) => (float[2] y)"
RELU = f"{ENDS} {{ y = Relu (x) }}"


class Scale(Pass):
    """Multiply the first constant of every Mul by a number."""

    name = "scale"
    effect = "exact"
    by = 1.0
    claims = True

    def run(self, graph: Graph, context: Context) -> bool:
        for node in graph.nodes_of("Mul"):
            constant = graph.own_constant(node, 1)
            constant.values = (constant.values * self.by).astype(constant.values.dtype)
            context.note(node, "scaled")
        return self.claims


class Slightly(Scale):
    """Change outputs by as little as rounding does."""

    name = "slightly"
    effect = "rounding"
    by = 1 + 3e-6


class TooMuch(Slightly):
    """Change outputs by more than rounding does."""

    name = "too-much"
    by = 1 + 3e-5


class Doubled(Scale):
    """Double outputs, and say what they then must equal."""

    name = "doubled"
    effect = "lossy"
    by = 2.0
    right = True

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        expected = before.copy()
        for node in expected.nodes_of("Mul"):
            constant = expected.own_constant(node, 1)
            constant.values = constant.values * np.float32(2 if self.right else 3)
        return expected


class WronglyDoubled(Doubled):
    """Double outputs, and say that they must be something else."""

    name = "wrongly-doubled"
    right = False


class Infinite(Scale):
    """Make outputs infinite."""

    name = "infinite"
    effect = "lossy"
    by = float("inf")


class Idle(Scale):
    """Do nothing, and say that something was done."""

    name = "idle"


class Silent(Scale):
    """Change something, and say that nothing was done."""

    name = "silent"
    by = 2.0
    claims = False


class Renamed(Pass):
    """Rename the output."""

    name = "renamed"
    effect = "exact"

    def run(self, graph: Graph, context: Context) -> bool:
        graph.outputs[0].name = "z"
        return True


MUL = f"{ENDS} <float[2] w = {{1.5, -2.25}}> {{ y = Mul (x, w) }}"
ANY = f"{ENDS} <float[2] w> {{ y = Mul (x, w) }}"


def test_change_within_rounding_is_accepted():
    assert_rewrites(Slightly(), MUL, ANY, notes=["Mul 'y': scaled"])
    assert_preserves(Slightly(), MUL)


def test_change_beyond_rounding_is_found_with_its_size():
    with pytest.raises(AssertionError, match=r"ort: output 'y' differs by 3\.01e-05 of its .*; 1e-05 is allowed"):
        assert_preserves(TooMuch(), MUL)


def test_smallest_change_of_an_exact_pass_is_found():
    class Last(Scale):
        """Change the last bit."""

        name = "last"
        by = 1 + 2.0**-23

    with pytest.raises(AssertionError, match="it must be equal bit for bit"):
        assert_preserves(Last(), MUL)


def test_effect_of_several_passes_is_the_widest():
    assert_preserves([Slightly(), Slightly()], MUL)


def test_lossy_pass_is_held_to_its_reference():
    assert_preserves(Doubled(), MUL)
    with pytest.raises(AssertionError, match="of its largest value"):
        assert_preserves(WronglyDoubled(), MUL)


def test_lossy_pass_must_give_finite_outputs():
    with pytest.raises(AssertionError, match="output 'y' is not finite"):
        assert_preserves(Infinite(), MUL)


@pytest.mark.parametrize(
    ("step", "said"),
    [(Idle(), "idle returned True, but the graph changed: False"), (Silent(), "silent returned False.*changed: True")],
)
def test_pass_that_does_not_say_the_truth_is_found(step, said):
    with pytest.raises(AssertionError, match=said):
        assert_preserves(step, MUL)


def test_lost_output_is_found():
    with pytest.raises(AssertionError, match=r"outputs were \['y'\] and are \['z'\]"):
        assert_preserves(Renamed(), RELU)


def test_wrong_graph_is_shown_as_a_diff():
    with pytest.raises(AssertionError) as failure:
        assert_rewrites(Slightly(), MUL, f"{ENDS} <float[2] w> {{ y = Div (x, w) }}")
    assert "-y = Div (x, c0)" in str(failure.value)
    assert "+y = Mul (x, c0)" in str(failure.value)


def test_graph_that_should_have_stayed_is_shown_as_a_diff():
    with pytest.raises(AssertionError, match=r"-float\[2\] c0 = \{1.5, -2.25\}"):
        assert_rewrites(Doubled(), MUL, None)


def test_missing_note_is_found():
    with pytest.raises(AssertionError, match=r"no note says 'shifted'; the notes are \[\"Mul 'y': scaled\"\]"):
        assert_rewrites(Slightly(), MUL, ANY, notes=["shifted"])


def test_graph_before_is_not_touched():
    graph = parse_graph(MUL)
    before = graph.digest()
    after = assert_preserves(Doubled(), graph)
    assert graph.digest() == before
    assert after.digest() != before


def test_text_does_not_depend_on_order_and_inner_names():
    one = "{ a = Neg (x)  b = Add (x, v)  y = Mul (a, b) }"
    other = "{ q = Add (x, w)  p = Neg (x)  y = Mul (p, q) }"
    first = parse_graph(f"{ENDS} <float[2] v = {{1, 2}}> {one}")
    second = parse_graph(f"{ENDS} <float[2] w = {{1, 2}}> {other}")
    assert graph_text(first) == graph_text(second)
    assert graph_text(first).splitlines() == [
        "opset ai.onnx 17",
        "input float[2] x",
        "float[2] c0 = {1.0, 2.0}",
        "t0 = Neg (x)",
        "t1 = Add (x, c0)",
        "y = Mul (t0, t1)",
        "output float[2] y",
    ]


@pytest.mark.parametrize(
    "other",
    [
        "{ a = Neg (x)  y = Mul (x, a) }",  # operands
        "{ a = Neg (x)  y = Add (a, x) }",  # operator
        "{ a = LeakyRelu <alpha = 0.1> (x)  y = Mul (a, x) }",
        "{ a = Neg (x)  b = Neg (x)  y = Mul (a, x) }",  # a node too many
    ],
)
def test_text_shows_every_difference(other):
    one, two = (parse_graph(f"{ENDS} {body}") for body in ("{ a = Neg (x)  y = Mul (a, x) }", other))
    assert graph_text(one) != graph_text(two)


def test_text_shows_nested_graphs_and_their_use_of_outer_tensors():
    text = """(float[2] x, bool b) => (float[2] y) {{
        a = Neg (x)
        y = If (b) <then_branch = t () => (float[2] p) {{ p = Abs ({}) }},
                    else_branch = e () => (float[2] q) {{ q = Relu (x) }}> }}"""
    inner, outer = (graph_text(parse_graph(text.format(name))) for name in ("a", "x"))
    assert inner != outer
    assert "  then_branch ()" in inner


def test_long_weights_are_shown_by_digest():
    graph = parse_graph("(float[17] x) => (float[17] y) <float[17] w> { y = Mul (x, w) }")
    assert "float[17] c0 = sha256:" in graph_text(graph)
    before = graph_text(graph)
    graph.initializers()[0].values = graph.initializers()[0].values * np.float32(2)
    assert graph_text(graph) != before


def test_declared_weights_get_values_by_seed():
    def values(seed):
        return parse_graph(ANY, seed=seed).initializers()[0].values

    np.testing.assert_array_equal(values(0), values(0))
    assert not np.array_equal(values(0), values(1))


def test_feeds_have_the_types_and_sizes_of_the_inputs():
    graph = parse_graph("(float16[n,3] a, int64[2] b, bool c) => (float16[n,3] y) { y = Neg (a) }")
    feeds = random_feeds(graph, seed=3)
    assert {k: (v.dtype, v.shape) for k, v in feeds.items()} == {
        "a": (np.float16, (2, 3)),
        "b": (np.int64, (2,)),
        "c": (np.bool_, ()),
    }


def test_both_runtimes_agree():
    graph = parse_graph(MUL)
    feeds = {"x": np.array([2, 4], np.float32)}
    for values in (outputs_of(graph, feeds), outputs_of(graph, feeds, runtime="reference")):
        np.testing.assert_array_equal(values["y"], np.array([3, -9], np.float32))


def test_context_is_the_one_given():
    context = plain_context()
    assert_preserves(Slightly(), MUL, context=context)
    assert context.record.name == "slightly"
