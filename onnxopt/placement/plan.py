"""`plan(graph, target)`: which tensors get a quantizer, which weights are stored in int8, and why not the others.

1. *Anchors*: weighted operators with constant weights, outside the tail, that the target runs in int8. Their inputs
   are quantized, and where the target wants a Q behind them, their outputs too (behind a fused Relu or Clip, whose work
   the saturation of the Q does).
2. *Near* tensors, by a walk forward: those that can come out of an int8 kernel, or out of an element-wise float
   operator behind one. They are at hand in the layout that int8 kernels want.
3. *Demand*, by a walk backward: an operator that can run in int8 and whose output is quantized anyway asks for its
   inputs, if one of them is near or quantized already. Otherwise the Q stays behind it: a MaxPool between float
   operators is many times slower in int8.
4. *Groups*: tensors on all sides of an operator that only moves values share scale and zero point. Those around an
   operator that runs faster so (`OpRule.aligned`) belong to one *wider* group, whose scale a group takes where its own
   range is at least half as wide.
5. *Residuals*, where the target fuses an addition into the Conv before it: the Q behind the addition asks for one on
   its other branch. Of two such Convs the one with more weighted operators before it is fused. Where the addition
   itself must stay float and a Q follows it all the same, the Conv cannot fuse and stays float as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxopt.analysis.scope import Scope, matches, own_name
from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Graph, Node, Tensor, is_standard, label
from onnxopt.placement.size import why_too_small
from onnxopt.placement.tail import FEATURE_OPS, Tail, find_tail, is_expectation
from onnxopt.targets import OpRule, Target


@dataclass(frozen=True)
class QuantizedTensor:
    """An activation that gets Q and DQ.

    Attributes:
        name: The tensor.
        group: Name of the first tensor of those that share its scale and zero point.
        wider: Name of the first tensor of the wider group.
        channels: Size of axis 1, where its Q must be told apart from one that may move (`Target.unmoved`); else None.
        native: Whether the runtime writes it in 8 bits. If not, float consumers read the float value.
    """

    name: str
    group: str
    wider: str
    native: bool
    channels: int | None = None


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight stored in int8.

    Attributes:
        node: First output's name of the node that uses it.
        index: Which input of that node.
        axis: Axis of output channels, or None for one scale for all.
    """

    node: str
    index: int
    axis: int | None


