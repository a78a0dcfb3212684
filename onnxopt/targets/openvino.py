"""OpenVINO on CPUs: its low-precision transformations want quantizers on the inputs of weighted layers, nowhere else.

Read off OpenVINO's documentation of low-precision transformations and checked against the runtime model of 2026.4:

1. A Q where a weighted layer reads, none between a layer and the activation behind it: a convolution fuses that, SiLU
   included, as a float post-operation. The Q fuses too, so the layer writes 8 bits, if everyone reads through it.
2. Weights int8 symmetric per output channel (uint8 weights fall back to float), bias in float.
3. Activations uint8 with a zero point. With AMX without one: int8 symmetric, or uint8 where nothing is negative. There
   a zero point makes the kernels of k x k convolutions compensate for their padding each time they run, up to five
   times slower. Elsewhere OpenVINO turns int8 activations into uint8, and in doing so rounds some of them down that a
   residual Add gives to a Concat: YOLOX-nano came out at 5 dB.
4. The Q of what a Concat, Split, Slice, MaxPool or Resize gives moves before it, with one scale on all branches: they
   then move 8 bits. Branches of different scales make the layer behind a Concat run in float.
5. A product with a constant of several numbers reads the float value: OpenVINO moves the zero point of what it reads
   through it, in the constant's shape, and then cannot load the MatMul behind (RT-DETR's mask of valid anchors). A
   MatMul that reads a Concat of tokens stays float for the same reason.
6. The stem runs faster in int8, unlike on ONNX Runtime; so do the final layers, whose results stay float anyway.
"""

from dataclasses import replace

from onnxopt.targets.target import Machine, NumberFormat, OpRule, Target, TargetFamily

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_AMX = frozenset({"amx_int8"})

_INPUT_ONLY = OpRule("anchor", output=False)
_MOVE = OpRule("passthrough", output=False)

OPENVINO = Target(
    name="openvino-vnni",
    summary="OpenVINO, CPU, x86 with VNNI: uint8 activations on the inputs of weighted layers, int8 weights",
    opset_floor=13,
    activation=NumberFormat("uint8", symmetric=False),
    weight=NumberFormat("int8", symmetric=True),
    rules={
        **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _INPUT_ONLY),
        **dict.fromkeys(("Split", "Slice", "MaxPool", "Resize"), _MOVE),
        "Concat": OpRule("passthrough", inputs=None, output=False),
    },
    default_reason="OpenVINO keeps it in float between int8 layers",
    elementwise=frozenset({"Sigmoid", "Mul", "Add", "Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Gelu"}),
    quantize_final=True,
    reads_pairs=True,
    no_joined_rows=True,
    alignment=0,
    machine=Machine("x86_64", one_of=_VNNI, none_of=_AMX),
    adapter="onnxopt.runtime.openvino:OpenVinoRuntime",
)

OPENVINO_AMX = replace(
    OPENVINO,
    name="openvino-amx",
    summary="OpenVINO, CPU, x86 with AMX: as openvino-vnni, activations without zero point",
    activation=NumberFormat("int8", symmetric=True),
    no_joined_rows=False,
    positive=NumberFormat("uint8", symmetric=False),
    machine=Machine("x86_64", one_of=_AMX),
)

OPENVINO_AVX2 = replace(
    OPENVINO,
    name="openvino-avx2",
    summary="OpenVINO, CPU, x86 without VNNI: as openvino-vnni, weights in 7 bits",
    weight=NumberFormat("int8", symmetric=True, limit=64),
    machine=Machine("x86_64", none_of=_VNNI | _AMX),
)

OPENVINO_ARM = replace(
    OPENVINO,
    name="openvino-arm",
    summary="OpenVINO, CPU, 64-bit ARM: as openvino-vnni",
    machine=Machine("aarch64"),
)

OPENVINO_HERE = TargetFamily(
    name="openvino",
    summary="OpenVINO, CPU: the one below that is for this machine",
    tables=(OPENVINO, OPENVINO_AMX, OPENVINO_AVX2, OPENVINO_ARM),
)
