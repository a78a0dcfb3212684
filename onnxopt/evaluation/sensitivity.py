"""How much quantizers hurt, in whichever company and with whichever ranges, all in one session.

Behind every tensor x of a placement goes a switch:  if m then fq(x) else x,  where fq quantizes and dequantizes.
Scales, zero points and the entries m are inputs of the model.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import helper
from onnx_graphsurgeon import Graph as SurgeonGraph

from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import Feeds
from onnxopt.evaluation.float_outputs import FloatOutputs, Run
from onnxopt.graph import Graph, Node, Tensor, Variable
from onnxopt.placement import Placement
from onnxopt.placement.emit import group_parameters
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

SCALES, ZEROS, SWITCHES = (f"onnxopt_{name}" for name in ("scales", "zeros", "switches"))


@dataclass(frozen=True)
class Alone:
    """How much each quantizer of a model hurts alone, kept for a later pass that would ask the same.

    Attributes:
        noise: Of the outputs, by group; see `Switchboard.alone`.
        ranges: Of the tensors, as they were then.
    """

    noise: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, noise: Mapping[str, float], table: CalibrationTable) -> "Alone":
        """With the ranges that a table has now."""
        return cls(noise, {name: (table[name].low, table[name].high) for name in table})

    def holds(self, groups: Collection[str], table: CalibrationTable) -> bool:
        """Whether it is about these groups, with these ranges."""
        same = all(name in table and (table[name].low, table[name].high) == ends for name, ends in self.ranges.items())
        return same and set(groups) == set(self.noise)


class Switchboard:
    """The float model with a quantizer behind every tensor of a placement; its weights stay float.

    Args:
        graph: The float model.
        target: Number format of activations.
        placement: The quantizers.
        table: Their ranges. Those given later are negative where these are, for that decides on the number format.
        threads: Threads of the session.

    Attributes:
        groups: Those that share a scale, by the name of their first tensor, in order of execution.
    """

    def __init__(
        self, graph: Graph, target: Target, placement: Placement, table: CalibrationTable, *, threads: int = 1
    ) -> None:
        self.groups = tuple(placement.groups)
        self._target, self._placement = target, placement
        self._outputs = [t.name for t in graph.outputs]
        self._session = OrtSession(self._wired(graph, table).to_proto(), threads=threads)

    def quantized(self, table: CalibrationTable, on: Collection[str]) -> Run:
        """The model with some quantizers on.

        Args:
            table: Ranges of all tensors of the placement.
            on: Groups whose quantizers are on.

        Returns:
            What runs it on a sample.
        """
        return partial(self._run, {**self._parameters(table), **self._switches(on)})

    def _run(self, settings: Feeds, feeds: Feeds) -> Feeds:
        return self._session.run({**feeds, **settings}, self._outputs)

    def _parameters(self, table: CalibrationTable) -> Feeds:
        pairs = [group_parameters(self._target, self._placement, table, group) for group in self.groups]
        scales, zeros = zip(*pairs, strict=True) if pairs else ((), ())
        return {SCALES: np.array(scales, np.float32), ZEROS: np.array(zeros, np.int32)}

    def _switches(self, on: Collection[str]) -> Feeds:
        return {SWITCHES: np.array([group in on for group in self.groups], np.bool_)}

    def alone(self, wanted: FloatOutputs, table: CalibrationTable, most: int) -> dict[str, float]:
        """Noise of the outputs with each group's quantizer on and all others off.

        Args:
            wanted: The float model's outputs.
            table: Ranges of all tensors of the placement.
            most: Look at so many samples.
        """
        parameters = self._parameters(table)
        runs = {group: partial(self._run, {**parameters, **self._switches({group})}) for group in self.groups}
        return {group: wanted.noise(run, most) for group, run in runs.items()}

    def _wired(self, graph: Graph, table: CalibrationTable) -> Graph:
        copy = graph.copy()
        copy.sort()
        tensors = copy.tensors()
        kinds = {SCALES: np.float32, ZEROS: np.int32, SWITCHES: np.bool_}
        settings = [Variable(name, kind, [len(self.groups)]) for name, kind in kinds.items()]
        copy.inputs.extend(settings)
        scales, zeros, switches = settings
        for index, (group, members) in enumerate(self._placement.groups.items()):
            at = copy.add_constant("switch_at", np.asarray(index, np.int64))
            on = copy.add_node("Gather", [switches, at]).outputs[0]
            dtype = group_parameters(self._target, self._placement, table, group)[1].dtype
            for name in members:
                _switch(copy, tensors[name], on, (scales, zeros, at), helper.np_dtype_to_tensor_dtype(dtype))
        return copy


def _switch(graph: Graph, tensor: Tensor, on: Tensor, parameters: tuple[Tensor, Tensor, Tensor], dtype: int) -> None:
    """Put a switch behind a tensor; whatever only the quantizer needs is computed where it is on."""
    readers = graph.consumers(tensor)
    scales, zeros, at = parameters
    scale, wide, zero, codes, rounded, same = (Variable(graph.unique_name("switched")) for _ in range(6))
    quantized = (
        Node("Gather", inputs=[scales, at], outputs=[scale]),
        Node("Gather", inputs=[zeros, at], outputs=[wide]),
        Node("Cast", attrs={"to": dtype}, inputs=[wide], outputs=[zero]),
        Node("QuantizeLinear", inputs=[tensor, scale, zero], outputs=[codes]),
        Node("DequantizeLinear", inputs=[codes, scale, zero], outputs=[rounded]),
    )
    left = Node("Identity", inputs=[tensor], outputs=[same])
    branches = {"then_branch": _branch(graph, *quantized), "else_branch": _branch(graph, left)}
    graph.replace_uses(tensor, graph.add_node("If", [on], branches).outputs[0], readers)


def _branch(graph: Graph, *nodes: Node) -> SurgeonGraph:
    return SurgeonGraph(nodes=list(nodes), outputs=list(nodes[-1].outputs), opset=graph.opset)
