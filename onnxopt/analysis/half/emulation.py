"""The rounding of a half graph in a float32 graph, which every runtime computes as it is written.

Each tensor that would be stored in half goes through a Cast to float16 and back; so do constants. What overflows
becomes infinite. Sums inside of an operator stay float32, which is how GPUs compute with half tensors.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.analysis.half.emission import HALF, SINGLE, rewire_constants
from onnxopt.analysis.half.forms import HalfForm
from onnxopt.analysis.half.peaks import to_half
from onnxopt.graph import Array, Graph, Node, Tensor, Variable


def emulated(graph: Graph, half: frozenset[int], forms: Sequence[HalfForm]) -> Graph:
    """A float32 copy of the graph that rounds as `turn_half` would; see there for the arguments."""
    copy = graph.copy()
    chosen = [(copy.nodes[i], forms[i]) for i in sorted(half)]
    rounder = _Rounder(copy)
    for node, form in chosen:
        for place in form.outputs:
            rounder.output(node, place)
    rewire_constants(copy, {id(node): form for node, form in chosen}, _rounded)
    for node, form in chosen:
        for place in form.inputs:
            rounder.input(node, place)
    copy.nodes.extend(rounder.added)
    return copy


def _rounded(values: Array) -> Array:
    return to_half(values).astype(np.float32)


class _Rounder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.added: list[Node] = []
        self._rounded: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []

    def output(self, node: Node, place: int) -> None:
        tensor = node.outputs[place]
        exact = Variable(self.graph.unique_name(f"{tensor.name}_exact"))
        node.outputs[place] = exact
        self._pair(exact, tensor)
        self._rounded[id(tensor)] = tensor

    def input(self, node: Node, place: int) -> None:
        tensor = node.inputs[place]
        if id(tensor) in self._rounded:
            node.inputs[place] = self._rounded[id(tensor)]
        elif self.graph.constant(tensor) is None:
            output = Variable(self.graph.unique_name(f"{tensor.name}_rounded"))
            self._rounded[id(tensor)] = output
            self._kept.append(tensor)
            self._pair(tensor, output)
            node.inputs[place] = output

    def _pair(self, source: Tensor, output: Tensor) -> None:
        half = Variable(self.graph.unique_name(f"{output.name}_half"))
        name = self.graph.unique_name(f"{output.name}_Cast")
        self.added.append(Node("Cast", name, {"to": HALF}, [source], [half]))
        self.added.append(Node("Cast", f"{name}_back", {"to": SINGLE}, [half], [output]))
