"""Quantization of arrays exactly as ONNX QuantizeLinear does it, and the error that it makes.

    q = saturate(round_half_even(x / scale) + zero_point)

The quotient is a float32 division; multiplying by the inverse would round some halves the other way. The sum is
clipped before the addition, which is the same and never leaves the range in which float32 is exact.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt.kernels.compilation import kernel

Float32Array: TypeAlias = npt.NDArray[np.float32]
Int8Array: TypeAlias = npt.NDArray[np.int8] | npt.NDArray[np.uint8]
Scale: TypeAlias = float | np.float32 | Float32Array
ZeroPoint: TypeAlias = int | npt.NDArray[np.integer]


@kernel()
def _quantize(x: Float32Array, scale: Float32Array, limits: Float32Array, q: Int8Array) -> None:
    for outer in range(x.shape[0]):
        for channel in range(x.shape[1]):
            step = scale[channel]
            lowest, highest, zero = limits[0, channel], limits[1, channel], limits[2, channel]
            for i in range(x.shape[2]):
                steps = min(max(np.rint(x[outer, channel, i] / step), lowest), highest)
                q[outer, channel, i] = np.int32(steps + zero)


@kernel("reassoc")  # only the order of the sum is left open
def _squared_error(x: Float32Array, scale: Float32Array, limits: Float32Array, error: npt.NDArray[np.float64]) -> None:
    for channel in range(x.shape[1]):
        step = scale[channel]
        lowest, highest = limits[0, channel], limits[1, channel]
        total = 0.0
        for outer in range(x.shape[0]):
            for i in range(x.shape[2]):
                value = x[outer, channel, i]
                difference = np.float64(value - min(max(np.rint(value / step), lowest), highest) * step)
                total += difference * difference
        error[channel] = total


def _per_channel(
    x: Float32Array, scale: Scale, zero_point: ZeroPoint, limits: tuple[int, int], axis: int | None
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return `x` as [outer, channels, inner], the scales, and per channel the limits in steps and the zero point."""
    shape = (1, 1, x.size)
    if axis is not None:
        axis = range(x.ndim)[axis]
        outer = int(np.prod(x.shape[:axis], dtype=np.int64))
        shape = (outer, x.shape[axis], int(np.prod(x.shape[axis + 1 :], dtype=np.int64)))
    scales = np.ascontiguousarray(scale, np.float32).reshape(-1)
    zeros = np.ascontiguousarray(zero_point, np.float32).reshape(-1)
    if {scales.size, zeros.size} != {shape[1]}:
        raise ValueError(f"{scales.size} scales and {zeros.size} zero points for {shape[1]} channels")
    table = np.stack([limits[0] - zeros, limits[1] - zeros, zeros]).astype(np.float32)
    return np.ascontiguousarray(x, np.float32).reshape(shape), scales, table


def quantize_linear(
    x: Float32Array,
    scale: Scale,
    zero_point: ZeroPoint,
    *,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> Int8Array:
    """Quantize an array, bit for bit as ONNX QuantizeLinear (and a Clip to [qmin, qmax]) would.

    Args:
        x: float32 of any shape, without NaN.
        scale: positive step: one number, or float32 of shape [x.shape[axis]].
        zero_point: the integer that stands for 0: one number, or of the shape of `scale`.
        qmin: smallest integer allowed.
        qmax: largest integer allowed.
        axis: the axis of the channels; None for one scale per tensor.

    Returns:
        An array of the shape of `x`, uint8 if `qmin >= 0`, else int8.

    Raises:
        ValueError: the number of scales or zero points is not that of the channels.
    """
    values, scales, limits = _per_channel(x, scale, zero_point, (qmin, qmax), axis)
    q: Int8Array = np.empty(values.shape, np.uint8) if qmin >= 0 else np.empty(values.shape, np.int8)
    _quantize(values, scales, limits, q)
    return q.reshape(x.shape)


def quantization_error(
    x: Float32Array,
    scale: Scale,
    zero_point: ZeroPoint,
    *,
    qmin: int,
    qmax: int,
    axis: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the sum of squared differences between `x` and its quantized and dequantized self.

    Args: as of `quantize_linear`.

    Returns:
        float64 of shape [channels], or of shape [1] without an axis.

    Raises:
        ValueError: the number of scales or zero points is not that of the channels.
    """
    values, scales, limits = _per_channel(x, scale, zero_point, (qmin, qmax), axis)
    error = np.empty(values.shape[1], np.float64)
    _squared_error(values, scales, limits, error)
    return error
