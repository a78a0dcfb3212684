"""How much quantizers hurt, in whichever company and with whichever ranges, all in one session.

Behind every tensor x of a placement goes a switch:  x + m·(fq(x) - x),  where fq quantizes and dequantizes. Scales,
zero points and the entries m, 0 or 1, are inputs of the model.
"""

from collections.abc import Collection

import numpy as np
from onnx import helper

from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import Feeds
from onnxopt.evaluation.float_outputs import FloatOutputs, Run
from onnxopt.graph import Graph, Tensor, Variable
from onnxopt.placement import Placement
from onnxopt.placement.emit import group_parameters
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

SCALES, ZEROS, SWITCHES = (f"onnxopt_{name}" for name in ("scales", "zeros", "switches"))


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
        self.groups = tuple(dict.fromkeys(t.group for t in placement.tensors.values()))
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
        parameters = [group_parameters(self._target, self._placement, table, g) for g in self.groups]
        settings = {
            SCALES: np.array([scale for scale, _ in parameters], np.float32),
            ZEROS: np.array([zero for _, zero in parameters], np.int32),
            SWITCHES: np.array([group in on for group in self.groups], np.float32),
        }

        def run(feeds: Feeds) -> Feeds:
            return self._session.run({**feeds, **settings}, self._outputs)

        return run

    def alone(self, wanted: FloatOutputs, table: CalibrationTable, most: int) -> dict[str, float]:
        """Noise of the outputs with each group's quantizer on and all others off.

        Args:
            wanted: The float model's outputs.
            table: Ranges of all tensors of the placement.
            most: Look at so many samples.
        """
        return {group: wanted.noise(self.quantized(table, {group}), most) for group in self.groups}

    def _wired(self, graph: Graph, table: CalibrationTable) -> Graph:
        copy = graph.copy()
        copy.sort()
        tensors = copy.tensors()
        kinds = {SCALES: np.float32, ZEROS: np.int32, SWITCHES: np.float32}
        settings = [Variable(name, kind, [len(self.groups)]) for name, kind in kinds.items()]
        copy.inputs.extend(settings)
        for index, group in enumerate(self.groups):
            dtype = group_parameters(self._target, self._placement, table, group)[1].dtype
            members = [t.name for t in self._placement.tensors.values() if t.group == group]
            scale, zero, switch = (
                copy.add_node("Gather", [setting, np.asarray(index, np.int64)]).outputs[0] for setting in settings
            )
            to = helper.np_dtype_to_tensor_dtype(dtype)
            zero = copy.add_node("Cast", [zero], {"to": to}).outputs[0]
            for name in members:
                _switch(copy, tensors[name], scale, zero, switch)
        return copy


def _switch(graph: Graph, tensor: Tensor, scale: Tensor, zero: Tensor, switch: Tensor) -> None:
    readers = graph.consumers(tensor)
    codes = graph.add_node("QuantizeLinear", [tensor, scale, zero]).outputs[0]
    rounded = graph.add_node("DequantizeLinear", [codes, scale, zero]).outputs[0]
    error = graph.add_node("Sub", [rounded, tensor]).outputs[0]
    scaled = graph.add_node("Mul", [error, switch]).outputs[0]
    graph.replace_uses(tensor, graph.add_node("Add", [tensor, scaled]).outputs[0], readers)
