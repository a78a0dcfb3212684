"""A quantized graph as rules look at it: who quantizes what, with which numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from onnxopt.graph import Array, Graph, Node, Tensor, is_standard
from onnxopt.placement.strip import without_pairs
from onnxopt.placement.tail import FEATURE_OPS, find_tail

MOVERS = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Slice", "Squeeze", "Unsqueeze", "Split", "Resize"}
    | {"DepthToSpace", "SpaceToDepth", "Identity", "Gather", "Expand", "Tile", "Pad"}
)


@dataclass
class PairView:
    """A graph, and where its pairs are. Nodes have names of their own.

    Attributes:
        graph: A copy of the graph.
        structure: The graph without pairs, nodes named alike.
        quantizers: QuantizeLinear nodes on activations.
        dequantizers: DequantizeLinear nodes behind one of `quantizers`.
        weights: DequantizeLinear nodes behind constants.
        weighted: Conv, ConvTranspose, Gemm, MatMul.
        tail: Names of the nodes behind the last features.
    """

    graph: Graph
    structure: Graph = field(init=False)
    quantizers: list[Node] = field(init=False)
    dequantizers: list[Node] = field(init=False)
    weights: list[Node] = field(init=False)
    weighted: list[Node] = field(init=False)
    tail: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.graph = self.graph.copy()
        self.graph.name_nodes()
        self.structure = without_pairs(self.graph)
        _stand_in(self.structure)
        every = [n for n in self.graph.nodes if n.op == "QuantizeLinear"]
        self.quantizers = [n for n in every if self.graph.constant(n.inputs[0]) is None]
        dequantizers = [n for n in self.graph.nodes if n.op == "DequantizeLinear"]
        self.weights = [n for n in dequantizers if self._reads_constant(n)]
        self.dequantizers = [n for n in dequantizers if not self._reads_constant(n) and self.quantizer(n) is not None]
        self._on_activations = {id(n) for n in self.dequantizers}
        self._on_weights = {id(n) for n in self.weights}
        self.weighted = [n for n in self.graph.nodes if n.op in FEATURE_OPS and is_standard(n)]
        found = find_tail(self.structure)
        self.tail = frozenset(n.name for n in self.structure.nodes if id(n) in found.nodes)

    def _reads_constant(self, dequantize: Node) -> bool:
        quantize = self.quantizer(dequantize)
        source = dequantize.inputs[0] if quantize is None else quantize.inputs[0]
        return self.graph.constant(source) is not None

    def quantizer(self, dequantize: Node) -> Node | None:
        """The QuantizeLinear before a DequantizeLinear."""
        node = self.graph.producer(dequantize.inputs[0])
        return node if node is not None and node.op == "QuantizeLinear" else None

    def pair(self, tensor: Tensor) -> Node | None:
        """The DequantizeLinear of an activation that makes a tensor."""
        node = self.graph.producer(tensor)
        return node if node is not None and id(node) in self._on_activations else None

    def weight(self, tensor: Tensor) -> Node | None:
        """The DequantizeLinear of a constant that makes a tensor."""
        node = self.graph.producer(tensor)
        return node if node is not None and id(node) in self._on_weights else None

    def source(self, dequantize: Node) -> Tensor:
        """The float tensor that a pair quantizes."""
        quantize = self.quantizer(dequantize)
        assert quantize is not None
        return quantize.inputs[0]

    def input_pair(self, node: Node) -> Node | None:
        """The pair that quantizes a node's first input, maybe before operators that only move values."""
        tensor = node.inputs[0]
        while True:
            found = self.pair(tensor)
            producer = self.graph.producer(tensor)
            if found is not None or producer is None or producer.op not in MOVERS:
                return found
            tensor = producer.inputs[0]

    def is_int8(self, node: Node) -> bool:
        """Whether a node is weighted, and its input and weights are quantized."""
        weighted = node.op in FEATURE_OPS and len(node.inputs) > 1
        return weighted and self.input_pair(node) is not None and self.weight(node.inputs[1]) is not None

    def scale(self, node: Node) -> Array | None:
        """Scale of a Q or DQ; None where it is computed."""
        return self.graph.constant(node.inputs[1])

    def zero(self, node: Node) -> Array | None:
        """Zero point of a Q or DQ; None where it has none or it is computed."""
        return self.graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None

    def codes(self, dequantize: Node) -> Array | None:
        """Integer constant before a DQ."""
        return self.graph.constant(dequantize.inputs[0])

    def type_of(self, node: Node) -> str:
        """Type of the integers of a Q or DQ. A Q without zero point writes uint8, by ONNX's definition."""
        codes = self.codes(node) if node.op == "DequantizeLinear" else None
        kind = codes if codes is not None else self.zero(node)
        if kind is not None:
            return str(kind.dtype)
        quantize = self.quantizer(node) if node.op == "DequantizeLinear" else node
        if quantize is None:
            return "unknown"
        return "uint8" if quantize is node else self.type_of(quantize)

    def quantized_behind(self, node: Node) -> list[Node]:
        """Quantizers of a node's outputs, also behind one activation that fuses into the node."""
        found = []
        for tensor in node.outputs:
            for reader in self.graph.consumers(tensor):
                if reader.op == "QuantizeLinear":
                    found.append(reader)
                elif reader.op in {"Relu", "Clip"}:
                    found += [c for c in self.graph.consumers(reader.outputs[0]) if c.op == "QuantizeLinear"]
        return found

    def readers(self, dequantize: Node) -> list[Node]:
        """Nodes that read a pair's value."""
        return self.graph.consumers(dequantize.outputs[0])

    def sole_reader(self, tensor: Tensor) -> Node | None:
        """The one node that reads a tensor; None for several, or for a graph output."""
        nodes = self.graph.consumers(tensor)
        return nodes[0] if len(nodes) == 1 and not self.graph.is_output(tensor) else None

    def every(self) -> Iterator[Node]:
        """All Q and DQ."""
        return (n for n in self.graph.nodes if n.op in {"QuantizeLinear", "DequantizeLinear"})


def _stand_in(structure: Graph) -> None:
    """Let integers stand for weights whose scales cannot be read, so that their layer counts as one."""
    for node in structure.nodes:
        codes = structure.constant(node.inputs[0]) if node.op == "DequantizeLinear" else None
        if codes is not None:
            values = structure.add_constant(node.outputs[0].name, codes.astype(np.float32))
            structure.replace_uses(node.outputs[0], values)
