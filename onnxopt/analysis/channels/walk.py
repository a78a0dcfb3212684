"""The walk over a graph that applies a rule to each node, in order of execution.

An operator without a rule, or whose rule raises `Refuse`, is a barrier: the channels that reach it are fixed, and the
message says by which node and why. Shape arithmetic is computed on the way: what a node reads of the number of
channels keeps the value that it has now, unless its rule rewrites it.
"""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
from onnx_graphsurgeon import Graph as SurgeonGraph

from onnxopt.analysis.channels import sizes
from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.facts import DEFAULT, Policy, Refuse
from onnxopt.analysis.channels.sizes import Size, Sizes
from onnxopt.analysis.channels.trace import Rule, Trace
from onnxopt.analysis.channels.weights import is_weight, stored
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Array, Graph, Node, Tensor, is_standard, label
from onnxopt.graph_proto import walk


def rule_name(node: Node) -> str:
    """Key of a node in a table of rules: its op type, with the domain before it where that is not ONNX's own."""
    return node.op if is_standard(node) else f"{node.domain}.{node.op}"


def trace(graph: Graph, shapes: Shapes, rules: Mapping[str, Rule], policy: Policy = DEFAULT) -> Trace:
    """Relate all axes of a graph. Its nodes are put in order of execution first.

    A Reshape that takes channels apart may leave either factor free. Where what it left turns out to be fixed further
    down, it is asked for another in a second walk.
    """
    graph.sort()
    found = _visit_all(graph, shapes, rules, policy, ())
    stuck = found.stuck()
    if stuck:
        second = _visit_all(graph, shapes, rules, policy, stuck)
        better = stuck - second.stuck()
        if better == stuck:
            return second
        if better:
            return _visit_all(graph, shapes, rules, policy, better)
    return found


def _visit_all(
    graph: Graph, shapes: Shapes, rules: Mapping[str, Rule], policy: Policy, others: Collection[int]
) -> "_Walk":
    found = _Walk(graph, shapes, policy, others)
    for position, node in enumerate(graph.nodes):
        if node.op in {"Constant", "Identity"} and graph.constant(node.outputs[0]) is not None:
            continue
        found.visit(position, node, rules.get(rule_name(node)))
    found.hold_results()
    found.tie_shared()
    return found


class _Walk(Trace):
    """A trace in the making."""

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
            free = {axis: [self.atoms.are_free(p[axis]) for p in places.values() if axis in p] for axis in first}
            if others and all(len(f) == len(places) and len(set(f)) == 1 for f in free.values()):
                for axis in (a for a, f in free.items() if f[0]):
                    for other in others:
                        self.atoms.tie(first[axis], other[axis])

    def stuck(self) -> set[int]:
        """Nodes that had a choice and whose choice left nothing free."""
        return {position for position, atoms in self.chosen.items() if self.atoms.are_fixed(atoms)}


def _store(graph: Graph, node: Node, kept: Kept, *, index: int, values: Array) -> None:  # noqa: ARG001
    node.inputs[index] = graph.add_constant(node.inputs[index].name, values)
