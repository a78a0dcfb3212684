import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxopt.kernels import quantization_error, quantize_linear

LIMITS = {np.uint8: (0, 255), np.int8: (-128, 127)}
SCALES = st.floats(2.0**-10, 2.0**10, width=32).map(np.float32)


def model(axis):
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"], axis=axis)
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None),
        helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, None),
        helper.make_tensor_value_info("zero_point", onnx.TensorProto.INT8, None),
    ]
    output = helper.make_tensor_value_info("q", onnx.TensorProto.INT8, None)
    graph = helper.make_graph([node], "q", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def reference(x, scale, zero_point, axis):
    return ReferenceEvaluator(model(axis)).run(None, {"x": x, "scale": scale, "zero_point": zero_point})[0]


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(list(LIMITS)), SCALES)
def test_per_tensor_equals_the_onnx_reference(data, dtype, scale):
    # Multiples of half a step fall on ties, any other number between them.
    halves = st.integers(-600, 600).map(lambda k: np.float32(k) * scale / np.float32(2))
    numbers = st.floats(-(2.0**18), 2.0**18, width=32).map(np.float32)
    x = data.draw(hnp.arrays(np.float32, st.integers(1, 50), elements=halves | numbers))
    qmin, qmax = LIMITS[dtype]
    zero_point = data.draw(st.integers(qmin, qmax))
    q = quantize_linear(x, scale, zero_point, qmin=qmin, qmax=qmax)
    expected = reference(x, np.array(scale), np.array(zero_point, dtype), 0)
    assert q.dtype == dtype
    assert (q == expected).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_per_channel_equals_the_onnx_reference(axis, dtype):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((4, 5, 6)) * 3).astype(np.float32)
    scale = rng.uniform(0.01, 0.05, x.shape[axis]).astype(np.float32)
    qmin, qmax = LIMITS[dtype]
    zero_point = rng.integers(qmin, qmax + 1, x.shape[axis]).astype(dtype)
    q = quantize_linear(x, scale, zero_point, qmin=qmin, qmax=qmax, axis=axis)
    assert (q == reference(x, scale, zero_point, axis)).all()


def test_equals_onnxruntime_on_ties_and_far_outside():
    scale = np.float32(0.1)
    x = np.concatenate([np.arange(-400, 400) * 0.05, [1e30, -1e30, np.inf, -np.inf, 0.0, -0.0]]).astype(np.float32)
    session = onnxruntime.InferenceSession(model(0).SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x, "scale": np.array(scale), "zero_point": np.array(3, np.int8)})[0]
    assert (quantize_linear(x, scale, 3, qmin=-128, qmax=127) == expected).all()


def test_narrow_range_saturates():
    x = np.array([-1000, -127.4, 0.5, 1.5, 126.6, 1000], np.float32)
    q = quantize_linear(x, 1.0, 0, qmin=-127, qmax=127)
    assert q.tolist() == [-127, -127, 0, 2, 127, 127]


def test_shape_is_kept_and_empty_arrays_pass():
    assert quantize_linear(np.zeros((2, 0, 3), np.float32), 1.0, 0, qmin=0, qmax=255).shape == (2, 0, 3)
    assert quantize_linear(np.float32(2.0) * np.ones(()), 1.0, 0, qmin=0, qmax=255).shape == ()


def test_wrong_number_of_scales():
    with pytest.raises(ValueError, match="3 scales and 1 zero points for 2 channels"):
        quantize_linear(np.zeros((2, 3), np.float32), np.ones(3, np.float32), 0, qmin=0, qmax=255, axis=0)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_error_is_that_of_quantizing_and_dequantizing(axis):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    channels = 1 if axis is None else x.shape[axis]
    scale = rng.uniform(0.01, 0.02, channels).astype(np.float32)
    zero_point = rng.integers(100, 150, channels)
    q = quantize_linear(x, scale, zero_point, qmin=0, qmax=255, axis=axis)
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = channels
    dequantized = (q.astype(np.float32) - zero_point.reshape(shape)) * scale.reshape(shape)
    others = tuple(i for i in range(3) if i != axis)
    expected = ((x - dequantized).astype(np.float64) ** 2).sum(axis=others).reshape(-1)
    error = quantization_error(x, scale, zero_point, qmin=0, qmax=255, axis=axis)
    np.testing.assert_allclose(error, expected, rtol=1e-5)
