"""Taking a quantized model apart, so that it can be quantized anew for another target.

1. A constant behind a DequantizeLinear becomes floats; one behind a whole pair is float already. How it was stored is
   kept.
2. A pair on an activation goes and its span is kept, where its parameters are constants, the same on both sides, and
   nobody else reads its integers.
3. ONNX Runtime's quantizer drops a Relu or Clip whose work the saturation of the Q behind it does. So where a span
   begins at 0 and negative values could come in, a Relu takes the place of the pair; a Clip where it ends at 6. Only
   behind the operators that come before a Relu, and not in the tail: elsewhere it tells of the samples only.
4. Where somebody quantized the bins 0, 1, 2, … of a distribution-focal-loss head, they are whole numbers again.
"""

from dataclasses import dataclass, field

import numpy as np

from onnxopt.calibration.bounds import ANY, Interval, output_bounds
from onnxopt.calibration.given import GivenCodes, GivenRange, GivenRanges, span, spread
from onnxopt.errors import UsageError
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, is_standard, label
from onnxopt.placement.strip import PAIR, dequantized
from onnxopt.placement.tail import FEATURE_OPS, find_tail

RELU6 = 6.0
MOST_BINS = 64  # of a box head
_BEFORE_RELU = frozenset({*FEATURE_OPS, "Add", "BatchNormalization"})
_INTEGER_OPS = frozenset({"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeLinear"})
_INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "QEmbed", "QOrdered", "DynamicQuantize")


@dataclass
class TakenApart:
    """What was taken out of a graph, and what was not.

    Attributes:
        given: What the pairs said.
        pairs: How many quantizers of activations went.
        constants: How many constants became floats.
        unread: How many quantizers went that nobody read.
        restored: How many Relu and Clip took the place of a pair.
        coarse: Names of constants that are no weights and came in 8 bits or less: what that lost stays lost.
        left: Q and DQ that stay, and why.
    """

    given: GivenRanges = field(default_factory=GivenRanges)
    pairs: int = 0
    constants: int = 0
    unread: int = 0
    restored: int = 0
    coarse: list[str] = field(default_factory=list)
    left: list[tuple[Node, str]] = field(default_factory=list)


def is_pair(node: Node) -> bool:
    """Whether a node is a QuantizeLinear or DequantizeLinear: ONNX's or, for 16 bits, ONNX Runtime's."""
    return node.op in PAIR and (is_standard(node) or node.domain == "com.microsoft")


def integer_operator(graph: Graph) -> Node | None:
    """The first operator that computes with integers itself, as in QOperator format and dynamic quantization."""
    known = (n for n in graph.walk() if is_standard(n) or n.domain == "com.microsoft")
    return next((n for n in known if n.op in _INTEGER_OPS or n.op.startswith(_INTEGER_PREFIXES)), None)


def refuse_pairs(graph: Graph, advice: str) -> None:
    """Raise where a Q or DQ is in the graph.

    Args:
        graph: What should be a float model.
        advice: What to do about pairs that could be taken out.

    Raises:
        UsageError: Names the node, and says what to do.
    """
    node = next((n for n in graph.walk() if is_pair(n)), None)
    if node is None:
        return
    why = why_left(graph, node)
    advice = f"{why}, so strip-qdq cannot take it out; give the float model" if why else advice
    raise UsageError(f"{graph.source} is quantized already: it holds {label(node)}; {advice}")


def is_quantized(graph: Graph) -> bool:
    """Whether anything in a graph, nested graphs included, computes with integers or asks for it by Q/DQ."""
    return any(is_pair(n) for n in graph.walk()) or integer_operator(graph) is not None


def take_apart(graph: Graph) -> TakenApart:
    """Take Q and DQ out of a graph, in place."""
    graph.sort()
    done = TakenApart()
    taken = {t.name for n in graph.walk() for t in [*n.inputs, *n.outputs]} | {
        t.name for t in graph.unused_initializers
    }
    for node in [n for n in graph.nodes if is_pair(n) and n.op == "DequantizeLinear"]:
        done.constants += _take_constant(graph, node, done, taken)
    done.unread = _drop_unread(graph)
    ends = [_take_pair(graph, *found) for found in _pairs(graph)]
    for end in ends:  # names only now: graph outputs keep theirs
        name = end.tensor.name if end.producer is None else end.producer.outputs[end.index].name
        if end.found is not None:
            before = done.given.activations.get(name)
            done.given.activations[name] = end.found if before is None else before.joined(end.found)
    done.pairs, done.restored = len(ends), sum(end.restored for end in ends)
    graph.sort()
    done.given.activations = spread(graph, done.given.activations)
    done.left = [(n, why_left(graph, n)) for n in graph.walk() if is_pair(n)]
    return done


