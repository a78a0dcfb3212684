import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxopt.calibration.elementwise import ELEMENTWISE, elu, leaky_relu, silu

BASE = st.floats(-30, 30)
IN_ONNX = sorted(set(ELEMENTWISE) - {"Clip", "QuickGelu", "Swish"})


@pytest.mark.parametrize("op_type", IN_ONNX)
def test_function_equals_onnx(op_type):
    node = helper.make_node(op_type, ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = np.linspace(-20, 20, 801)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    # Its Gelu and HardSwish hold constants in float32.
    np.testing.assert_allclose(ELEMENTWISE[op_type]()(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op_type", sorted(ELEMENTWISE))
@settings(deadline=None, max_examples=40)
@given(low=BASE, size=BASE.map(abs))
def test_interval_encloses_what_is_attained_and_little_more(op_type, low, size):
    function = ELEMENTWISE[op_type]()
    smallest, largest = function.interval(low, low + size)
    values = function(np.linspace(low, low + size, 4001))
    assert smallest <= values.min() + 1e-15
    assert values.max() - 1e-15 <= largest
    # Between two of the points nothing moves further than the slope, 1.13 at most, allows.
    assert values.min() - smallest <= size / 3000
    assert largest - values.max() <= size / 3000
    if function.bounds:
        assert function.bounds[0] <= smallest <= largest <= function.bounds[1]


def test_gelu_by_tanh():
    exact, approximate = ELEMENTWISE["Gelu"](), ELEMENTWISE["Gelu"](approximate="tanh")
    x = np.linspace(-5, 5, 1001)
    assert 0 < np.abs(exact(x) - approximate(x)).max() < 1e-3
    smallest, _ = approximate.interval(-5, 5)
    assert smallest <= approximate(np.linspace(-0.8, -0.7, 100_001)).min()


def test_slopes_of_either_sign():
    assert leaky_relu(-0.5).interval(-4, 1) == (0.0, 2.0)
    assert elu(-1.0).interval(-100, 0.5) == (0.0, 1.0)


def test_silu_with_another_slope():
    assert silu(1.702).interval(-10, 0)[0] == pytest.approx(-0.2784645427610738 / 1.702, abs=1e-15)


def test_clip_without_bounds_is_unbounded():
    assert ELEMENTWISE["Clip"]().bounds is None
    assert ELEMENTWISE["Clip"](min=0.0).bounds is None
    assert ELEMENTWISE["Clip"](min=0.0, max=6.0).bounds == (0.0, 6.0)


def test_far_ends_do_not_overflow():
    for op_type in ELEMENTWISE:
        assert np.isfinite(ELEMENTWISE[op_type]().interval(-1e30, 1e30)).all()
