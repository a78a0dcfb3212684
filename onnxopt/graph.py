"""The graph that passes work on: a typed face over `onnx_graphsurgeon.Graph`.

Nodes and tensors are graphsurgeon's own objects (`node.op`, `node.inputs`, `tensor.outputs`, …), so what people
know of it holds here. Three rules keep copies cheap and results right:

1. The values of a `Constant` are never changed in place: make a new array and assign it (`set_values`).
2. A constant may be shared by several nodes: `own_constant` gives a node one of its own before it is changed.
3. Node and tensor identity is `is`, never `==` (graphsurgeon's `==` compares contents, slowly).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx_graphsurgeon import Constant, Node, Tensor, Variable
from onnx_graphsurgeon import Graph as SurgeonGraph

from onnxopt import graph_proto
from onnxopt.graph_proto import onnx_dtype

__all__ = ["Array", "Constant", "Graph", "Node", "Tensor", "Variable", "is_standard", "label", "onnx_dtype"]

Array = npt.NDArray[Any]
Input = Tensor | npt.NDArray[Any] | None


class Graph:
    """A model in memory.

    Attributes:
        ir: The graphsurgeon graph, for what this face does not offer.
        source: File name that the model was read from, for messages.
    """

    def __init__(self, ir: SurgeonGraph, shell: onnx.ModelProto, source: str = "model") -> None:
        self.ir = ir
        self.source = source
        self._shell = shell
        self._names: set[str] | None = None

    @classmethod
    def from_proto(cls, model: onnx.ModelProto, source: str = "model") -> "Graph":
        """Take over a protobuf model. The graph refers to its weights: do not use `model` afterwards."""
        ir, shell = graph_proto.import_model(model)
        return cls(ir, shell, source)

    def to_proto(self, *, weights: bool = True) -> onnx.ModelProto:
        """Protobuf model. `weights=False` drops the data of large initializers, for analysis at any size."""
        self.sort()
        model = graph_proto.export_model(self.ir, self._shell, weights=weights)
        if self.ir_version < 4:
            _list_as_inputs(model.graph)
        return model

    def copy(self) -> "Graph":
        """Copy that shares the weights with this graph."""
        shell = onnx.ModelProto()
        shell.CopyFrom(self._shell)
        return Graph(graph_proto.copy_graph(self.ir), shell, self.source)

    def digest(self) -> str:
        """SHA-256 of the serialised model; deterministic for equal graphs. For models under 2 GB."""
        return hashlib.sha256(self.to_proto().SerializeToString(deterministic=True)).hexdigest()

    @property
    def nodes(self) -> list[Node]:
        """Nodes in order of execution."""
        return self.ir.nodes

    @property
    def inputs(self) -> list[Tensor]:
        """Graph inputs that have no default value."""
        return self.ir.inputs

    @property
    def outputs(self) -> list[Tensor]:
        """Graph outputs."""
        return self.ir.outputs

    @property
    def metadata(self) -> dict[str, str]:
        """Copy of the model's `metadata_props`."""
        return {p.key: p.value for p in self._shell.metadata_props}

    def set_metadata(self, key: str, value: str) -> None:
        """Set one entry of the model's `metadata_props`."""
        for prop in self._shell.metadata_props:
            if prop.key == key:
                prop.value = value
                return
        self._shell.metadata_props.add(key=key, value=value)

    @property
    def opsets(self) -> dict[str, int]:
        """Imported operator sets: domain ("" is ONNX's own) to version."""
        return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in self._shell.opset_import}

    @property
    def opset(self) -> int:
        """Version of ONNX's own operator set; 1 where the model imports none."""
        return self.opsets.get("", 1)

    def set_opset(self, domain: str, version: int) -> None:
        """Import an operator set at a version."""
        for entry in self._shell.opset_import:
            if entry.domain == domain or (not domain and entry.domain == "ai.onnx"):
                entry.version = version
                break
        else:
            self._shell.opset_import.add(domain=domain, version=version)
        if not domain:
            self.ir.opset = version

    @property
    def ir_version(self) -> int:
        """ONNX IR version of the file."""
        return self._shell.ir_version

    def set_ir_version(self, version: int) -> None:
        """Set the IR version. From 4 on, initializers listed as inputs by old exporters become plain constants."""
        if self.ir_version < 4 <= version:
            real = {t.name for t in self.inputs}
            kept = [v for v in self._shell.graph.input if v.name in real]
            copies = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
            del self._shell.graph.input[:]
            self._shell.graph.input.extend(copies)
        self._shell.ir_version = version

    @property
    def overridable(self) -> list[str]:
        """Names of initializers that are also graph inputs: defaults that a caller may override.

        Before IR version 4 every initializer had to be listed as an input; none of those counts.
        """
        if self.ir_version < 4:
            return []
        real = {t.name for t in self.inputs}
        return [v.name for v in self._shell.graph.input if v.name not in real]

    @property
    def functions(self) -> int:
        """How many local functions the model carries (kept verbatim, never edited)."""
        return len(self._shell.functions)

    def nodes_of(self, *ops: str) -> Iterator[Node]:
        """Nodes of the given op types, in order; a snapshot, so the graph may be edited while iterating."""
        return iter([n for n in self.nodes if n.op in ops])

    def walk(self) -> Iterator[Node]:
        """All nodes, those of nested graphs included."""
        return graph_proto.walk(self.ir)

    def tensors(self) -> dict[str, Tensor]:
        """Graph inputs and what top-level nodes write, by name; initializers are none of them."""
        return {t.name: t for t in [*self.inputs, *(t for n in self.nodes for t in n.outputs)]}

    def producer(self, tensor: Tensor) -> Node | None:
        """The node that computes a tensor; None for graph inputs and initializers."""
        return tensor.inputs[0] if tensor.inputs else None

    def consumers(self, tensor: Tensor) -> list[Node]:
        """The nodes that read a tensor, each once, nested graphs included."""
        return list({id(n): n for n in tensor.outputs}.values())

    def dependencies(self, node: Node) -> list[Node]:
        """The nodes whose outputs a node reads, itself or inside its nested graphs."""
        return list(graph_proto.producers(node))

    def is_output(self, tensor: Tensor) -> bool:
        """Whether a tensor is a graph output."""
        return any(t is tensor for t in self.outputs)

    def constant(self, tensor: Tensor) -> Array | None:
        """Value of a tensor that does not depend on the input, else None.

        Sees through `Constant` nodes and `Identity` of a constant. An initializer that a caller may override is
        no constant. Do not write into the array.
        """
        if isinstance(tensor, Constant):
            return None if tensor.name in self.overridable else tensor.values
        node = self.producer(tensor)
        if node is None or node.domain:
            return None
        if node.op == "Identity":
            return self.constant(node.inputs[0])
        return _constant_node_value(node) if node.op == "Constant" else None

    def initializers(self) -> list[Constant]:
        """Constants in use, each once, in order of first use."""
        return list(graph_proto.constants(self.ir))

    def freeze(self) -> None:
        """Make the values of all constants read-only: copies of the graph share them.

        Views are frozen, so arrays that somebody outside holds stay as they are.
        """
        held = [v for node in self.walk() for v in node.attrs.values() if isinstance(v, Constant)]
        for constant in [*self.initializers(), *self.unused_initializers, *held]:
            values = constant._values  # noqa: SLF001  (`values` would load what nobody has asked for)
            if isinstance(values, np.ndarray) and values.flags.writeable:
                constant._values = values.view()  # noqa: SLF001
                constant._values.flags.writeable = False  # noqa: SLF001

    @property
    def unused_initializers(self) -> list[Constant]:
        """Initializers of the file that no node uses; a list that may be edited."""
        unused: list[Constant] = self.ir.__dict__.setdefault("unused", [])
        return unused

    def unique_name(self, base: str) -> str:
        """A name that no node or tensor bears: `base`, or `base_1`, `base_2`, …; it is taken from then on."""
        if self._names is None:
            self._names = set(self._all_names())
        name, count = base, 0
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def _all_names(self) -> Iterator[str]:
        for node in self.walk():
            yield node.name
            yield from (t.name for t in node.inputs)
            yield from (t.name for t in node.outputs)
        yield from (t.name for t in [*self.inputs, *self.outputs, *self.unused_initializers])
        yield from (v.name for v in self._shell.graph.input)

    def name_nodes(self) -> None:
        """Give every top-level node a name of its own; names that are unique already stay."""
        seen: set[str] = set()
        for node in self.nodes:
            if not node.name or node.name in seen:
                node.name = self.unique_name(node.name or node.op)
            seen.add(node.name)

    def add_constant(self, base: str, values: Array) -> Constant:
        """New initializer named after `base`."""
        return Constant(self.unique_name(base), np.asarray(values))

    def own_constant(self, node: Node, index: int) -> Constant:
        """Make input `index` of a node an initializer that only this input reads, and return it.

        Raises:
            ValueError: The input is no constant.
        """
        tensor = node.inputs[index]
        values = self.constant(tensor)
        if values is None:
            raise ValueError(f"input {index} of {label(node)} is no constant")
        sole = isinstance(tensor, Constant) and len(tensor.outputs) == 1 and not self.is_output(tensor)
        if isinstance(tensor, Constant) and sole:
            return tensor
        own = self.add_constant(tensor.name, values)
        node.inputs[index] = own
        return own

    def add_node(
        self,
        op: str,
        inputs: Sequence[Input],
        attrs: dict[str, Any] | None = None,
        *,
        outputs: Sequence[Tensor] | int = 1,
        name: str = "",
        domain: str = "",
        before: Node | None = None,
    ) -> Node:
        """Add a node.

        Args:
            op: Op type.
            inputs: Tensors; an array becomes an initializer, None an omitted optional input.
            attrs: Attributes.
            outputs: Tensors to write, or how many new ones to make.
            name: Base of the node's name and of new tensors' names; default: the op.
            domain: Operator domain; "" is ONNX's own.
            before: Insert before this node; default, and where it stands in a nested graph: at the end (nodes are put
                in order on export).
        """
        base = name or op
        tensors = [self._as_tensor(value, f"{base}_const") for value in inputs]
        if isinstance(outputs, int):
            outputs = [Variable(self.unique_name(f"{base}_output")) for _ in range(outputs)]
        node = Node(op, self.unique_name(base), dict(attrs or {}), tensors, list(outputs), domain or None)
        self.nodes.insert(next((i for i, n in enumerate(self.nodes) if n is before), len(self.nodes)), node)
        return node

    def _as_tensor(self, value: Input, name: str) -> Tensor:
        if value is None:
            return Variable.empty()
        return value if isinstance(value, Tensor) else self.add_constant(name, value)

    def index(self, node: Node) -> int:
        """Position of a node, by identity."""
        return next(i for i, n in enumerate(self.nodes) if n is node)

    def replace_uses(self, old: Tensor, new: Tensor, nodes: Iterable[Node] | None = None) -> None:
        """Let consumers of `old` (all, or only `nodes`) read `new` instead. Graph outputs are left alone."""
        for node in self.consumers(old) if nodes is None else nodes:
            for index, tensor in enumerate(node.inputs):
                if tensor is old:
                    node.inputs[index] = new

    def remove(self, *nodes: Node) -> None:
        """Remove nodes and cut them from their tensors."""
        gone = {id(n) for n in nodes}
        for node in nodes:
            node.inputs.clear()
            node.outputs.clear()
        self.nodes[:] = [n for n in self.nodes if id(n) not in gone]

    def bypass(self, node: Node, source: Tensor) -> bool:
        """Remove a one-output node and let what read its output read `source`. Names of graph outputs are kept.

        Returns:
            False where it cannot be done: the output is a graph output and so is `source`, or `source` is no
            node's output, or other nodes would see it renamed inside nested graphs.
        """
        output = node.outputs[0]
        if not self.is_output(output):
            self.replace_uses(output, source)
            self.remove(node)
            return True
        producer = self.producer(source)
        if producer is None or self.is_output(source) or all(n is not producer for n in self.nodes):
            return False
        self.remove(node)
        self.replace_uses(source, output)
        slot = next(i for i, t in enumerate(producer.outputs) if t is source)
        producer.outputs[slot] = output
        return True

    def sort(self) -> None:
        """Put nodes in an order of execution; nothing moves that is in order already (stable)."""
        position = {id(n): i for i, n in enumerate(self.nodes)}
        needs = {id(n): [p for p in graph_proto.producers(n) if id(p) in position] for n in self.nodes}
        if all(position[id(p)] < position[key] for key, ps in needs.items() for p in ps):
            return
        done: set[int] = set()
        order: list[Node] = []
        for root in self.nodes:
            stack = [(root, iter(needs[id(root)]))]
            while stack:
                node, pending = stack[-1]
                following = next((p for p in pending if id(p) not in done), None)
                if following is not None:
                    stack.append((following, iter(needs[id(following)])))
                    continue
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    order.append(node)
        self.nodes[:] = order

    def settle(self) -> None:
        """Bring nodes into an order of execution, and each tensor's consumers into the order of the nodes.

        What a pass does next may depend on these orders; after this they depend on the graph alone, not on the edits
        that led to it.
        """
        self.sort()
        position = {id(n): i for i, n in enumerate(self.walk())}
        for node in self.walk():
            for tensor in node.inputs:
                if len(tensor.outputs) > 1:
                    list.sort(tensor.outputs, key=lambda n: position.get(id(n), len(position)))

    def forget_shapes(self) -> None:
        """Drop recorded shapes of inner tensors, except those behind custom operators, which no inference knows."""
        ends = {id(t) for t in [*self.inputs, *self.outputs]}
        for node in self.nodes:
            for tensor in node.outputs:
                if id(tensor) not in ends and is_standard(node):
                    tensor.dtype, tensor.shape = None, None

    def nbytes(self) -> int:
        """Bytes of all initializers in use."""
        return sum(int(c._values.nbytes) for c in self.initializers())  # noqa: SLF001  (must not load them)


def _list_as_inputs(graph: onnx.GraphProto) -> None:
    """List new initializers as inputs too, as IR versions before 4 want it."""
    listed = {v.name for v in graph.input}
    for tensor in graph.initializer:
        if tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _constant_node_value(node: Node) -> Array | None:
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, Constant):
            return value.values
        if key in {"value_float", "value_floats"}:
            return np.asarray(value, np.float32)
        if key in {"value_int", "value_ints"}:
            return np.asarray(value, np.int64)
    return None


def is_standard(node: Node) -> bool:
    """Whether a node's operator is one of ONNX's own."""
    return node.domain in (None, "", "ai.onnx")


def label(node: Node) -> str:
    """How messages name a node: its name and op type."""
    name = node.name or (node.outputs[0].name if node.outputs else "")
    return f"{node.op} '{name}'"