def why_left(graph: Graph, node: Node) -> str:
    """Why a Q or DQ cannot be taken out; "" where it can."""
    if not _is_own(graph, node):
        return "it is inside a nested graph"
    if node.op == "QuantizeLinear":
        return _why_not(graph, node)
    producer = graph.producer(node.inputs[0])
    if producer is not None and is_pair(producer):
        return _why_not(graph, producer)
    if graph.constant(node.inputs[0]) is not None:
        return "its scale is computed when the model runs, or does not fit its values"
    source = label(producer) if producer is not None else f"graph input '{node.inputs[0].name}'"
    return f"its integers come from {source}"


def _is_own(graph: Graph, node: Node) -> bool:
    return any(n is node for n in graph.nodes)


def _take_constant(graph: Graph, node: Node, done: TakenApart, taken: set[str]) -> bool:
    """Put floats in the place of a constant behind a DequantizeLinear, or behind a pair."""
    quantize = graph.producer(node.inputs[0])
    paired = quantize is not None and is_pair(quantize)
    source = quantize.inputs[0] if quantize is not None and paired else node.inputs[0]
    constant = graph.constant(source)
    parameters = _parameters(graph, node)
    if constant is None or parameters is None or graph.is_output(node.outputs[0]):
        return False
    codes = None if paired else constant
    values = constant if codes is None else dequantized(graph, node, codes)
    if values is None or (quantize is not None and paired and _why_not(graph, quantize)):
        return False
    values = values if codes is None else _whole_bins(graph, node, values, parameters[0])
    scale, zero = parameters
    dtype = str(codes.dtype) if codes is not None else _type(quantize or node, zero)
    if scale.size == 1 or scale.ndim == 1:
        axis = None if scale.size == 1 else int(node.attrs.get("axis", 1))
        done.given.add_constant(values, GivenCodes(scale.reshape(-1), zero.reshape(-1), dtype, axis, codes))
    replacement = source if codes is None else _constant(source, values, taken)
    if codes is not None and codes.size > 1 and codes.dtype.itemsize == 1 and not _weighted_reader(graph, node):
        done.coarse.append(replacement.name)
    graph.replace_uses(node.outputs[0], replacement)
    graph.remove(node)
    return True


def _weighted_reader(graph: Graph, node: Node) -> bool:
    return any(n.op in FEATURE_OPS for n in graph.consumers(node.outputs[0]))


def _whole_bins(graph: Graph, node: Node, values: Array, scale: Array) -> Array:
    """The bins 0, 1, 2, … of an expectation, where quantization took them for weights; else the values as they are."""
    bins = np.arange(values.size, dtype=values.dtype).reshape(values.shape)
    readers = graph.consumers(node.outputs[0])
    few = 2 < values.size <= MOST_BINS and max(values.shape) == values.size
    if few and all(n.op in FEATURE_OPS for n in readers) and np.abs(values - bins).max() <= 0.5001 * scale.max():
        return bins
    return values


def _constant(codes: Tensor, values: Array, taken: set[str]) -> Constant:
    """New constant, named as the codes were before they were codes.

    Not by `Graph.unique_name`, which would keep the names of all pairs from those that come in their place.
    """
    name = codes.name.removesuffix("_quantized")
    while name in taken:
        name += "_float"
    taken.add(name)
    return Constant(name, values)


def _drop_unread(graph: Graph) -> int:
    nodes = [n for n in graph.nodes if is_pair(n) and n.op == "QuantizeLinear" and not n.outputs[0].outputs]
    unread = [n for n in nodes if not graph.is_output(n.outputs[0])]
    graph.remove(*unread)
    return len(unread)


