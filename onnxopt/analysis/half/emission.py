"""The graph with half tensors: constants turned, Casts where the two precisions meet, one per tensor and direction."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from onnxopt.analysis.half.forms import HalfForm
from onnxopt.analysis.half.peaks import to_half
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, Variable

HALF, SINGLE = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)


def turn_half(graph: Graph, half: frozenset[int], forms: Sequence[HalfForm], *, keep_io: bool = True) -> int:
    """Let nodes compute in half, in place.

    Args:
        graph: The model.
        half: Positions in `graph.nodes` of the nodes.
        forms: Of each node of `graph.nodes`.
        keep_io: Whether float32 inputs and outputs of the graph stay float32.

    Returns:
        How many Casts were added.
    """
    converter = _Converter(graph, {id(graph.nodes[i]): forms[i] for i in half})
    if not keep_io:
        converter.borders()
    for i in sorted(half):
        converter.outputs(graph.nodes[i])
    rewire_constants(graph, converter.forms, to_half)
    for node in list(graph.walk()):
        converter.inputs(node)
    graph.nodes.extend(converter.casts)
    return sum(node.op == "Cast" for node in converter.casts)


class _Converter:
    def __init__(self, graph: Graph, forms: dict[int, HalfForm]) -> None:
        self.graph, self.forms = graph, forms
        self.casts: list[Node] = []
        self.turned: set[int] = set()  # identities of half tensors
        self._halved: set[int] = set()  # those of them that are outputs of the graph
        self._kept: dict[int, Tensor] = {}  # tensors, so that identities stay theirs
        self._up: dict[int, Tensor] = {}
        self._down: dict[int, Tensor] = {}

    def borders(self) -> None:
        """Turn the graph's float32 inputs and outputs half, outputs of nodes that stay float32 behind a Cast."""
        for tensor in self.graph.inputs:
            if tensor.dtype == np.float32:
                tensor.dtype = np.dtype(np.float16)
                self.turned.add(id(tensor))
                self._kept[id(tensor)] = tensor
        for tensor in self.graph.outputs:
            if tensor.dtype != np.float32 or id(tensor) in self.turned:
                continue
            tensor.dtype = np.dtype(np.float16)
            self._halved.add(id(tensor))
            producer = self.graph.producer(tensor)
            place = next((i for i, t in enumerate(producer.outputs) if t is tensor), -1) if producer else -1
            if producer is not None and place not in self.forms.get(id(producer), HalfForm()).outputs:
                own = Variable(self.graph.unique_name(f"{tensor.name}_single"))
                producer.outputs[place] = own
                self.graph.replace_uses(tensor, own)
                self._kept[id(own)] = own
                self._down[id(own)] = tensor
                self._cast(own, tensor, HALF)

    def outputs(self, node: Node) -> None:
        """Turn a node's outputs half. A float32 output of the graph keeps its tensor, behind a Cast."""
        for place in self.forms[id(node)].outputs:
            tensor = node.outputs[place]
            if self.graph.is_output(tensor) and id(tensor) not in self._halved:
                own = Variable(self.graph.unique_name(f"{tensor.name}_half"))
                node.outputs[place] = own
                self.graph.replace_uses(tensor, own)
                self._up[id(own)] = tensor
                self._cast(own, tensor, SINGLE)
                tensor = own
            elif tensor.dtype is not None:
                tensor.dtype = np.dtype(np.float16)
            self.turned.add(id(tensor))
            self._kept[id(tensor)] = tensor
        if node.op == "Cast" and self.forms[id(node)].outputs:
            node.attrs["to"] = HALF
        if node.op == "ConstantOfShape" and self.forms[id(node)].outputs:
            given = node.attrs.get("value")
            values = given.values if isinstance(given, Constant) else np.zeros(1, np.float32)
            node.attrs["value"] = Constant(f"{node.name}_value", to_half(values))

    def inputs(self, node: Node) -> None:
        """Let a node read tensors of the precision it wants."""
        form = self.forms.get(id(node), HalfForm())
        for place, tensor in enumerate(node.inputs):
            is_half = id(tensor) in self.turned or tensor.dtype == np.float16
            if place in form.inputs and not is_half:
                node.inputs[place] = self._other(tensor, self._down, "half", HALF)
            elif place not in form.inputs and id(tensor) in self.turned:
                node.inputs[place] = self._other(tensor, self._up, "float", SINGLE)

    def _other(self, tensor: Tensor, made: dict[int, Tensor], suffix: str, kind: int) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = Variable(self.graph.unique_name(f"{tensor.name}_{suffix}"))
            self._kept[id(tensor)] = tensor
            producer = self.graph.producer(tensor)
            paired = kind == SINGLE and producer is not None and producer.op == "DequantizeLinear"
            scale = self.graph.constant(producer.inputs[1]) if paired and producer is not None else None
            if producer is not None and scale is not None:
                self._dequantize(producer, scale, made[id(tensor)])
            else:
                self._cast(tensor, made[id(tensor)], kind)
        return made[id(tensor)]

    def _dequantize(self, half: Node, scale: Array, output: Tensor) -> None:
        """A DequantizeLinear of float32 beside that of float16: a Cast would part it from its layer."""
        name = self.graph.unique_name(f"{half.name}_single")
        single = self.graph.add_constant(f"{half.inputs[1].name}_single", scale.astype(np.float32))
        inputs = [half.inputs[0], single, *half.inputs[2:]]
        self.casts.append(Node("DequantizeLinear", name, dict(half.attrs), inputs, [output]))

    def _cast(self, source: Tensor, output: Tensor, kind: int) -> None:
        self.casts.append(Node("Cast", self.graph.unique_name(f"{output.name}_Cast"), {"to": kind}, [source], [output]))


def rewire_constants(graph: Graph, forms: dict[int, HalfForm], convert: Callable[[Array], Array]) -> None:
    """Give half inputs converted constants; one that float32 inputs read too is doubled.

    Args:
        graph: The model, changed in place.
        forms: Identity of a node to its form, for the nodes that turn half.
        convert: Values to the new values.
    """
    slots: dict[int, list[tuple[Node, int]]] = {}
    tensors: dict[int, Tensor] = {}
    for node in graph.nodes:
        form = forms.get(id(node), HalfForm())
        for place in form.inputs:
            if graph.constant(node.inputs[place]) is not None:
                tensors[id(node.inputs[place])] = node.inputs[place]
                slots.setdefault(id(node.inputs[place]), []).append((node, place))
    for key, tensor in tensors.items():
        values = graph.constant(tensor)
        assert values is not None
        only = isinstance(tensor, Constant) and len(tensor.outputs) == len(slots[key]) and not graph.is_output(tensor)
        if isinstance(tensor, Constant) and only:
            tensor.values = convert(values)
            continue
        twin = graph.add_constant(f"{tensor.name}_half", convert(values))
        for node, place in slots[key]:
            node.inputs[place] = twin
        _drop_unread(graph, tensor)


def _drop_unread(graph: Graph, tensor: Tensor) -> None:
    """Remove the Constant or Identity node that made a tensor which nothing reads any more."""
    producer = graph.producer(tensor)
    if producer is None or tensor.outputs or graph.is_output(tensor):
        return
    sources = list(producer.inputs)
    graph.remove(producer)
    for source in sources:
        _drop_unread(graph, source)
