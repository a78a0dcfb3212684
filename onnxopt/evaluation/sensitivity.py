"""How much each quantizer hurts, all of them in one session.

Behind every tensor x of a placement goes a switch:  x + m·(fq(x) - x),  where fq quantizes and dequantizes and m is
an entry of one further graph input. With m one-hot, a run shows what that quantizer does to the outputs alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxopt.calibration.table import CalibrationTable
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.graph import Array, Graph, Variable
from onnxopt.placement import Placement
from onnxopt.placement.emit import group_parameters
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

SWITCH = "onnxopt_switches"
Feeds = Mapping[str, Array]


def lone_sqnr(
    graph: Graph, target: Target, placement: Placement, table: CalibrationTable, feeds: Sequence[Feeds]
) -> dict[str, float]:
    """SQNR of the worst output with one quantizer alone.

    Args:
        graph: The float model.
        target: Number format of activations.
        placement: The quantizers.
        table: Their ranges.
        feeds: Inputs to judge on; two or three suffice for an order.

    Returns:
        Tensor name to dB, per group of tensors that share a scale; all tensors of a group are switched together.
    """
    groups = list(dict.fromkeys(t.group for t in placement.tensors.values()))
    session = OrtSession(_switched(graph, target, placement, table, groups).to_proto(), threads=2)
    wanted = [t.name for t in graph.outputs]
    off = np.zeros(len(groups), np.float32)
    references = [session.run({**f, SWITCH: off}, wanted) for f in feeds]
    out = {}
    for index, group in enumerate(groups):
        switches = off.copy()
        switches[index] = 1
        runs = [session.run({**f, SWITCH: switches}, wanted) for f in feeds]
        out[group] = worst_sqnr(references, runs)
    return out


def _switched(
    graph: Graph, target: Target, placement: Placement, table: CalibrationTable, groups: Sequence[str]
) -> Graph:
    copy = graph.copy()
    copy.sort()
    switches = Variable(SWITCH, np.float32, [len(groups)])
    tensors = {t.name: t for n in copy.nodes for t in n.outputs} | {t.name: t for t in copy.inputs}
    copy.inputs.append(switches)
    places = {group: i for i, group in enumerate(groups)}
    for name, quantized in placement.tensors.items():
        tensor, readers = tensors[name], copy.consumers(tensors[name])
        parameters = group_parameters(target, placement, table, quantized.group)
        codes = copy.add_node("QuantizeLinear", [tensor, *parameters]).outputs[0]
        rounded = copy.add_node("DequantizeLinear", [codes, *parameters]).outputs[0]
        error = copy.add_node("Sub", [rounded, tensor]).outputs[0]
        switch = copy.add_node("Gather", [switches, np.asarray(places[quantized.group], np.int64)]).outputs[0]
        scaled = copy.add_node("Mul", [error, switch]).outputs[0]
        copy.replace_uses(tensor, copy.add_node("Add", [tensor, scaled]).outputs[0], readers)
    return copy
