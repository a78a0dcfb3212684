"""Which layer of the original model a runtime's kernel stands for.

1. A kernel is looked up among the nodes and tensors of the model that runs, by the names that the runtime keeps: the
   weighted node among them, else the first that is no quantizer, else the quantizer.
2. A quantizer, or a change of layout, is a conversion. It belongs to the layer that makes its tensor; one without a
   name in the model, to the layer that reads what it writes.
3. A node of the model that runs is looked up in the original: by name, then by the tensor that it writes. One that a
   pass put in belongs to the layer before it; with weights, to the layer behind it, of which it is a part.
4. A BatchNormalization behind a layer with weights is a part of that layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnxopt.analysis.cost import WEIGHTED
from onnxopt.graph import Graph, Node
from onnxopt.runtime.kernel_time import KernelTime

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
LAYOUT = frozenset({"ReorderInput", "ReorderOutput", "Reorder"})
NAMELESS = LAYOUT | QUANTIZERS | {"Transpose", "Convert", "FakeQuantize", "Quantize", "Cast"}
WEIGHTED_KERNELS = {
    **dict.fromkeys(("Conv", "FusedConv", "QLinearConv", "ConvInteger", "Convolution"), "Conv"),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "FullyConnected"), "Gemm"),
    **dict.fromkeys(("MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat"), "MatMul"),
    **dict.fromkeys(("ConvTranspose", "Deconvolution"), "ConvTranspose"),
}
BACK = 3  # nodes between a layer and the one that its kernel was named after


@dataclass(frozen=True)
class Place:
    """Where a kernel belongs.

    Attributes:
        layer: Node of the original model; None where there is none.
        node: Node of the model that runs; None where the runtime's name is not known there.
        conversion: Whether it only changes type or layout.
    """

    layer: Node | None
    node: Node | None
    conversion: bool


class Mapping:
    """Finds the place of kernels.

    Args:
        model: The graph that runs, with node names of its own (`Graph.name_nodes`).
        original: The graph whose layers are known to the reader; may be the same.
        kernels: All kernels, in order of execution.
    """

    def __init__(self, model: Graph, original: Graph, kernels: Sequence[KernelTime]) -> None:
        self._model, self._original = model, original
        self._kernels = {kernel.name: kernel for kernel in kernels}
        self._known = _by_name(model.nodes)

    def place(self, kernel: KernelTime) -> Place:
        """Where a kernel belongs."""
        node = self._node(kernel)
        conversion = self._converts(kernel, node)
        if node is None:
            reader = next(self._readers(kernel), None) if conversion else None
            return Place(self._layer(reader) if reader is not None else None, None, conversion)
        return Place(self._layer(self._maker(node)), node, conversion)

    def _node(self, kernel: KernelTime) -> Node | None:
        found = [self._known[name] for name in kernel.origins if name in self._known]
        weighted = WEIGHTED_KERNELS.get(kernel.op)
        for wanted in (
            [n for n in found if n.op in WEIGHTED],
            [above for n in found if weighted and (above := _above(self._model, n, weighted)) is not None],
            [n for n in found if n.op not in QUANTIZERS],
            found,
        ):
            if wanted:
                return wanted[0]
        return None

    @staticmethod
    def _converts(kernel: KernelTime, node: Node | None) -> bool:
        if node is None:
            return kernel.op in NAMELESS
        return node.op in QUANTIZERS or kernel.op in LAYOUT or (kernel.op in QUANTIZERS and node.op != kernel.op)

    def _readers(self, kernel: KernelTime) -> Iterator[Node]:
        """Nodes behind a kernel, past other conversions."""
        waiting, seen = list(kernel.readers), set[str]()
        while waiting:
            name = waiting.pop(0)
            if name in seen or name not in self._kernels:
                continue
            seen.add(name)
            node = self._node(self._kernels[name])
            if node is not None and node.op not in QUANTIZERS:
                yield node
            else:
                waiting.extend(self._kernels[name].readers)

    def _maker(self, node: Node) -> Node:
        """The node that makes what a quantizer quantizes; at the model's input, the one that reads it."""
        while node.op in QUANTIZERS:
            above = self._model.producer(node.inputs[0])
            if above is None:
                return next((n for n in _behind(self._model, node) if n.op not in QUANTIZERS), node)
            node = above
        return node

    def _layer(self, node: Node) -> Node | None:
        """The original's layer of a node."""
        found = self.same(node)
        if found is None and node.op in WEIGHTED:
            return next((layer for n in _behind(self._model, node) if (layer := self.same(n)) is not None), None)
        above: Node | None = node
        while above is not None:
            found = self.same(above)
            if found is not None:
                return found
            above = next((p for p in self._model.dependencies(above) if p.op != "Constant"), None)
        return None

    def same(self, node: Node) -> Node | None:
        """The original's node of the same name, or that writes the same tensor; None where there is none."""
        named = self._names.get(node.name)
        if named is None or (named.op != node.op and node.op in WEIGHTED):
            named = next((self._names[t.name] for t in node.outputs if t.name in self._names), None)
        if named is None or named.op != "BatchNormalization":
            return named
        maker = self._original.producer(named.inputs[0])
        return maker if maker is not None and maker.op in WEIGHTED else named

    @cached_property
    def _names(self) -> dict[str, Node]:
        return _by_name(n for n in self._original.nodes if n.op not in QUANTIZERS)


def shares_layers(model: Graph, original: Graph) -> bool:
    """Whether any layer with weights of a model is one of the original; also where the model has none.

    One that writes an output counts only where there is no other: many models call theirs alike.

    Args:
        model: The model.
        original: What it may have been made from.
    """
    named = model.copy()
    named.name_nodes()
    mapping = Mapping(named, original, ())
    weighted = [node for node in named.nodes if node.op in WEIGHTED]
    outputs = {tensor.name for tensor in named.outputs}
    inner = [node for node in weighted if outputs.isdisjoint(tensor.name for tensor in node.outputs)]
    found = (mapping.same(node) for node in inner or weighted)
    return not weighted or any(layer is not None and layer.op in WEIGHTED for layer in found)


def _by_name(nodes: Iterable[Node]) -> dict[str, Node]:
    """Nodes by the names of what they write, and by their own."""
    listed = list(nodes)
    tensors = {t.name: n for n in listed for t in n.outputs if t.name}
    return tensors | {n.name: n for n in listed if n.name}


def _above(graph: Graph, node: Node, op: str) -> Node | None:
    """The node of this type at or shortly before another, if nothing else reads what is between them."""
    current: Node | None = node
    for _ in range(BACK + 1):
        if current is None or current.op == op:
            return current
        current = graph.producer(current.inputs[0]) if current.inputs else None
        if current is not None and any(len(graph.consumers(t)) > 1 for t in current.outputs):
            return None
    return None


def _behind(graph: Graph, node: Node) -> Iterator[Node]:
    """Nodes that depend on a node, near ones first."""
    waiting, seen = [node], {id(node)}
    while waiting:
        for tensor in waiting.pop(0).outputs:
            for reader in graph.consumers(tensor):
                if id(reader) not in seen:
                    seen.add(id(reader))
                    waiting.append(reader)
                    yield reader
