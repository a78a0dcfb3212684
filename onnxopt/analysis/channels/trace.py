"""One walk over the graph that relates the axes of its tensors.

Each operator's rule says, with the methods of `Trace`, how the channels of its outputs follow from those of its
inputs and which weights, attributes and shape constants speak of them. An operator without a rule, or whose rule
raises `Refuse`, is a barrier: the channels that reach it are fixed, and the message says by which node and why.

An axis that is not tracked never changes. So everything a rule does not mention is safe by default.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from onnx_graphsurgeon import Graph as SurgeonGraph

from onnxopt.analysis.channels.atoms import Atoms, IntArray, Kept
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, is_standard, label
from onnxopt.graph_proto import walk

Role = Literal["out", "in", "through", "constant"]


class Refuse(Exception):  # noqa: N818  (not an error: a rule that will not guess)
    """A rule cannot say what happens to the channels here; the text says why."""


@dataclass(frozen=True, eq=False)
class Site:
    """A constant that holds values per channel, and is cut with them.

    Attributes:
        node: Position of the node in `graph.nodes`.
        role: `out`: weights and biases that make the channels. `in`: weights that sum over them. `through`:
            weights applied channel by channel (depthwise, BatchNormalization). `constant`: any other.
        input: Which input of the node is the constant.
        axis: Axis of the constant.
        atoms: One per index of the axis.
    """

    node: int
    role: Role
    input: int
    axis: int
    atoms: IntArray


@dataclass(frozen=True, eq=False)
class Sum:
    """A place where a node sums over channels of an activation: where a mask stands for their removal.

    Attributes:
        node: Position of the node.
        input: Which input is the activation.
        axis: Its axis that is summed over.
        rank: Its number of axes.
        atoms: One per index of the axis.
    """

    node: int
    input: int
    axis: int
    rank: int
    atoms: IntArray


@dataclass(frozen=True, eq=False)
class Edit:
    """A change to attributes or shape constants that is due when any of `atoms` goes."""

    node: int
    atoms: IntArray
    apply: Callable[[Graph, Node, Kept], None]


class Trace:
    """What is known while the graph is walked, and the words that rules speak in.

    Attributes:
        graph: The graph.
        atoms: All channels.
        layouts: Tensor name to axis to atoms, for the axes that are tracked.
        sites: Constants to cut.
        sums: Places to mask.
        edits: Attributes and shape constants to rewrite.
        barriers: Position of a node to why it is a barrier, for nodes that channels reached.
    """

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.graph = graph
        self.atoms = Atoms()
        self.layouts: dict[str, dict[int, IntArray]] = {}
        self.sites: list[Site] = []
        self.sums: list[Sum] = []
        self.edits: list[Edit] = []
        self.barriers: dict[int, str] = {}
        self._shapes = shapes
        self._position = 0

    def shape(self, tensor: Tensor) -> Shape | None:
        """Shape as inferred, with the lengths of tracked axes filled in; None where not even the rank is known."""
        shape = self._shapes.shape(tensor)
        value = self.graph.constant(tensor) if shape is None else None
        if value is not None:
            return tuple(value.shape)
        if shape is None:
            return None
        known = self.tracked(tensor)
        return tuple(len(known[i]) if i in known else d for i, d in enumerate(shape))

    def rank(self, tensor: Tensor) -> int:
        """Number of axes.

        Raises:
            Refuse: It is not known.
        """
        shape = self.shape(tensor)
        if shape is None:
            raise Refuse(f"the number of axes of '{tensor.name}' is unknown")
        return len(shape)

    def size(self, tensor: Tensor, axis: int) -> int | None:
        """Length of an axis, where known."""
        known = self.tracked(tensor).get(axis)
        if known is not None:
            return len(known)
        shape = self.shape(tensor)
        length = shape[axis] if shape is not None and axis < len(shape) else None
        return length if isinstance(length, int) and length >= 0 else None

    def tracked(self, tensor: Tensor) -> Mapping[int, IntArray]:
        """The tracked axes of a tensor."""
        return self.layouts.get(tensor.name, {})

    def axis(self, tensor: Tensor, axis: int, size: int | None = None) -> IntArray:
        """Atoms of an axis; of an axis that is not tracked, new ones that are fixed.

        Raises:
            Refuse: The length is not known, or is not `size`.
        """
        found = self.size(tensor, axis)
        if found is None:
            found = size
        if found is None or (size is not None and found != size):
            raise Refuse(f"the size of axis {axis} of '{tensor.name}' is {'unknown' if found is None else found}")
        known = self.tracked(tensor).get(axis)
        if known is not None:
            return known
        made = self.atoms.fresh(found)
        self.atoms.fix(made, self._origin(tensor))
        if self.graph.constant(tensor) is None:
            self.put(tensor, axis, made)
        return made

    def put(self, tensor: Tensor, axis: int, atoms: IntArray) -> None:
        """Say which atoms an axis of a tensor has."""
        self.layouts.setdefault(tensor.name, {})[axis] = atoms

    def put_all(self, tensor: Tensor, axes: Mapping[int, IntArray]) -> None:
        """Say which atoms several axes of a tensor have."""
        for axis, atoms in axes.items():
            self.put(tensor, axis, atoms)

    def hold(self, node: Node, atoms: IntArray, why: str) -> None:
        """Fix atoms because of a node."""
        self.atoms.fix(atoms, f"{label(node)} {why}")

    def hold_others(self, node: Node, tensor: Tensor, *axes: int) -> None:
        """Fix all tracked axes of a tensor but `axes`."""
        for axis, atoms in self.tracked(tensor).items():
            if axis not in axes:
                self.hold(node, atoms, f"reads axis {axis} as a position, not as channels")

    def weight(self, node: Node, index: int) -> Array:
        """Value of a constant input.

        Raises:
            Refuse: It is no constant.
        """
        value = self.graph.constant(node.inputs[index]) if index < len(node.inputs) else None
        if value is None:
            raise Refuse(f"has an input {index} that is no constant")
        return value

    def ints(self, node: Node, index: int, attribute: str | None = None) -> list[int] | None:
        """Integers from a constant input or, in old operator sets, an attribute; None where neither is given.

        Raises:
            Refuse: The input is computed by the graph.
        """
        if index < len(node.inputs) and node.inputs[index].name:
            return [int(v) for v in self.weight(node, index).ravel()]
        value = node.attrs.get(attribute) if attribute else None
        return None if value is None else [int(v) for v in value]

    def site(self, role: Role, index: int, axis: int, atoms: IntArray) -> None:
        """The constant at input `index` of the current node holds values per channel."""
        self.sites.append(Site(self._position, role, index, axis, atoms))

    def sum(self, index: int, axis: int, rank: int, atoms: IntArray) -> None:
        """The current node sums over an axis of its input `index`."""
        self.sums.append(Sum(self._position, index, axis, rank, atoms))

    def edit(self, atoms: IntArray, apply: Callable[[Graph, Node, Kept], None]) -> None:
        """The current node needs a change when any of `atoms` goes."""
        self.edits.append(Edit(self._position, atoms, apply))

    def visit(self, position: int, node: Node, rule: "Rule | None") -> None:
        """Apply a rule; where it refuses, forget what it said and make the node a barrier."""
        self._position = position
        marks = (len(self.sites), len(self.sums), len(self.edits))
        try:
            if any(isinstance(v, SurgeonGraph) for v in node.attrs.values()):
                raise Refuse("runs nested graphs")
            if rule is None:
                raise Refuse("is an operator without a channel rule")
            rule(node, self)
        except Refuse as refusal:
            for facts, mark in zip((self.sites, self.sums, self.edits), marks, strict=True):
                del facts[mark:]  # type: ignore[attr-defined]
            self._block(position, node, str(refusal))

    def _block(self, position: int, node: Node, why: str) -> None:
        for tensor in node.outputs:
            self.layouts.pop(tensor.name, None)
        self.barriers[position] = f"{label(node)} {why}"
        inner = [n for v in node.attrs.values() if isinstance(v, SurgeonGraph) for n in walk(v)]
        ends = [t for v in node.attrs.values() if isinstance(v, SurgeonGraph) for t in v.outputs]
        for tensor in [*node.inputs, *ends, *(t for n in inner for t in n.inputs)]:
            for atoms in self.tracked(tensor).values():
                self.hold(node, atoms, why)

    def _origin(self, tensor: Tensor) -> str:
        if isinstance(tensor, Constant) or self.graph.constant(tensor) is not None:
            return f"constant '{tensor.name}'"
        producer = self.graph.producer(tensor)
        if producer is None:
            return f"graph input '{tensor.name}'"
        index = next((i for i in self.barriers if self.graph.nodes[i] is producer), None)
        return f"{label(producer)} makes them" if index is None else self.barriers[index]


Rule = Callable[[Node, Trace], None]


def rule_name(node: Node) -> str:
    """Key of a node in a table of rules: its op type, with the domain before it where that is not ONNX's own."""
    return node.op if is_standard(node) else f"{node.domain}.{node.op}"


def trace(graph: Graph, shapes: Shapes, rules: Mapping[str, Rule]) -> Trace:
    """Relate all axes of a graph. Its nodes are put in order of execution first."""
    graph.sort()
    found = Trace(graph, shapes)
    for position, node in enumerate(graph.nodes):
        if node.op in {"Constant", "Identity"} and graph.constant(node.outputs[0]) is not None:
            continue
        found.visit(position, node, rules.get(rule_name(node)))
    for tensor in graph.outputs:
        for atoms in found.tracked(tensor).values():
            found.atoms.fix(atoms, f"graph output '{tensor.name}'")
    return found
