"""Residual blocks: y = Add(x, f(x)), where x and y have one shape and x is what f begins with.

Without its block the graph goes on with y = x; the nodes that nothing else reads go with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from onnxopt.analysis.shapes import RunShapes
from onnxopt.graph import Graph, Node, Tensor, is_standard

FIRST_AXIS_OPS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Block:
    """A block that can go.

    Attributes:
        name: Of its Add.
        output: Name of the tensor y.
        skip: Name of the tensor x.
        nodes: Names of the nodes that go with it, the Add not among them.
        macs: Of those nodes.
        shape: Of x and y.
        axis: Of the channels in x and y.
    """

    name: str
    output: str
    skip: str
    nodes: tuple[str, ...]
    macs: int
    shape: tuple[int, ...]
    axis: int

    @property
    def channels(self) -> int:
        """How many channels x and y have."""
        return self.shape[self.axis]

    def add(self, graph: Graph) -> Node:
        """Its Add in a copy of the graph."""
        return next(n for n in graph.nodes if n.outputs and n.outputs[0].name == self.output)


def find_blocks(graph: Graph, shapes: RunShapes, macs: Mapping[str, int]) -> list[Block]:
    """Blocks whose removal saves multiply-accumulates, in order of execution.

    Args:
        graph: The model.
        shapes: At the sizes that it is run at.
        macs: First output's name of a node to its multiply-accumulates.
    """
    graph.sort()
    found = []
    for node in graph.nodes:
        if node.op != "Add" or not is_standard(node) or len(node.inputs) != 2:
            continue
        for skip, branch in (node.inputs, node.inputs[::-1]):
            block = _block(graph, node, (skip, branch), shapes, macs)
            if block is not None:
                found.append(block)
    return found


def _block(
    graph: Graph, add: Node, inputs: tuple[Tensor, Tensor], shapes: RunShapes, macs: Mapping[str, int]
) -> Block | None:
    skip, branch = inputs
    shape = shapes.static(skip)
    same = shape is not None and shape == shapes.static(branch) == shapes.static(add.outputs[0])
    if not same or shape is None or len(shape) < 2 or not _leads_to(graph, skip, branch):
        return None
    gone = _only_for(graph, add, skip, branch)
    saved = sum(macs.get(n.outputs[0].name, 0) for n in gone)
    if not saved:
        return None
    by_convolution = any(n.op in FIRST_AXIS_OPS for n in gone)
    axis = 1 if by_convolution else len(shape) - 1
    return Block(name_of(add), add.outputs[0].name, skip.name, tuple(map(name_of, gone)), saved, shape, axis)


def name_of(node: Node) -> str:
    """A node's name; that of its output where it has none."""
    return str(node.name or node.outputs[0].name)


def _leads_to(graph: Graph, source: Tensor, target: Tensor) -> bool:
    """Whether a tensor follows from another."""
    waiting, seen = [target], {id(target)}
    while waiting:
        tensor = waiting.pop()
        if tensor is source:
            return True
        maker = graph.producer(tensor)
        for other in maker.inputs if maker is not None else ():
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return False


def _only_for(graph: Graph, add: Node, skip: Tensor, branch: Tensor) -> list[Node]:
    """Nodes that nothing reads once the Add gives its skip, in order of execution."""
    gone = {id(add)}
    waiting = [branch]
    while waiting:
        tensor = waiting.pop()
        maker = graph.producer(tensor)
        if maker is None or id(maker) in gone or tensor is skip:
            continue
        outputs = maker.outputs
        if all(not graph.is_output(t) and all(id(n) in gone for n in graph.consumers(t)) for t in outputs):
            gone.add(id(maker))
            waiting += maker.inputs
    return [n for n in graph.nodes if id(n) in gone and n is not add]
