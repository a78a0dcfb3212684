"""From a range of real numbers to a scale and a zero point, by ONNX Runtime's conventions.

    asymmetric:  scale = (high - low) / (qmax - qmin),      zero_point = round(qmin - low / scale)
    symmetric:   scale = 2 max(-low, high) / (qmax - qmin),  zero_point = round((qmin + qmax) / 2)

computed in float64 from a range that contains 0, the scale then stored as float32. A range too small for a normal
float32 scale gets scale 1 and zero point 0. Rounding is half to even.

Source: `compute_scale_zp` in onnxruntime's `quant_utils.py`.
"""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

IntegerType: TypeAlias = Literal["uint8", "int8"]

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def integer_limits(dtype: IntegerType, *, symmetric: bool = False, limit: int = 127) -> tuple[int, int]:
    """Return the smallest and the largest integer in use.

    Args:
        dtype: the integer type.
        symmetric: int8 then runs from -limit to limit; uint8 is always 0..255.
        limit: 127, or 64 for weights on x86 without VNNI, whose int16 sums saturate.
    """
    if dtype == "uint8":
        return 0, 255
    return (-limit, limit) if symmetric else (-128, 127)


def channel_parameters(
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    dtype: IntegerType,
    symmetric: bool = False,
    limit: int = 127,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]:
    """Return the scales and the zero points of many ranges.

    Args:
        low: lower ends, finite, of any shape; those above 0 count as 0.
        high: upper ends, of the same shape; those below 0 count as 0.
        dtype: the integer type.
        symmetric: whether the range is widened to one that is symmetric about 0.
        limit: see `integer_limits`.

    Returns:
        `(scale, zero_point)`, float32 and `dtype`, of the shape of `low`.

    Raises:
        ValueError: a range is not finite, or too wide for a float32 scale.
    """
    qmin, qmax = integer_limits(dtype, symmetric=symmetric, limit=limit)
    low = np.minimum(np.asarray(low, np.float64), 0.0)
    high = np.maximum(np.asarray(high, np.float64), 0.0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    scale = (high - low) / (qmax - qmin)
    if not (scale <= np.finfo(np.float32).max).all():
        raise ValueError("a range is not finite")
    usable = scale >= SMALLEST_SCALE
    step = np.where(usable, scale, 1.0)
    zero = np.round((qmin + qmax) / 2) if symmetric else np.clip(np.round(qmin - low / step), qmin, qmax)
    return step.astype(np.float32), np.where(usable, zero, 0).astype(dtype)


def quantization_parameters(
    low: float, high: float, *, dtype: IntegerType, symmetric: bool = False, limit: int = 127
) -> tuple[np.float32, int]:
    """Return the scale and the zero point of one range; see `channel_parameters`."""
    scale, zero_point = channel_parameters(low, high, dtype=dtype, symmetric=symmetric, limit=limit)
    return np.float32(scale), int(zero_point)
