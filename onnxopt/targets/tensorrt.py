"""TensorRT on NVIDIA GPUs: explicit quantization, as its documentation asks for it.

Read off NVIDIA's documentation ("Working with Quantized Types", "Explicit Quantization") and the threads of its issue
tracker; nothing of it was measured, for it takes a GPU. `onnxopt.analysis.tensorrt_rules` checks a graph against it.

1. int8 alone, zero point 0: activations one scale per tensor, weights one per output channel (ConvTranspose: one for
   all, its per-channel kernels are fragile). Biases stay float.
2. A Q on the input of every weighted layer, none on outputs: a Conv fuses with the activation behind it.
3. Of a residual Add only the identity branch is quantized; then Conv, Add and Relu become one int8 kernel.
4. What moves values shares one scale on both sides, Concat over all its inputs, so that the pairs cancel.
5. A Q stands before a Pad, never between Pad and Conv.
6. Layers too small for int8 tensor cores stay float, the first layers excepted; so do the final layers, attention
   products, Softmax and everything behind the last features.
"""

from onnxopt.targets.target import NumberFormat, OpRule, SizeLimits, Target

_ANCHOR = OpRule("anchor", output=False)
_MOVE = OpRule("passthrough")

_RULES: dict[str, OpRule] = {
    "Conv": _ANCHOR,
    "ConvTranspose": OpRule("anchor", output=False, per_channel=False),
    "Gemm": _ANCHOR,
    "MatMul": _ANCHOR,
    "Add": OpRule("residual", inputs=None, output=False),
    "Concat": OpRule("passthrough", inputs=None),
    "Pad": OpRule("passthrough", output=False),
    "MaxPool": _MOVE,
    "Resize": _MOVE,
    "Reshape": _MOVE,
    "Transpose": _MOVE,
    "Flatten": _MOVE,
    "Slice": _MOVE,
    "Split": _MOVE,
    "Squeeze": _MOVE,
    "Unsqueeze": _MOVE,
    "DepthToSpace": _MOVE,
    "SpaceToDepth": _MOVE,
    "Softmax": OpRule(None, reason="attention and class probabilities stay in floating point"),
}

TENSORRT = Target(
    name="tensorrt",
    summary="TensorRT, NVIDIA GPUs: int8 symmetric activations on the inputs of weighted layers, int8 weights",
    opset_floor=13,
    activation=NumberFormat("int8", symmetric=True),
    weight=NumberFormat("int8", symmetric=True),
    rules=_RULES,
    default_reason="TensorRT keeps it in floating point between int8 layers",
    fused_activations=frozenset({"Relu", "Clip"}),
    elementwise=frozenset(
        {"Sigmoid", "Mul", "Add", "Relu", "Clip", "LeakyRelu", "PRelu", "Tanh"}
        | {"HardSwish", "HardSigmoid", "Elu", "Gelu", "Mish", "Softplus"}
    ),
    sizes=SizeLimits(channels=16, multiple=8, grouped_kernel=3, rows=2),
    alignment=32,
    checker="onnxopt.analysis.tensorrt_rules:check",
)
