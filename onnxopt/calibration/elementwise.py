"""Elementwise functions of one variable, known well enough to push a range through them.

A continuous function takes its extremes over an interval at the ends or at a local extremum inside; each function
here lists its local extrema. `ELEMENTWISE` maps ONNX op types to makers whose arguments are the op's attributes
with their ONNX defaults (bounds of a Clip are given as numbers).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SILU_MINIMUM = -1.2784645427610737  # where 1 + exp(-x) + x exp(-x) = 0
GELU_MINIMUM = -0.7517915246935645  # where Phi(x) + x phi(x) = 0
TANH_GELU_MINIMUM = -0.7524614220710163  # the same for the tanh approximation
MISH_MINIMUM = -1.1924312145154952

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Elementwise:
    """A continuous function of one variable.

    Attributes:
        function: float64 of shape [n] to float64 of shape [n].
        extrema: where it has local extrema.
        bounds: `(low, high)` that no value leaves, if there are such on both sides.
    """

    function: Callable[[FloatArray], FloatArray]
    extrema: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None

    def __call__(self, x: FloatArray) -> FloatArray:
        """Apply the function."""
        return self.function(x)

    def interval(self, low: float, high: float) -> tuple[float, float]:
        """Return the smallest and the largest value over [low, high]."""
        inside = [x for x in self.extrema if low < x < high]
        values = self.function(np.array([low, high, *inside]))
        return float(values.min()), float(values.max())


def _logistic(x: FloatArray) -> FloatArray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # does not overflow


def _softplus(x: FloatArray) -> FloatArray:
    return np.logaddexp(0.0, x)


def clip(min: float = -math.inf, max: float = math.inf) -> Elementwise:  # noqa: A002  (names of the ONNX inputs)
    """Return Clip."""
    finite = math.isfinite(min) and math.isfinite(max)
    return Elementwise(lambda x: np.minimum(np.maximum(x, min), max), bounds=(min, max) if finite else None)


def leaky_relu(alpha: float = 0.01) -> Elementwise:
    """Return LeakyRelu, whose slope below 0 may be negative."""
    return Elementwise(lambda x: np.where(x < 0, alpha * x, x), extrema=(0.0,))


def elu(alpha: float = 1.0) -> Elementwise:
    """Return Elu."""
    return Elementwise(lambda x: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x), extrema=(0.0,))


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Elementwise:
    """Return HardSigmoid."""
    return Elementwise(lambda x: np.clip(alpha * x + beta, 0.0, 1.0), bounds=(0.0, 1.0))


def silu(alpha: float = 1.0) -> Elementwise:
    """Return x * sigmoid(alpha * x) with alpha > 0: SiLU, also known as Swish, and QuickGelu."""
    return Elementwise(lambda x: x * _logistic(alpha * x), extrema=(SILU_MINIMUM / alpha,))


def quick_gelu(alpha: float = 1.702) -> Elementwise:
    """Return `com.microsoft.QuickGelu`, which is SiLU with another default."""
    return silu(alpha)


def gelu(approximate: str = "none") -> Elementwise:
    """Return Gelu, exact or, with `approximate="tanh"`, by the hyperbolic tangent."""
    if approximate == "tanh":
        slope = math.sqrt(2 / math.pi)
        return Elementwise(lambda x: x * _logistic(2 * slope * (x + 0.044715 * x**3)), extrema=(TANH_GELU_MINIMUM,))
    return Elementwise(lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2))), extrema=(GELU_MINIMUM,))


ELEMENTWISE: Mapping[str, Callable[..., Elementwise]] = MappingProxyType(
    {
        "Abs": lambda: Elementwise(np.abs, extrema=(0.0,)),
        "Clip": clip,
        "Elu": elu,
        "Gelu": gelu,
        "HardSigmoid": hard_sigmoid,
        "HardSwish": lambda: Elementwise(lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0), extrema=(-3.0, -1.5)),
        "LeakyRelu": leaky_relu,
        "Mish": lambda: Elementwise(lambda x: x * np.tanh(_softplus(x)), extrema=(MISH_MINIMUM,)),
        "Neg": lambda: Elementwise(np.negative),
        "QuickGelu": quick_gelu,
        "Relu": lambda: Elementwise(lambda x: np.maximum(x, 0.0)),
        "Sigmoid": lambda: Elementwise(_logistic, bounds=(0.0, 1.0)),
        "Softplus": lambda: Elementwise(_softplus),
        "Swish": silu,
        "Tanh": lambda: Elementwise(np.tanh, bounds=(-1.0, 1.0)),
    }
)