def _pairs(graph: Graph) -> list[tuple[Node, GivenRange | None, bool]]:
    """Quantizers that can be taken out, with their range, and whether they cut negative values off."""
    tail = find_tail(graph).nodes
    bounds: dict[str, Interval] = {}
    found: list[tuple[Node, GivenRange | None, bool]] = []
    for node in graph.nodes:
        if not is_pair(node):
            bounds.update((t.name, output_bounds(graph, node, bounds)) for t in node.outputs)
            continue
        low, high = bounds.get(node.inputs[0].name, ANY)
        parameters = _parameters(graph, node) if node.op == "QuantizeLinear" else None
        if parameters is not None and not _why_not(graph, node):
            given = span(*parameters, _type(node, parameters[1]))
            producer = graph.producer(node.inputs[0])
            one_sided = given is not None and given.low == 0 and low < 0
            before_relu = producer is not None and producer.op in _BEFORE_RELU and id(producer) not in tail
            found.append((node, given, one_sided and before_relu))
            low = max(low, given.low) if given is not None else low
        bounds[node.outputs[0].name] = (low, high)
    return found


def _why_not(graph: Graph, quantize: Node) -> str:
    """Why a quantizer cannot be taken out; "" where it can."""
    readers = graph.consumers(quantize.outputs[0])
    if graph.is_output(quantize.outputs[0]):
        return "its integers are a graph output"
    strangers = [n for n in readers if not is_pair(n) or n.op == "QuantizeLinear"]
    if strangers:
        return f"{label(strangers[0])} reads its integers"
    if any(not _is_own(graph, n) for n in readers):
        return "a nested graph reads its integers"
    own = _parameters(graph, quantize)
    if own is None:
        return "its scale or zero point is computed when the model runs"
    for reader in readers:
        other = _parameters(graph, reader)
        if other is None or not all(_equal(a, b) for a, b in zip(own, other, strict=True)):
            return f"{label(reader)} has another scale or zero point"
    return ""


def _equal(first: Array, second: Array) -> bool:
    """Whether two parameters are the same, one for all counting as one for each."""
    return (first.size == 1 or second.size in {1, first.size}) and bool((first.ravel() == second.ravel()).all())


def _parameters(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """Scale and zero point; None where they are computed."""
    scale = graph.constant(node.inputs[1])
    named = len(node.inputs) > 2 and bool(node.inputs[2].name)
    zero = graph.constant(node.inputs[2]) if named else np.zeros(1, np.int32)
    return None if scale is None or zero is None else (scale, zero)


def _type(quantize: Node, zero: Array) -> str:
    """Type of the integers of a Q: its zero point's, else uint8 by ONNX's definition."""
    return str(zero.dtype) if len(quantize.inputs) > 2 and quantize.inputs[2].name else "uint8"


@dataclass(frozen=True)
class _End:
    """Where the tensor of a pair is found after the pair is gone."""

    tensor: Tensor
    producer: Node | None
    index: int
    found: GivenRange | None
    restored: bool


def _take_pair(graph: Graph, quantize: Node, found: GivenRange | None, restore: bool) -> _End:
    if restore and found is not None:
        _restore(graph, quantize, found)
    source = quantize.inputs[0]
    producer = graph.producer(source)
    index = next(i for i, t in enumerate(producer.outputs) if t is source) if producer is not None else 0
    for dequantize in graph.consumers(quantize.outputs[0]):
        if not graph.bypass(dequantize, quantize.inputs[0]):
            outputs = list(dequantize.outputs)
            dequantize.outputs.clear()
            graph.add_node("Identity", [quantize.inputs[0]], outputs=outputs, name=dequantize.name, before=dequantize)
            graph.remove(dequantize)
    graph.remove(quantize)
    return _End(source, producer, index, found, restore)


def _restore(graph: Graph, quantize: Node, found: GivenRange) -> None:
    """Put a Relu, or a Clip to 6, between a tensor and its quantizer."""
    tensor = quantize.inputs[0]
    bounded = abs(found.high - RELU6) < found.high / 255 / 2
    limits = [np.asarray(v, np.float32) for v in (0.0, RELU6)] if bounded else []
    op = "Clip" if bounded else "Relu"
    node = graph.add_node(op, [tensor, *limits], name=f"{tensor.name}_{op.lower()}", before=quantize)
    quantize.inputs[0] = node.outputs[0]
