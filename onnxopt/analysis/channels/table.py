"""Operator to channel rule. A new operator is one line here and, at most, a few in a module of rules.

Keys are op types, with the domain before them where it is not ONNX's own. What is not in the table is a barrier.

Other distributions add rules through the entry-point group `onnxopt.channel-rules`: the name is the key, the value a
function of a node and a `Trace`. For an operator that works on each channel alone the rule `unary` is there already:

    [project.entry-points."onnxopt.channel-rules"]
    "com.example.Swoosh" = "onnxopt.analysis.channels.elementwise:unary"
    "com.example.Stack" = "example.rules:stack"
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
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
from onnxopt.errors import OptimizationError, UsageError

GROUP = "onnxopt.channel-rules"

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


def all_rules() -> Mapping[str, Rule]:
    """The table, and what installed distributions add to it.

    Raises:
        UsageError: Two distributions offer a rule for one operator, or one offers what is here already.
        OptimizationError: A rule cannot be imported.
    """
    found: dict[str, Rule] = dict(RULES)
    owners: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in RULES or owners.setdefault(entry.name, entry.value) != entry.value:
            other = owners.get(entry.name, "onnxopt")
            raise UsageError(f"there are two channel rules for {entry.name}: of {other} and {entry.value}")
        found[entry.name] = _load(entry)
    return found


def _load(entry: EntryPoint) -> Rule:
    try:
        rule: Rule = entry.load()
    except Exception as error:
        raise OptimizationError(f"channel rule '{entry.name}' ({entry.value}) cannot be imported: {error}") from error
    return rule
