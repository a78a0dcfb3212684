"""One walk over the graph that relates the axes of its tensors.

Each operator's rule says, with the methods of `Trace`, how the channels of its outputs follow from those of its
inputs and which weights, attributes and shape constants speak of them. An operator without a rule, or whose rule
raises `Refuse`, is a barrier: the channels that reach it are fixed, and the message says by which node and why.

An axis that is not tracked never changes. So everything a rule does not mention is safe by default.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import prod

import numpy as np
from onnx_graphsurgeon import Graph as SurgeonGraph

from onnxopt.analysis.channels import sizes
from onnxopt.analysis.channels.atoms import Atoms, IntArray, Kept
from onnxopt.analysis.channels.facts import DEFAULT, Edit, Policy, Refuse, Role, Site, Statistic, Sum
from onnxopt.analysis.channels.inference import LateShapes
from onnxopt.analysis.channels.sizes import Size, Sizes
from onnxopt.analysis.channels.weights import is_weight, stored, weight_value
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, is_standard, label
from onnxopt.graph_proto import walk

__all__ = ["Edit", "Policy", "Refuse", "Role", "Rule", "Site", "Statistic", "Sum", "Trace", "rule_name", "trace"]


class Trace:
    """What is known while the graph is walked, and the words that rules speak in.

    Attributes:
        graph: The graph.
        atoms: All channels.
        layouts: Tensor name to axis to atoms, for the axes that are tracked.
        sites: Constants to cut.
        sums: Places to mask.
        statistics: Places where statistics are taken over the channels that stay.
        edits: Attributes and shape constants to rewrite.
        barriers: Position of a node to why it is a barrier, for nodes that channels reached.
        policy: Which relations to take where several would be right.
        chosen: Position of a node that could be related in several ways to the channels that it leaves free.
    """

    def __init__(self, graph: Graph, shapes: Shapes, policy: Policy = DEFAULT, others: Collection[int] = ()) -> None:
        self.graph = graph
        self.policy = policy
        self.chosen: dict[int, IntArray] = {}
        self.atoms = Atoms()
        self.layouts: dict[str, dict[int, IntArray]] = {}
        self.sites: list[Site] = []
        self.sums: list[Sum] = []
        self.statistics: list[Statistic] = []
        self.edits: list[Edit] = []
        self.barriers: dict[int, str] = {}
        self._shapes = LateShapes(graph, shapes)
        self._sizes: dict[str, Sizes | None] = {}
        self._others = others
        self._read: set[int] = set()
        self._position = 0

    def shape(self, tensor: Tensor) -> Shape | None:
        """Shape as inferred, with the lengths of tracked axes filled in; None where not even the rank is known."""
        known_sizes = self._sizes.get(tensor.name)
        shape = self._shapes.shape(tensor) if known_sizes is None else known_sizes.shape
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
        if self.constant(tensor) is None:
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

    def constant(self, tensor: Tensor) -> Array | None:
        """Value of a constant that is not tracked, also behind Cast, Transpose and DequantizeLinear."""
        return None if self.tracked(tensor) else weight_value(self.graph, tensor)

    def weight(self, node: Node, index: int) -> Array:
        """Value of a constant input.

        Raises:
            Refuse: It is no constant.
        """
        value = self.constant(node.inputs[index]) if index < len(node.inputs) else None
        if value is None:
            raise Refuse(f"has an input {index} that is no constant")
        return value

    def sizes(self, tensor: Tensor) -> Sizes | None:
        """What is known of a small array of integers: a constant, or made by shape arithmetic."""
        if tensor.name not in self._sizes:
            large = isinstance(tensor, Constant) and prod(int(d or 0) for d in tensor.shape or ()) > sizes.MOST
            value = None if large else self.graph.constant(tensor)
            self._sizes[tensor.name] = None if value is None else sizes.lift(value)
        return self._sizes[tensor.name]

    def target(self, node: Node, index: int) -> Sizes | None:
        """Sizes that an input gives, of which some may be unknown: the rule itself sees to them in a cut."""
        self._read.add(index)
        return self.sizes(node.inputs[index])

    def ints(self, node: Node, index: int, attribute: str | None = None) -> list[int] | None:
        """Integers from an input or, in old operator sets, an attribute; None where neither is given.

        Raises:
            Refuse: The input is not known before the model runs.
        """
        if index < len(node.inputs) and node.inputs[index].name:
            known = self.sizes(node.inputs[index])
            found = None if known is None else sizes.numbers(known)
            return [int(v) for v in self.weight(node, index).ravel()] if found is None else found
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

    def statistic(self, axis: int, axes: tuple[int, ...], rank: int, atoms: IntArray) -> None:
        """The current node takes statistics over `axes` of its first input, among them the channels' axis."""
        self.statistics.append(Statistic(self._position, axis, axes, rank, atoms))

    def prefer(self, count: int) -> int:
        """Which of `count` ways to relate channels, the one that leaves most freedom first, the current node takes."""
        second = self.policy.whole_blocks != (self._position in self._others)
        return min(int(second), count - 1)

    def choose(self, atoms: IntArray) -> None:
        """The current node had a choice, and leaves these channels free."""
        self.chosen[self._position] = atoms

    def visit(self, position: int, node: Node, rule: "Rule | None") -> None:
        """Apply a rule; where it refuses, forget what it said and make the node a barrier."""
        self._position = position
        if self._is_arithmetic(node):
            return
        self._read = set()
        self._keep_values(node)
        facts = (self.sites, self.sums, self.statistics, self.edits)
        marks = [len(f) for f in facts]
        try:
            if any(isinstance(v, SurgeonGraph) for v in node.attrs.values()):
                raise Refuse("runs nested graphs")
            if rule is None:
                raise Refuse("is an operator without a channel rule")
            rule(node, self)
        except Refuse as refusal:
            self._read = set()
            self.chosen.pop(position, None)
            for found, mark in zip(facts, marks, strict=True):
                del found[mark:]  # type: ignore[attr-defined]
            self._block(position, node, str(refusal))
        self._hold_counts(node)
        self._shapes.complete(position, node, self.sizes)

    def _is_arithmetic(self, node: Node) -> bool:
        """Compute sizes from sizes, where the node does that."""
        if not is_standard(node):
            return False
        if node.op == "Shape":
            shape = self.shape(node.inputs[0])
            if shape is None:
                return False
            found = [self._size(node.inputs[0], axis, d) for axis, d in enumerate(shape)]
            outputs: list[Sizes] | None = [
                np.asarray(found, object)[node.attrs.get("start", 0) : node.attrs.get("end")]
            ]
        else:
            known = [self.sizes(t) for t in node.inputs if t.name]
            inputs = [s for s in known if s is not None]
            outputs = sizes.evaluate(node, inputs) if inputs and len(inputs) == len(known) else None
        if outputs is None or len(outputs) != len(node.outputs):
            return False
        self._sizes.update({t.name: s for t, s in zip(node.outputs, outputs, strict=True)})
        return True

    def _size(self, tensor: Tensor, axis: int, dim: int | str | None) -> Size:
        known = self.tracked(tensor).get(axis)
        if known is not None:
            return Size(len(known), atoms=(known,))
        return Size(dim if dim >= 0 else None) if isinstance(dim, int) else Size(symbol=dim)

    def _keep_values(self, node: Node) -> None:
        """What a node reads of the number of channels stays as it is: a scale of 1/sqrt(dim) speaks of the original."""
        for index, tensor in enumerate(node.inputs):
            known = self.sizes(tensor) if tensor.name else None
            values = None if known is None else sizes.numbers(known)
            sources = [] if known is None else sizes.sources(known)
            if known is not None and values is not None and sources:
                array = np.asarray(values, self._shapes.dtype(tensor) or np.int64).reshape(known.shape)
                self.edit(np.concatenate(sources), partial(_store, index=index, values=array))

    def _hold_counts(self, node: Node) -> None:
        """Fix channels whose number is mixed with unknown sizes that the rule did not take care of."""
        inner = [t for v in node.attrs.values() if isinstance(v, SurgeonGraph) for n in walk(v) for t in n.inputs]
        left = [t for i, t in enumerate(node.inputs) if i not in self._read]
        for tensor, nested in [*((t, False) for t in left), *((t, True) for t in inner)]:
            known = self._sizes.get(tensor.name)
            if known is not None and (nested or sizes.numbers(known) is None):
                for atoms in sizes.sources(known):
                    self.hold(node, atoms, "computes with the number of channels")

    def _block(self, position: int, node: Node, why: str) -> None:
        for tensor in node.outputs:
            self.layouts.pop(tensor.name, None)
        self.barriers[position] = f"{label(node)} {why}"
        inner = [n for v in node.attrs.values() if isinstance(v, SurgeonGraph) for n in walk(v)]
        ends = [t for v in node.attrs.values() if isinstance(v, SurgeonGraph) for t in v.outputs]
        for tensor in [*node.inputs, *ends, *(t for n in inner for t in n.inputs)]:
            for atoms in self.tracked(tensor).values():
                self.hold(node, atoms, why)

    def hold_results(self) -> None:
        """Fix the channels that graph outputs have, and those whose number an output tells."""
        for tensor in self.graph.outputs:
            for atoms in self.tracked(tensor).values():
                self.atoms.fix(atoms, f"graph output '{tensor.name}'")
            known = self._sizes.get(tensor.name)
            for atoms in [] if known is None else sizes.sources(known):
                self.atoms.fix(atoms, f"graph output '{tensor.name}' tells how many they are")

    def tie_shared(self) -> None:
        """Tie the channels of places that read one weight, so that it can stay shared.

        Not where an axis is free in one place and fixed in another: there the weight becomes two.
        """
        readers: dict[int, dict[tuple[int, int], dict[int, IntArray]]] = {}
        for site in self.sites:
            tensor = self.graph.nodes[site.node].inputs[site.input]
            if site.role != "constant" and is_weight(self.graph, tensor):
                slot = readers.setdefault(id(stored(self.graph, tensor)), {}).setdefault((site.node, site.input), {})
                slot[site.axis] = site.atoms
        for places in readers.values():
            first, *others = places.values()
            free = {axis: [self._are_free(p[axis]) for p in places.values() if axis in p] for axis in first}
            if others and all(len(f) == len(places) and len(set(f)) == 1 for f in free.values()):
                for axis in (a for a, f in free.items() if f[0]):
                    for other in others:
                        self.atoms.tie(first[axis], other[axis])

    def _are_free(self, atoms: IntArray) -> bool:
        return all(self.atoms.reason(root) is None for root in np.unique(self.atoms.roots(atoms)).tolist())

    def stuck(self) -> set[int]:
        """Nodes that had a choice and whose choice left nothing free."""
        fixed = {p: self.atoms.roots(a) for p, a in self.chosen.items()}
        return {p for p, roots in fixed.items() if all(self.atoms.reason(r) for r in np.unique(roots).tolist())}

    def _origin(self, tensor: Tensor) -> str:
        if self.constant(tensor) is not None:
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


