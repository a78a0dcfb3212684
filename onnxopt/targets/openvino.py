"""OpenVINO on CPUs: its low-precision transformations want quantizers on the inputs of weighted layers, nowhere else.

Read off OpenVINO's documentation of low-precision transformations and checked against the runtime model of 2026.4:

1. A Q where a weighted layer reads, none between a layer and the activation behind it: a convolution fuses that, SiLU
   included, as a float post-operation. The Q fuses too, so the layer writes 8 bits, if everyone reads through it.
2. Weights int8 symmetric per output channel (uint8 weights fall back to float), bias in float.
3. Activations without a zero point: int8 symmetric, or uint8 where nothing is negative. A zero point makes the AMX
   kernels of k x k convolutions compensate for their padding each time they run, up to five times slower.
4. The Q of what a Concat, Split, Slice, MaxPool or Resize gives moves before it, with one scale on all branches: they
   then move 8 bits. Branches of different scales make the layer behind a Concat run in float.
5. The stem runs faster in int8, unlike on ONNX Runtime; so do the final layers, whose results stay float anyway.
"""

from onnxopt.targets.target import NumberFormat, OpRule, Target

_INPUT_ONLY = OpRule("anchor", output=False)
_MOVE = OpRule("passthrough", output=False)

OPENVINO = Target(
    name="openvino",
    summary="OpenVINO, CPU: int8 activations without zero point on the inputs of weighted layers, int8 weights",
    opset_floor=13,
    activation=NumberFormat("int8", symmetric=True),
    positive=NumberFormat("uint8", symmetric=False),
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
    alignment=0,
    adapter="onnxopt.runtime.openvino:OpenVinoRuntime",
)
