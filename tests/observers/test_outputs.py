"""The rules by which outputs are equal."""

import numpy as np
import pytest

from onnxopt.observers.outputs import deviation, newly_infinite, rounding_bounds, run, same_bits, serialised
from onnxopt.testing import parse_graph, random_feeds

NAN, INF = float("nan"), float("inf")


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (f32(1, 2), f32(1, 2), True),
        (f32(1), np.array([1.0]), False),
        (f32(1), f32(1, 1), False),
        (f32(0.0), f32(-0.0), False),
        (f32(NAN), -f32(NAN), True),
        (f32(NAN, -0.0), f32(-NAN, 0.0), False),
        (f32(NAN), f32(1), False),
        (np.array([1]), np.array([2]), False),
    ],
)
def test_same_bits(a, b, equal):
    assert same_bits(a, b) is equal


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (f32(1, -4), f32(1, -3), 0.25),
        (f32(), f32(), 0),
        (f32(0), f32(0), 0),
        (f32(0), f32(1), INF),
        (f32(1), f32(1, 1), INF),
        (f32(INF, 2), f32(INF, 1), 0.5),
        (f32(INF, 2), f32(-INF, 2), INF),
        (f32(2), f32(INF), INF),
        (f32(2), f32(NAN), INF),
        (f32(NAN, 2), f32(NAN, 2), 0),
        (np.array([200], np.uint8), np.array([250], np.uint8), 0.25),
        (np.array([True]), np.array([False]), 1),
    ],
)
def test_deviation(a, b, expected):
    assert deviation(a, b) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (f32(1), f32(2), False),
        (f32(1), f32(NAN), True),
        (f32(INF), f32(NAN), False),
        (f32(1), f32(1, INF), True),
        (f32(1), np.array([1]), False),
    ],
)
def test_newly_infinite(a, b, expected):
    assert newly_infinite(a, b) is expected


def test_bounds_follow_the_runtime():
    """ORT fuses Mul into Conv, which rounds differently; a bound is never below 1e-5, and the same for all samples."""
    graph = parse_graph(
        "(float[1,8,9,9] x) => (float[1,8,9,9] y, float[1,8,9,9] z) <float[8,8,1,1] w, float[8,1,1] s> "
        "{ a = Conv (x, w)  y = Mul (a, s)  z = Relu (x) }"
    )
    generator = np.random.default_rng(0)
    feeds = [{"x": generator.standard_normal((1, 8, 9, 9)).astype(np.float32)} for _ in range(2)]
    model = serialised(graph)
    plain = run(model, feeds)
    bounds, same = rounding_bounds(model, feeds, plain)
    assert bounds == same
    own = deviation(plain[0]["y"], run(model, feeds, optimized=True)[0]["y"])
    assert 0 < own < 1e-5
    assert bounds["z"] == 1e-5
    assert bounds["y"] >= 10 * own
    assert rounding_bounds(model, feeds[:1], [{"y": 1.01 * plain[0]["y"], "z": plain[0]["z"]}])[0]["y"] > 0.02


def test_bounds_follow_what_a_network_makes_of_rounding():
    """A Softmax of large numbers; the runtime itself has nothing to optimize in it."""
    text = "(float[1,64] x) => (float[1,64] y) <float s = {{{}}}> {{ a = Mul (x, s)  y = Softmax (a) }}"
    feeds = [{"x": 0.5 + 1e-3 * np.random.default_rng(0).random((1, 64), np.float32)}]
    bounds = []
    for scale in (1, 1000):
        model = serialised(parse_graph(text.format(scale)))
        bounds.append(rounding_bounds(model, feeds, run(model, feeds))[0]["y"])
    assert bounds[0] == 1e-5
    assert 1e-4 < bounds[1] < 1e-2


@pytest.mark.parametrize("body", ["a = Mul (x, w)  y = Acos (a)", "a = Mul (x, w)  y = Floor (a)", "y = Sqrt (x)"])
def test_a_jump_is_no_rounding(body):
    graph = parse_graph(f"(float[1,5] x) => (float[1,5] y) <float w = {{1}}> {{ {body} }}")
    feeds = [{"x": np.array([[0, 1, 1, 1, 0.5]], np.float32)}]
    model = serialised(graph)
    assert rounding_bounds(model, feeds, run(model, feeds))[0]["y"] <= 1e-3


def test_a_size_among_the_inputs_and_a_scalar():
    graph = parse_graph(
        "(float[1] n, float s, float[4] x) => (float[4] y) { m = Cast <to = 7> (n) z = ConstantOfShape (m) "
        "v = Cast <to = 1> (z) a = Add (x, v) y = Mul (a, s) }"
    )
    feeds = [{"n": np.array([4], np.float32), "s": np.array(2, np.float32), "x": np.ones(4, np.float32)}]
    model = serialised(graph)
    assert rounding_bounds(model, feeds, run(model, feeds)) == [{"y": 1e-5}]


def test_weights_behind_an_identity_sum_in_the_same_order():
    text = "(float[8,512] x) => (float[8,512] y) <float[512,512] w> {{ {} }}"
    shared = parse_graph(text.format("v = Identity (w) y = MatMul (x, v)"))
    plain = parse_graph(text.format("y = MatMul (x, w)"))
    feeds = [random_feeds(plain)]
    [wanted], [got] = (run(serialised(graph), feeds) for graph in (shared, plain))
    assert np.ptp(wanted["y"]) > 0
    assert same_bits(wanted["y"], got["y"])