def trace(graph: Graph, shapes: Shapes, rules: Mapping[str, Rule], policy: Policy = DEFAULT) -> Trace:
    """Relate all axes of a graph. Its nodes are put in order of execution first.

    A Reshape that takes channels apart may leave either factor free. Where what it left turns out to be fixed further
    down, it is asked for another in a second walk.
    """
    graph.sort()
    found = _walk(graph, shapes, rules, policy, ())
    stuck = found.stuck()
    if stuck:
        second = _walk(graph, shapes, rules, policy, stuck)
        better = stuck - second.stuck()
        if better == stuck:
            return second
        if better:
            return _walk(graph, shapes, rules, policy, better)
    return found


def _walk(graph: Graph, shapes: Shapes, rules: Mapping[str, Rule], policy: Policy, others: Collection[int]) -> Trace:
    found = Trace(graph, shapes, policy, others)
    for position, node in enumerate(graph.nodes):
        if node.op in {"Constant", "Identity"} and graph.constant(node.outputs[0]) is not None:
            continue
        found.visit(position, node, rules.get(rule_name(node)))
    found.hold_results()
    found.tie_shared()
    return found


def _store(graph: Graph, node: Node, kept: Kept, *, index: int, values: Array) -> None:  # noqa: ARG001
    node.inputs[index] = graph.add_constant(node.inputs[index].name, values)


def own_integers(graph: Graph, node: Node, index: int, values: Collection[int]) -> Constant:
    """An input of integers as a constant that only this node reads; `values` where the graph computes it."""
    if graph.constant(node.inputs[index]) is None:
        node.inputs[index] = graph.add_constant(node.inputs[index].name, np.asarray([*values], np.int64))
    return graph.own_constant(node, index)
