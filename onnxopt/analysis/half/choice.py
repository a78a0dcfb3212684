"""Which nodes stay in float32, and why.

A node stays that

1. cannot turn half (see `forms`), or that the user blocks by name;
2. computes sizes and positions from shapes alone: such numbers must be exact, and cost nothing;
3. reads or writes a tensor that got larger than `limit` on the samples, or that is all below 2^-14;
4. reads a constant that float16 cannot hold or renders badly. Two kinds are no obstacle: bounds of Clip, Min and Max
   beyond what float16 holds, for they bound nothing, and small ones that are added to others or stand beside them,
   where no half number shows the difference. But a small number that keeps a divisor from 0 is one: what it is added
   to stays float32, with all that reads it;
5. adds up so many numbers, or squares such large ones, that a runtime which does that in half would overflow;
6. reads a DequantizeLinear whose scale stays float32: a Cast between would part it from its Q/DQ pairs.

Then neighbours follow: what only moves values stays where its input does, what stands between nodes that stay does
too, and what has no float32 output (comparisons, TopK's indices) reads whatever is there. A DequantizeLinear is of
its readers' precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from onnxopt.analysis.half.forms import HalfForm
from onnxopt.analysis.half.peaks import LARGEST, SMALLEST_NORMAL, constant_obstacle, vanishing
from onnxopt.analysis.half.scales import PAIR
from onnxopt.analysis.scope import matches, own_name
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Constant, Graph, Node, Tensor, is_standard

MOVES = frozenset(
    {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity", "Gather", "Expand"}
    | {"Concat", "DepthToSpace", "SpaceToDepth", "Tile", "MaxPool", "GatherElements", "GatherND"}
)
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
ADDED = {  # places of inputs that are added to the rest
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "InstanceNormalization"), (2,)),
    **dict.fromkeys(("Add", "Sub", "Sum"), (0, 1)),
    "BatchNormalization": (2, 3),
    **dict.fromkeys(("Pad", "Where"), (1, 2)),  # or stand beside it, like those of MOVES
}
GUARDS = frozenset({"Add", "Max", "Clip"})  # with a tiny constant, what they give is never 0
BOUNDED = frozenset({"Clip", "Min", "Max"})
SMALLEST_GUARD = 2.0**-20  # 9.5e-7; float16 counts in steps of 2^-24
MEANS = frozenset({"ReduceMean", "GlobalAveragePool"})
SQUARES = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization", "LRN"}
    | {"ReduceL2", "ReduceSumSquare", "MeanVarianceNormalization", "GlobalLpPool"}
)


@dataclass
class Choice:
    """What stays in float32.

    Attributes:
        reasons: Position in `graph.nodes` to the reason, for nodes that stay for one of their own.
        followers: Positions of those that stay because of their neighbours.
        sizes: Positions of those that compute sizes and positions from shapes alone.
        quantized: Positions of those that belong to Q/DQ pairs which stay.
        half: Positions of all nodes that turn half.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    followers: set[int] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    quantized: set[int] = field(default_factory=set)
    half: frozenset[int] = frozenset()


def choose(
    graph: Graph,
    forms: Sequence[HalfForm],
    shapes: Shapes,
    peaks: dict[str, float],
    *,
    limit: float,
    block: Sequence[str] = (),
    qdq_scales: bool = True,
    keep_io: bool = True,
) -> Choice:
    """Sort the nodes.

    Args:
        graph: The float32 model, its nodes in order of execution.
        forms: Of each node.
        shapes: Sizes at which the model runs.
        peaks: Largest magnitude of each tensor; those that are not in it are taken to fit.
        limit: Largest magnitude that may turn half.
        block: Name patterns of nodes that stay; a node without a name bears that of its output.
        qdq_scales: Whether Q/DQ may have half scales.
        keep_io: Whether inputs of the graph stay float32.
    """
    rules = _Rules(graph, shapes, peaks, limit, block)
    choice = Choice()
    chosen = set()
    for position, (node, form) in enumerate(zip(graph.nodes, forms, strict=True)):
        if not form.possible and not form.obstacle:
            continue
        if position in rules.sizes:
            choice.sizes.add(position)
        elif not qdq_scales and rules.is_quantized(node):
            choice.quantized.add(position)
        elif reason := rules.reason(node, form):
            choice.reasons[position] = reason
        else:
            chosen.add(position)
    choice.followers = _followers(graph, forms, chosen, keep_io=keep_io)
    choice.half = frozenset(chosen - choice.followers)
    return choice


