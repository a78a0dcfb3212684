"""ONNX Runtime on CPUs: what its optimizer fuses into int8 kernels, and what it does not.

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

That is x86 with VNNI instructions. Elsewhere the optimizer fuses alike, and the rules hold, but for number formats:

7. x86 without VNNI adds pairs of products uint8 * int8 in 16 bits, which saturate: 2 * 255 * 127 > 32767. Weights end
   at 64, for 2 * 255 * 64 does not.
8. On ARM int8 activations keep all fusions (`QDQIsInt8Allowed` is true there), and the kernels for weights without
   zero point take them as they are: uint8 ones are turned into int8 first. They keep a zero point, for a Relu is
   redundant only before a Q whose zero point is the smallest code.
"""

from dataclasses import replace

from onnxopt.targets.target import Machine, NumberFormat, OpRule, Target, TargetFamily

_ANCHOR = OpRule("anchor")
_BINARY = OpRule("follower", inputs=None)
_UNARY = OpRule("follower")
_MOVE = OpRule("passthrough")

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})

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
    name="ort-vnni",
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
    clip_as_max_min=True,
    requantizes_float=True,
    int32_bias=True,
    alignment=0,
    machine=Machine("x86_64", one_of=_VNNI),
    adapter="onnxopt.runtime.ort:OrtRuntime",
)

ORT_AVX2 = replace(
    ORT,
    name="ort-avx2",
    summary="ONNX Runtime, CPU, x86 without VNNI: as ort-vnni, weights in 7 bits",
    weight=NumberFormat("int8", symmetric=True, limit=64),
    machine=Machine("x86_64", none_of=_VNNI),
)

ORT_ARM = replace(
    ORT,
    name="ort-arm",
    summary="ONNX Runtime, CPU, 64-bit ARM: int8 activations, int8 per-channel weights",
    activation=NumberFormat("int8", symmetric=False),
    slow_subnormals=False,
    machine=Machine("aarch64"),
)

ORT_HERE = TargetFamily(
    name="ort",
    summary="ONNX Runtime, CPU: the one below that is for this machine",
    tables=(ORT, ORT_AVX2, ORT_ARM),
)
