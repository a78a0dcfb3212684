"""Operator to channel rule. A new operator is one line here and, at most, a few in a module of rules.

Keys are op types, with the domain before them where it is not ONNX's own. What is not in the table is a barrier.
"""

from collections.abc import Mapping
from types import MappingProxyType

from onnxopt.analysis.channels import (
    blocks,
    contraction,
    elementwise,
    geometry,
    normalizing,
    reshaping,
    segments,
    weighted,
)
from onnxopt.analysis.channels.trace import Rule

_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid
    Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu com.microsoft.Gelu com.microsoft.QuickGelu
"""
_BROADCAST = """
    Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or
    PRelu Pow Sub Sum Where Xor
"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = """
    ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare
"""

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY.split(), elementwise.unary),
        **dict.fromkeys(_BROADCAST.split(), elementwise.broadcast),
        **dict.fromkeys(_POOLS.split(), geometry.pool),
        **dict.fromkeys(_REDUCTIONS.split(), normalizing.reduce),
        "Cast": reshaping.view(elementwise.unary),
        "BatchNormalization": weighted.batch_normalization,
        "Concat": segments.concat,
        "Conv": weighted.conv,
        "ConvTranspose": weighted.conv_transpose,
        "DepthToSpace": blocks.depth_to_space,
        "DequantizeLinear": elementwise.quantize,
        "Expand": reshaping.view(blocks.expand),
        "Flatten": reshaping.flatten,
        "Gather": segments.gather,
        "Gemm": weighted.gemm,
        "GridSample": geometry.grid_sample,
        "GroupNormalization": blocks.group_normalization,
        "InstanceNormalization": normalizing.instance_normalization,
        "LayerNormalization": normalizing.layer_normalization,
        "LogSoftmax": normalizing.softmax,
        "MatMul": contraction.matmul,
        "Pad": geometry.pad,
        "QuantizeLinear": elementwise.quantize,
        "Reshape": reshaping.view(reshaping.reshape),
        "Resize": geometry.resize,
        "RMSNormalization": normalizing.layer_normalization,
        "Slice": segments.slice_,
        "Softmax": normalizing.softmax,
        "SpaceToDepth": blocks.space_to_depth,
        "Split": segments.split,
        "Squeeze": reshaping.view(geometry.squeeze),
        "Tile": reshaping.view(blocks.tile),
        "Transpose": reshaping.view(geometry.transpose),
        "Unsqueeze": reshaping.view(geometry.unsqueeze),
        "Upsample": geometry.resize,
    }
)
