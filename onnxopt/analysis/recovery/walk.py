"""Running a model piece by piece, so that a layer can be changed before what follows it is run.

For each of a few samples, only the values are held that later nodes still read. A walk over the whole model costs
one inference per sample, however many layers are changed on the way.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxopt.data import Feeds
from onnxopt.graph import Array, Constant, Graph, Node
from onnxopt.runtime.ort import OrtSession


class Walk:
    """A model on its way from inputs to outputs, for several samples at once.

    Args:
        graph: The model. Values of its constants may change ahead of the walk, its structure may not.
        samples: Inputs per sample.
        keep: Names of tensors to hold until `drop` lets go of them, whether they are read or not.
        optimized: Whether ONNX Runtime may rewrite the pieces; False runs Q and DQ as they are written.
        threads: Threads inside an operator.
    """

    def __init__(
        self, graph: Graph, samples: Sequence[Feeds], keep: Collection[str], *, optimized: bool, threads: int = 1
    ) -> None:
        self._model = graph.to_proto(weights=False)  # sorts the graph
        order, self._starts = _late_constants(graph)
        self._nodes = [graph.nodes[i] for i in order]
        self._protos = [self._model.graph.node[i] for i in order]
        self._live: list[dict[str, Array]] = [dict(s) for s in samples]
        self._constants = {t.name: t for n in graph.walk() for t in n.inputs if isinstance(t, Constant)}
        self._keep = set(keep)
        self._optimized, self._threads = optimized, threads
        self._done = 0
        self._produced = {t.name: i for i, n in enumerate(self._nodes) for t in n.outputs if t.name}
        self._last_read = {name: i for i, n in enumerate(self._nodes) for name in _reads(n)}

    def before(self, node: Node) -> None:
        """Run everything up to a node; not the node, nor what turns its constants into values."""
        self._advance(self._starts[id(node)])

    def past(self, name: str) -> None:
        """Run everything up to the node that makes a tensor, and the node."""
        self._advance(self._produced[name] + 1)

    def values(self, name: str) -> Iterator[Array]:
        """A live tensor's value for each sample."""
        return (live[name] for live in self._live)

    def drop(self, name: str) -> None:
        """Let go of a tensor that was to be kept."""
        self._keep.discard(name)
        self._forget()

    def _advance(self, stop: int) -> None:
        if stop <= self._done:
            return
        names = [n for n, i in self._produced.items() if self._done <= i < stop and self._is_needed(n, stop)]
        if names:
            session = OrtSession(self._piece(stop, names), threads=self._threads, optimized=self._optimized)
            for live in self._live:
                live.update(session.run({n: live[n] for n in session.input_names}))
        self._done = stop
        self._forget()

    def _is_needed(self, name: str, stop: int) -> bool:
        return name in self._keep or self._last_read.get(name, -1) >= stop

    def _forget(self) -> None:
        for live in self._live:
            for name in [n for n in live if not self._is_needed(n, self._done)]:
                del live[name]

    def _piece(self, stop: int, names: Sequence[str]) -> onnx.ModelProto:
        """The nodes from here to `stop` as a model of their own."""
        nodes = self._nodes[self._done : stop]
        read = {name for n in nodes for name in _reads(n)}
        constants = {name: t for name, t in self._constants.items() if name in read}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
            for name, value in self._live[0].items()
            if name in read
        ]
        model = onnx.ModelProto()
        model.CopyFrom(self._shell)
        model.graph.name = "piece"
        model.graph.node.extend(self._protos[self._done : stop])
        model.graph.input.extend(inputs)
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
        model.graph.initializer.extend(numpy_helper.from_array(_array(t), name) for name, t in constants.items())
        return model

    @property
    def _shell(self) -> onnx.ModelProto:
        shell = onnx.ModelProto(ir_version=self._model.ir_version)
        shell.opset_import.extend(self._model.opset_import)
        shell.functions.extend(self._model.functions)
        return shell


def _late_constants(graph: Graph) -> tuple[list[int], dict[int, int]]:
    """An order of execution in which a DequantizeLinear of a constant comes right before the first node that reads it.

    Returns:
        Positions in `graph.nodes`, and for each node (by `id`) where in that order its own such nodes begin.
    """
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    late = {id(n) for n in graph.nodes if n.op == "DequantizeLinear" and graph.constant(n.inputs[0]) is not None}
    order: list[int] = []
    starts: dict[int, int] = {}
    placed: set[int] = set()
    for node in [n for n in graph.nodes if id(n) not in late] + [n for n in graph.nodes if id(n) in late]:
        starts[id(node)] = len(order)
        for each in [*(p for p in graph.dependencies(node) if id(p) in late), node]:
            if id(each) not in placed:
                placed.add(id(each))
                order.append(position[id(each)])
    return order, starts


def _array(constant: Constant) -> Array:
    return np.asarray(constant.values)


def _reads(node: Node) -> Iterator[str]:
    """Names that a node reads, inside its nested graphs too."""
    yield from (t.name for t in node.inputs if t.name)
    for value in node.attrs.values():
        if hasattr(value, "nodes"):
            for inner in value.nodes:
                yield from _reads(inner)
