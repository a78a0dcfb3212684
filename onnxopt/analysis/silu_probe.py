"""Which form of SiLU this machine's ONNX Runtime runs faster between int8 convolutions: measured on a small stack.

* `quickgelu`: DQ, one float kernel (`com.microsoft.QuickGelu`), Q;
* `sigmoid`: QLinearSigmoid (a table of 256 entries) and QLinearMul, all in int8.

On an AMD Zen 5 the first was 8 % faster over a whole YOLO11n, on an Intel Sapphire Rapids the second by 10 %: no rule
of thumb decides it. The stack is three 3x3 convolutions of 64 channels at 80x80, the sizes that detectors spend
their time at.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxopt.runtime import latency
from onnxopt.runtime.adapter import Runtime, prepared

CHANNELS, SIZE, DEPTH = 64, 80, 3


def faster_form(runtime: Runtime) -> tuple[str, latency.Comparison]:
    """Time both forms, interleaved.

    Returns:
        `quickgelu` or `sigmoid`, and the measurement.
    """
    feeds = {"x": np.random.default_rng(0).standard_normal((1, CHANNELS, SIZE, SIZE)).astype(np.float32)}
    sessions = {form: runtime.open(_stack(form)) for form in ("quickgelu", "sigmoid")}
    comparison = latency.compare(
        {form: prepared(session, feeds) for form, session in sessions.items()}, rounds=30, seconds=1.0
    )
    return ("sigmoid" if comparison["sigmoid"].speedup.median > 1 else "quickgelu"), comparison


def _stack(form: str) -> onnx.ModelProto:
    builder = _Builder()
    x = builder.pair("x", 0.03, 128)
    for _ in range(DEPTH):
        y = builder.pair(builder.conv(x), 0.03, 128)
        if form == "quickgelu":
            y = builder.node("QuickGelu", [y], domain="com.microsoft", alpha=1.0)
        else:
            gate = builder.pair(builder.node("Sigmoid", [y]), 1 / 255, 0)
            y = builder.node("Mul", [y, gate])
        x = builder.pair(y, 0.02, 14)
    builder.node("Identity", [x], output="y")
    shape = [1, CHANNELS, SIZE, SIZE]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(builder.nodes, "silu", values[:1], values[1:], builder.constants)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(1)

    def node(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def pair(self, x: str, scale: float, zero: int) -> str:
        parameters = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *parameters]), *parameters])

    def conv(self, x: str) -> str:
        codes = self.random.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        scale = np.full(CHANNELS, 1e-3, np.float32)
        inputs = [self.constant(codes), self.constant(scale), self.constant(np.zeros(CHANNELS, np.int8))]
        return self.node("Conv", [x, self.node("DequantizeLinear", inputs, axis=0)], pads=[1, 1, 1, 1])
