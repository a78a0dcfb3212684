"""OpenVINO on CPUs: its low-precision transformations want quantizers on the inputs of weighted layers, nowhere else.

Read off OpenVINO's documentation of low-precision transformations and checked against the runtime model of 2026.4:

1. One Q on the input of every weighted layer, shared by all that read the tensor; none on outputs. A convolution fuses
   the activation behind it, SiLU included, as a float post-operation; a Q in between would only cost accuracy.
2. Weights int8 symmetric per output channel (uint8 weights fall back to float), bias in float.
3. One Q behind a Concat rather than one per branch: branches of different scales make the layer behind run in float.
4. The stem runs faster in int8, unlike on ONNX Runtime; so do the final layers, whose results stay float anyway.
"""

from onnxopt.targets.target import NumberFormat, OpRule, Target

_INPUT_ONLY = OpRule("anchor", output=False)

OPENVINO = Target(
    name="openvino",
    summary="OpenVINO, CPU: uint8 activations on the inputs of weighted layers, int8 per-channel weights",
    opset_floor=13,
    activation=NumberFormat("uint8", symmetric=False),
    weight=NumberFormat("int8", symmetric=True),
    rules={"Conv": _INPUT_ONLY, "ConvTranspose": _INPUT_ONLY, "Gemm": _INPUT_ONLY, "MatMul": _INPUT_ONLY},
    default_reason="OpenVINO keeps it in float between int8 layers",
    quantize_final=True,
    alignment=0,
    adapter="onnxopt.runtime.openvino:OpenVinoRuntime",
)