@dataclass
class Placement:
    """The plan.

    Attributes:
        tensors: Activations to quantize, by name, in order of execution.
        weights: Weights to quantize.
        consumers: Identities of the nodes that read quantized values.
        final: Identities of the weighted nodes with no other behind them.
        notes: What stays float: (node label, reason).
    """

    tensors: dict[str, QuantizedTensor] = field(default_factory=dict)
    weights: list[QuantizedWeight] = field(default_factory=list)
    consumers: set[int] = field(default_factory=set)
    final: frozenset[int] = frozenset()
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Names of the tensors that share a scale, by their group, in order of execution."""
        found: dict[str, list[str]] = {}
        for tensor in self.tensors.values():
            found.setdefault(tensor.group, []).append(tensor.name)
        return found


@dataclass(frozen=True)
class FloatNodes:
    """Artefact: nodes that were found to lose too much in int8, by the names of their first outputs."""

    names: tuple[str, ...]


def plan(graph: Graph, target: Target, shapes: Shapes, ignore: Sequence[str] = ()) -> Placement:
    """Decide where quantizers go.

    Args:
        graph: The model, in float.
        target: The table to read.
        shapes: Types, to leave non-float tensors alone.
        ignore: Nodes to keep float: patterns (as of a shell) of their names, or names of their first outputs.
    """
    unfused: dict[str, str] = {}
    while True:
        planner = _Planner(graph, target, shapes, ignore, unfused)
        placement = planner.run()
        found = planner.unfused_residuals()
        if not found:
            return placement
        unfused |= found


def check_ignored(asker: str, graph: Graph, ignore: Sequence[str]) -> None:
    """Refuse what the user wants kept float and no node answers to.

    Args:
        asker: The pass.
        graph: The model.
        ignore: As for `plan`.

    Raises:
        UsageError: Something matches nothing.
    """
    written = {node.outputs[0].name for node in graph.nodes}
    patterns = tuple(pattern for pattern in ignore if pattern not in written)
    Scope(ignore=patterns).check(asker, {own_name(node) for node in graph.nodes}, "node")


class _Planner:
    def __init__(
        self, graph: Graph, target: Target, shapes: Shapes, ignore: Sequence[str], unfused: Mapping[str, str]
    ) -> None:
        self.graph, self.target, self.shapes, self.ignore, self.unfused = graph, target, shapes, ignore, unfused
        self.tail: Tail = find_tail(graph)
        self.placement = Placement()
        self.anchors: set[int] = set()
        self.wanted: dict[str, Tensor] = {}
        self.near: set[str] = set()
        self.carriers: set[int] = set()
        self.groups = _Sets()
        self.wider = _Sets()
        self.depth: dict[int, int] = {}

    def run(self) -> Placement:
        self.graph.sort()
        for node in self.graph.nodes:
            self._consider_anchor(node)
        self._find_near()
        for node in reversed(self.graph.nodes):
            if id(node) not in self.anchors:
                self._demand(node)
        self._collect()
        return self.placement

    def _ignored(self, node: Node) -> bool:
        return node.outputs[0].name in self.ignore or matches([own_name(node)], self.ignore)

    def rule(self, node: Node) -> OpRule | None:
        return self.target.rules.get(node.op) if is_standard(node) else None

    def _consider_anchor(self, node: Node) -> None:
        rule = self.rule(node)
        if node.op not in FEATURE_OPS or not is_standard(node):
            return
        reason = self._why_float(node, rule)
        if reason:
            self.placement.notes.append((label(node), reason))
            return
        self.anchors.add(id(node))
        self.want(node.inputs[0])
        axis = _weight_axis(node, self.graph) if rule is None or rule.per_channel else None
        self.placement.weights.append(QuantizedWeight(node.outputs[0].name, 1, axis))
        if rule is not None and rule.output:
            self.want(self.fused_output(node))

    def _reads_joined_rows(self, node: Node) -> bool:
        """Whether a product reads a Concat along other than its last axis, perhaps through what only moves values."""
        if node.op not in {"MatMul", "Gemm"}:
            return False
        source = self.graph.producer(node.inputs[0])
        while source is not None and source.op != "Concat":
            rule = self.rule(source)
            if rule is None or rule.role != "passthrough":
                return False
            source = self.graph.producer(source.inputs[0])
        if source is None:
            return False
        axis, rank = int(source.attrs.get("axis", 0)), self.shapes.rank(source.outputs[0])
        return axis not in {-1, rank - 1 if rank is not None else -1}

    def _why_float(self, node: Node, rule: OpRule | None) -> str:
        """Reason for which a weighted node stays float; empty where it is an anchor."""
        weight = self.graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        checks = (
            (self._ignored(node), "asked to stay float"),
            (is_expectation(self.graph, node), "expectation over bins: part of the decode tail"),
            (weight is None, "its weights are computed at run time"),
            (
                self.target.no_joined_rows and self._reads_joined_rows(node),
                "what it reads is joined along another axis than it sums over, behind which the runtime cannot load it",
            ),
            (node.outputs[0].name in self.unfused, self.unfused.get(node.outputs[0].name, "")),
            (rule is None or rule.role != "anchor", rule.reason if rule is not None else self.target.default_reason),
            (weight is not None and weight.dtype != "float32", "its weights are not float32"),
            (self._is_stem(node, weight), "stem: few input channels run faster in float"),
        )
        reason = next((text for failed, text in checks if failed), "")
        if reason or rule is None:
            return reason
        if node.op == "Conv" and id(node) in self.tail.final and not self.target.quantize_final:
            return "final layer: its error would go straight into the answer"
        assert weight is not None
        small = why_too_small(self.graph, node, weight.shape, self.target.sizes, self.shapes.shape(node.outputs[0]))
        if small:
            return small
        if not rule.output:
            return _why_gemm_float(node)
        output = self.fused_output(node)
        if self.graph.is_output(output) or self.graph.is_output(node.outputs[0]):
            return "its output is a graph output, so no Q can follow it alone"
        return ""

    def _is_stem(self, node: Node, weight: object) -> bool:
        if node.op != "Conv" or not self.target.max_stem_channels or weight is None:
            return False
        channels = self.graph.constant(node.inputs[1]).shape[1] * node.attrs.get("group", 1)  # type: ignore[union-attr]
        return bool(channels <= self.target.max_stem_channels)

    def fused_output(self, node: Node) -> Tensor:
        """The tensor behind which the Q goes: the node's output, or that of the activation fused into it."""
        output = node.outputs[0]
        consumers = self.graph.consumers(output)
        if len(consumers) != 1 or self.graph.is_output(output):
            return output
        fuses = consumers[0].op in self.target.fused_activations and self._bounds_constant(consumers[0])
        return consumers[0].outputs[0] if fuses else output

    def _bounds_constant(self, node: Node) -> bool:
        return all(t.name == "" or self.graph.constant(t) is not None for t in node.inputs[1:])

    def want(self, tensor: Tensor) -> None:
        self.wanted[tensor.name] = tensor

    def _find_near(self) -> None:
        """Collect the tensors that int8 kernels compute, or element-wise float operators right behind them."""
        for node in self.graph.nodes:
            if id(node) in self.anchors:
                self.near.add(node.outputs[0].name)
                continue
            rule = self.rule(node)
            if rule is not None and rule.role in {"follower", "passthrough"} and self._can_follow(node, rule):
                inputs = [t.name in self.near for t in self._activations(node, rule)]
                near = any(inputs) if rule.role == "follower" else all(inputs)
            else:
                near = node.op in self.target.elementwise and any(t.name in self.near for t in node.inputs)
            if near:
                self.near |= {t.name for t in node.outputs}

    def _activations(self, node: Node, rule: OpRule) -> list[Tensor]:
        return list(node.inputs) if rule.inputs is None else [node.inputs[i] for i in rule.inputs]

    def _can_follow(self, node: Node, rule: OpRule) -> bool:
        if id(node) in self.tail.nodes or self._ignored(node):
            return False
        if node.op == "Resize" and node.attrs.get("mode", "nearest") != "nearest":
            return False
        tensors = [*self._activations(node, rule), *node.outputs]
        if any(self.graph.constant(t) is not None for t in self._activations(node, rule)):
            return False
        return all(self.shapes.dtype(t) in (None, np.float32) for t in tensors)

    def _demand(self, node: Node) -> None:
        rule = self.rule(node)
        if rule is None or rule.role in {None, "anchor"} or not self._can_follow(node, rule):
            return
        if rule.role == "residual":
            self._demand_identity(node)
            return
        written = [self.fused_output(node)] if rule.role == "follower" else node.outputs
        if not all(t.name in self.wanted for t in written) or any(self.graph.is_output(t) for t in node.outputs):
            return
        inputs = self._activations(node, rule)
        ready = [t.name in self.near or t.name in self.wanted for t in inputs]
        if not (all(ready) if rule.role == "passthrough" else any(ready)):
            return
        self.carriers.add(id(node))
        for tensor in inputs:
            self.want(tensor)
        if rule.aligned or rule.role == "passthrough":
            self.wider.join([*inputs, *written])
        if rule.role == "passthrough":
            self.groups.join([*inputs, *node.outputs])
            if not rule.output:  # the Q moved before it
                for tensor in node.outputs:
                    del self.wanted[tensor.name]

    def _demand_identity(self, node: Node) -> None:
        """Ask for the branch of an addition that is not fused into a weighted operator."""
        if self.fused_output(node).name not in self.wanted:
            return
        producers = [self.graph.producer(t) for t in node.inputs]
        fusible = [i for i, p in enumerate(producers) if p is not None and self._fuses_into(p, node)]
        if not fusible or len(producers) != 2 or producers[0] is producers[1]:
            return
        fused = max(fusible, key=lambda i: self._depth(producers[i]))
        self.carriers.add(id(node))
        self.want(node.inputs[1 - fused])

    def unfused_residuals(self) -> dict[str, str]:
        """First outputs of the int8 nodes that would fuse with an addition which stays float before a Q; and why not.

        They would write floats and be quantized again: slower than float layers, which fuse with the addition.
        """
        found = {}
        for node in self.graph.nodes:
            rule = self.rule(node)
            residual = rule is not None and rule.role == "residual" and self.fused_output(node).name in self.wanted
            if not residual or any(self._is_settled(node, t) for t in node.inputs):
                continue
            for producer in self.graph.dependencies(node):
                if self._fuses_into(producer, node):
                    found[producer.outputs[0].name] = f"{label(node)} behind it stays float, so both cannot fuse"
        return found

    def _is_settled(self, node: Node, tensor: Tensor) -> bool:
        """Whether a node reads a tensor through a pair, or a constant."""
        quantized = self.placement.tensors.get(tensor.name)
        through_pair = quantized is not None and (quantized.native or id(node) in self.placement.consumers)
        return through_pair or self.graph.constant(tensor) is not None

    def _fuses_into(self, producer: Node, node: Node) -> bool:
        output = producer.outputs[0]
        alone = all(c is node for c in output.outputs) and not self.graph.is_output(output)
        return id(producer) in self.anchors and alone and output.name not in self.wanted

    def _depth(self, node: Node | None) -> int:
        """Most weighted operators on a path that ends with a node."""
        if not self.depth:
            for each in self.graph.nodes:
                before = max((self.depth.get(id(p), 0) for p in self.graph.dependencies(each)), default=0)
                self.depth[id(each)] = before + (id(each) in self.anchors)
        return self.depth.get(id(node), 0)

    def _collect(self) -> None:
        int8 = self.anchors | self.carriers
        for node in self.graph.nodes:
            for tensor in node.outputs:
                if tensor.name in self.wanted:
                    self._add(tensor, native=self._computed_in_int8(node, int8))
        for tensor in self.graph.inputs:
            if tensor.name in self.wanted:
                self._add(tensor, native=False)
        self.placement.consumers = int8
        self.placement.final = self.tail.final

    def _computed_in_int8(self, node: Node, int8: set[int]) -> bool:
        rule = self.rule(node)
        if self.target.reads_pairs:
            return True
        if id(node) in int8:
            return rule is None or rule.output
        producer = self.graph.producer(node.inputs[0]) if node.inputs else None
        fused = node.op in self.target.fused_activations and producer is not None and id(producer) in int8
        return fused and self.fused_output(producer) is node.outputs[0]  # type: ignore[arg-type]

    def _add(self, tensor: Tensor, *, native: bool) -> None:
        name = tensor.name
        groups = self.groups.root(name), self.wider.root(name)
        self.placement.tensors[name] = QuantizedTensor(name, *groups, native, self._channels(tensor, native=native))

    def _channels(self, tensor: Tensor, *, native: bool) -> int | None:
        producer = self.graph.producer(tensor)
        shape = self.shapes.shape(tensor)
        if native or producer is None or producer.op not in self.target.unmoved or shape is None or len(shape) < 2:
            return None
        return shape[1] if isinstance(shape[1], int) else None


class _Sets:
    """Disjoint sets of tensors by name; the first of the tensors joined first stands for its set."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def join(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors[1:]:
            self.parent[self.root(tensor.name)] = self.root(tensors[0].name)

    def root(self, name: str) -> str:
        while self.parent.get(name, name) != name:
            name = self.parent[name]
        return name


def _weight_axis(node: Node, graph: Graph) -> int | None:
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.attrs.get("group", 1) == 1 else None
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB") else 1
    weight = graph.constant(node.inputs[1])
    return weight.ndim - 1 if weight is not None and weight.ndim >= 2 else None


def _why_gemm_float(node: Node) -> str:
    attrs = node.attrs
    if node.op == "Gemm" and (attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA")):
        return "Gemm with alpha, beta or transA has no int8 kernel"
    return ""
