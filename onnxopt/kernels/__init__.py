"""Numeric kernels on plain arrays: extremes, histograms, quantization, the searches over them, and suppression.

The modules here hold all the numba code there is. Importing them does not import numba: each kernel is compiled
(or loaded from numba's cache on disk) at its first call.

* `extrema`: `minmax`, `minmax_rows`
* `histogram`: `Histogram`
* `quantize`: `quantize_linear`, `quantization_error`
* `rounding`: `round_rows`
* `search`: `rounding_errors`, `entropy_divergences`
* `suppression`: `keep_boxes`
"""

from onnxopt.kernels.extrema import minmax, minmax_rows
from onnxopt.kernels.histogram import Histogram
from onnxopt.kernels.quantize import quantization_error, quantize_linear
from onnxopt.kernels.rounding import round_rows
from onnxopt.kernels.search import entropy_divergences, rounding_errors
from onnxopt.kernels.suppression import keep_boxes

__all__ = [
    "Histogram",
    "entropy_divergences",
    "keep_boxes",
    "minmax",
    "minmax_rows",
    "quantization_error",
    "quantize_linear",
    "round_rows",
    "rounding_errors",
]
