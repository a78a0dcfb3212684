"""What this machine can do at best, measured in a second: the two roofs under which every layer works.

Williams, Waterman and Patterson 2009, "Roofline": a kernel that does m multiply-accumulates and moves b bytes takes at
least max(m / peak, b / bandwidth). The peak is that of a well-shaped convolution on the runtime itself, so that it
holds for its kernels; the bandwidth that of copying arrays, once as large as fits into a cache near the core and once
as comes from memory.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxopt.graph import Array
from onnxopt.runtime.adapter import Runtime

SHAPES = ((128, 28, 3), (256, 28, 1))  # channels in and out, side of the picture, side of the kernel
NEAR, FAR = 2**19, 2**26  # bytes of the arrays copied
RUNS = 20


@dataclass(frozen=True)
class Peaks:
    """What one thread does at best.

    Attributes:
        floating: Multiply-accumulates per second in the runtime's float type.
        int8: The same in int8.
        near: Bytes per second between the core and the cache next to it.
        far: Bytes per second between the core and memory.
    """

    floating: float
    int8: float
    near: float
    far: float

    def compute_ms(self, macs: int, precision: str) -> float:
        """Least time for so many multiply-accumulates."""
        return 1e3 * macs / (self.int8 if precision == "int8" else self.floating)

    def memory_ms(self, moved: int) -> float:
        """Least time to move so many bytes; those that fit into a cache are taken to come from there."""
        return 1e3 * moved / (self.near if moved <= 2 * NEAR else self.far)


def measure_peaks(runtime: Runtime) -> Peaks:
    """Measure one thread of this machine."""
    return Peaks(
        floating=max(_convolution(runtime, *shape, quantized=False) for shape in SHAPES),
        int8=max(_convolution(runtime, *shape, quantized=True) for shape in SHAPES),
        near=_copying(NEAR),
        far=_copying(FAR),
    )


def _convolution(runtime: Runtime, channels: int, side: int, kernel: int, *, quantized: bool) -> float:
    session = runtime.open(_model(channels, side, kernel, quantized=quantized))
    feeds = {"x": np.random.default_rng(0).random((1, channels, side, side), np.float32)}
    macs = channels * channels * kernel * kernel * side * side
    return 2 * macs / _shortest(lambda: session.run(feeds))


def _copying(nbytes: int) -> float:
    source = np.ones(nbytes // 8)
    target = np.empty_like(source)
    return 2 * nbytes / _shortest(lambda: np.copyto(target, source))


def _shortest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs: a roof is what can be reached."""
    best = np.inf
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return float(best)


def _model(channels: int, side: int, kernel: int, *, quantized: bool) -> onnx.ModelProto:
    """Two convolutions, of which the second reads what the first wrote in the runtime's own layout."""
    generator = np.random.default_rng(1)
    shape = (channels, channels, kernel, kernel)
    constants: list[tuple[str, Array]] = [
        ("scale", np.full((), 0.05, np.float32)),
        ("zero", np.full((), 128, np.uint8)),
    ]
    nodes, tensor = [], "x"
    if quantized:
        constants += [("w_scale", np.full(channels, 0.01, np.float32)), ("w_zero", np.zeros(channels, np.int8))]
    for layer in "ab":
        weights = generator.integers(-90, 90, shape, np.int8)
        constants.append((f"w_{layer}", weights if quantized else weights.astype(np.float32) / 1000))
        weight = f"w_{layer}"
        if quantized:
            nodes += _pair(tensor, layer)
            nodes.append(helper.make_node("DequantizeLinear", [weight, "w_scale", "w_zero"], [f"{weight}_f"], axis=0))
            tensor, weight = f"{tensor}_f", f"{weight}_f"
        nodes.append(helper.make_node("Conv", [tensor, weight], [f"y_{layer}"], pads=[kernel // 2] * 4))
        tensor = f"y_{layer}"
    if quantized:
        nodes += _pair(tensor, "c")
        tensor = f"{tensor}_f"
    value = [1, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, value)],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, value)],
        [numpy_helper.from_array(values, name) for name, values in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _pair(tensor: str, place: str) -> list[onnx.NodeProto]:
    codes = f"q_{place}"
    return [
        helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [codes]),
        helper.make_node("DequantizeLinear", [codes, "scale", "zero"], [f"{tensor}_f"]),
    ]
