"""What TensorRT's documented rules object to in a graph of Q/DQ pairs: `check(graph) -> list[Finding]`.

No GPU takes part: each rule looks at the graph alone. A rule is a function; its docstring says what holds in a graph
that keeps it, and the module's docstring says where the rule comes from.
"""

from collections.abc import Callable, Iterator

from onnxopt.analysis.pairs import PairView
from onnxopt.analysis.tensorrt_rules import layers, numbers, structure
from onnxopt.analysis.tensorrt_rules.finding import Finding
from onnxopt.graph import Graph

__all__ = ["RULES", "Finding", "check"]

Rule = Callable[[PairView], Iterator[Finding]]

_FUNCTIONS: tuple[Rule, ...] = (
    numbers.activation_type,
    numbers.weight_type,
    numbers.zero_point,
    numbers.scale_constant,
    numbers.scale_positive,
    numbers.activation_per_tensor,
    numbers.pair_parameters,
    numbers.unpaired,
    numbers.weight_scale_length,
    numbers.weight_axis,
    numbers.deconv_per_tensor,
    numbers.weight_range,
    numbers.opset_pairs,
    numbers.opset_axis,
    numbers.opset_scale,
    numbers.opset_int4,
    numbers.scale_type,
    layers.operator,
    layers.contrib,
    layers.bias,
    layers.weight_float,
    layers.input_float,
    layers.size,
    layers.attention,
    structure.conv_batchnorm,
    structure.conv_activation,
    structure.pad_conv,
    structure.pair_cast,
    structure.concat_scales,
    structure.concat_partial,
    structure.residual_both,
    structure.residual_float,
    structure.two_quantizers,
    structure.requantize,
    structure.commute_scale,
    structure.lonely,
    structure.output,
    structure.tail,
    structure.selection,
)
RULES: dict[str, Rule] = {f.__name__.replace("_", "-"): f for f in _FUNCTIONS}


def check(graph: Graph) -> list[Finding]:
    """Every break of a rule, rule by rule, in order of execution.

    Args:
        graph: A model with Q/DQ; it is not changed. One without them breaks no rule about them.
    """
    view = PairView(graph)
    return [found for rule in RULES.values() for found in rule(view)]