class _Rules:
    def __init__(
        self, graph: Graph, shapes: Shapes, peaks: dict[str, float], limit: float, block: Sequence[str]
    ) -> None:
        self.graph, self.shapes, self.peaks, self.limit, self.block = graph, shapes, peaks, limit, block
        self.sizes = _from_shapes(graph)
        self._constants: dict[str, str] = {}
        self._guarded = {t.name: guard for n in graph.nodes if (guard := self._guard(n)) for t in n.outputs}

    def is_quantized(self, node: Node) -> bool:
        if node.op in PAIR:
            return True
        producers = [self.graph.producer(t) for t in node.inputs]
        return any(p is not None and p.op == "DequantizeLinear" for p in producers)

    def reason(self, node: Node, form: HalfForm) -> str:
        if form.obstacle:
            return form.obstacle
        if matches([own_name(node)], self.block):
            return "named in block"
        for place in form.inputs:
            if reason := self._constant(node, place) or self._tensor(node.inputs[place]):
                return reason
        reasons = (self._tensor(node.outputs[place]) for place in form.outputs)
        return next(filter(None, reasons), "") or self._inside(node)

    def _constant(self, node: Node, place: int) -> str:
        tensor = node.inputs[place]
        values = self.graph.constant(tensor)
        if values is None:
            return ""
        if node.op in PAIR and vanishing(values):
            return f"scale '{tensor.name}' holds numbers that are 0 in float16"
        if tensor.name not in self._constants:
            self._constants[tensor.name] = constant_obstacle(values)
        found = self._constants[tensor.name]
        small = place in ADDED.get(node.op, ()) or node.op in MOVES
        harmless = node.op in BOUNDED if found.startswith("holds") else small
        return f"constant '{tensor.name}' {found}" if found and not harmless else ""

    def _guard(self, node: Node) -> str:
        """The constant that keeps a node's output from 0 and is no more than that; "" where there is none."""
        for tensor in node.inputs if node.op in GUARDS else ():
            values = self.graph.constant(tensor) if tensor.name else None
            if values is not None and values.size == 1 and 0 < abs(float(values.item())) < SMALLEST_GUARD:
                return tensor.name
        return ""

    def _tensor(self, tensor: Tensor) -> str:
        if self.graph.constant(tensor) is not None:
            return ""
        if tensor.name in self._guarded:
            return f"'{tensor.name}' is kept from 0 by '{self._guarded[tensor.name]}', which float16 cannot tell from 0"
        peak = self.peaks.get(tensor.name, 0.0)
        if peak > self.limit:
            return f"'{tensor.name}' reaches {peak:.4g}; the limit is {self.limit:.5g}"
        if 0 < peak < SMALLEST_NORMAL:
            return f"'{tensor.name}' is nowhere above {peak:.2g}, where float16 has few digits left"
        return ""

    def _inside(self, node: Node) -> str:
        if node.op in MEANS:
            count = self._ratio(node.inputs[0], node.outputs[0])
            total = count * self.peaks.get(node.outputs[0].name, 0.0)
            if total > LARGEST:
                return f"its sum over {count} numbers reaches {total:.3g}; float16 ends at {LARGEST:.0f}"
        if node.op in SQUARES:
            square = self.peaks.get(node.inputs[0].name, 0.0) ** 2
            if square > LARGEST:
                return f"it squares '{node.inputs[0].name}', which gives {square:.3g}; float16 ends at {LARGEST:.0f}"
        return ""

    def _ratio(self, many: Tensor, few: Tensor) -> int:
        sizes = self.shapes.static(many), self.shapes.static(few)
        if sizes[0] is None or sizes[1] is None or not prod(sizes[1]):
            return 1
        return prod(sizes[0]) // prod(sizes[1])


def _from_shapes(graph: Graph) -> set[int]:
    """Positions of nodes that see of the inputs no more than their shapes, and more than constants."""
    sized: set[int] = set()  # identities of tensors
    found = set()
    for position, node in enumerate(graph.nodes):
        if node.op in {"Shape", "Size"} and is_standard(node):
            sized.update(id(t) for t in node.outputs)
            continue
        reads = [t for t in node.inputs if t.name and graph.constant(t) is None]
        if reads and all(id(t) in sized for t in reads):
            sized.update(id(t) for t in node.outputs)
            found.add(position)
    return found


def _followers(graph: Graph, forms: Sequence[HalfForm], chosen: set[int], *, keep_io: bool) -> set[int]:
    """Positions of chosen nodes that better stay float32 as their neighbours do."""
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    half = set(chosen)

    def stays(tensor: Tensor) -> bool | None:
        """Whether a node computes a tensor in float32; None for constants, and for inputs, which anything may read."""
        producer = graph.producer(tensor)
        if isinstance(tensor, Constant) or producer is None or graph.constant(tensor) is not None:
            return None
        place = position.get(id(producer), -1)
        return place not in half or not any(producer.outputs[i] is tensor for i in forms[place].outputs)

    for i in sorted(chosen):
        node, form = graph.nodes[i], forms[i]
        reads = [s for s in (stays(node.inputs[j]) for j in form.inputs) if s is not None]
        if reads and (all(reads) if form.outputs else any(reads)):
            readers = [c for j in form.outputs for c in graph.consumers(node.outputs[j])]
            ends = any(graph.is_output(node.outputs[j]) for j in form.outputs)
            between = not ends and all(position.get(id(c), -1) not in half for c in readers)
            if node.op in MOVES or not form.outputs or (between and node.op not in WEIGHTED):
                half.discard(i)
        elif not form.outputs and not reads and keep_io:  # reads inputs of the graph alone, which are float32
            half.discard(i)
    for i in sorted(half, reverse=True):
        node = graph.nodes[i]
        if node.op == "DequantizeLinear" and not graph.is_output(node.outputs[0]):
            places = [position.get(id(c), -1) for c in graph.consumers(node.outputs[0])]
            if places and not half.intersection(places):
                half.discard(i)
    return chosen - half
