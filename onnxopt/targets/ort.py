"""ONNX Runtime on x86 CPUs: what its optimizer fuses into int8 kernels, and what it does not.

Read off `qdq_selector_action_transformer.cc` and `qlinearconv.cc` of ONNX Runtime and checked against the graphs
that 1.31 really runs. The rules in words:

1. Activations uint8, weights int8 symmetric per output channel: the one pair with VNNI kernels. int8 activations
   lose their fusion wherever a tensor has more than one consumer; uint8 weights are several times slower.
2. A Conv fuses only if a single Q follows directly; a Relu or Clip may sit between if the range makes it redundant.
   So every quantized Conv gets a Q on its output, also where the next operator is float.
3. Element-wise and shape operators run in int8 only where all their tensors are quantized, and the latter only if
   scale and zero point are the same on both sides.
4. A MaxPool behind a float layer stays float: in int8 it is fast in the channels-last layout of int8 kernels alone,
   and the optimizer would make it int8 by moving a Q before it.
5. QLinearConcat copies where scale and zero point are the same on all sides, and looks every value up where not.
6. A pair around an operator without an int8 kernel only costs time: there is none.
"""

from onnxopt.targets.target import NumberFormat, OpRule, Target

_ANCHOR = OpRule("anchor")
_BINARY = OpRule("follower", inputs=None)
_UNARY = OpRule("follower")
_MOVE = OpRule("passthrough")

_RULES: dict[str, OpRule] = {
    "Conv": _ANCHOR,
    "Gemm": OpRule("anchor", output=False),
    "MatMul": OpRule("anchor", output=False),
    "Add": _BINARY,
    "Mul": _BINARY,
    "Concat": OpRule("follower", inputs=None, aligned=True),
    "Sigmoid": _UNARY,
    "LeakyRelu": _UNARY,
    "AveragePool": _UNARY,
    "GlobalAveragePool": _UNARY,
    "MaxPool": _MOVE,
    "Resize": _MOVE,
    "Tile": _MOVE,
    "Reshape": _MOVE,
    "Transpose": _MOVE,
    "Flatten": _MOVE,
    "Slice": _MOVE,
    "Split": _MOVE,
    "Squeeze": _MOVE,
    "Unsqueeze": _MOVE,
    "DepthToSpace": _MOVE,
    "SpaceToDepth": _MOVE,
    "ConvTranspose": OpRule(None, reason="ONNX Runtime has no int8 ConvTranspose"),
    "Softmax": OpRule(None, reason="int8 Softmax loses the small probabilities"),
}

ORT = Target(
    name="ort",
    summary="ONNX Runtime, CPU, x86 with VNNI: uint8 activations, int8 per-channel weights",
    opset_floor=13,
    activation=NumberFormat("uint8", symmetric=False),
    weight=NumberFormat("int8", symmetric=True),
    rules=_RULES,
    default_reason="ONNX Runtime has no int8 kernel for this operator",
    fused_activations=frozenset({"Relu", "Clip"}),
    elementwise=frozenset({"QuickGelu", "Sigmoid", "Mul", "Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid"}),
    max_stem_channels=4,
    contrib_silu=True,
    softmax_by_exp=True,
    resize_by_tile=True,
    slow_subnormals=True,
    unmoved=frozenset({"MaxPool"}),
    requantizes_float=True,
    int32_bias=True,
    alignment=0,
    adapter="onnxopt.runtime.ort:OrtRuntime",
)
