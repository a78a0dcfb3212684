"""Scales shared around a Concat where that costs no more than a bit."""

import numpy as np
import pytest

from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.placement import emit, plan
from onnxopt.placement.emit import group_parameters
from onnxopt.report.record import PassRecord
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph, plain_context

TEXT = """(float[1,8,4,4] x) => (float[1,8,4,4] y) <float[8,8,1,1] v, float[8,8,1,1] w, float[8,16,1,1] u,
    float[8,8,1,1] last> {
    a = Conv (x, v)  b = Conv (x, w)  c = Concat <axis = 1> (a, b)  d = Conv (c, u)  y = Conv (d, last) }"""


def scales(high_a, high_b):
    graph = parse_graph(TEXT)
    context = plain_context()
    context.bind(graph, PassRecord(""))
    placement = plan(graph, ORT, context.get(Shapes))
    highs = {"x": 1.0, "a": high_a, "b": high_b, "c": max(high_a, high_b), "d": 1.0}
    table = CalibrationTable()
    for name, high in highs.items():
        table[name] = CalibrationEntry(0.0, high, "minmax", 1)
    out = {g: group_parameters(ORT, placement, table, g)[0].item() for g in placement.tensors}
    emit(graph, ORT, placement, table)
    return out, graph


@pytest.mark.parametrize(("low", "shared"), [(10.0, True), (5.0, True), (4.9, False)])
def test_a_range_half_as_wide_takes_the_wider_scale(low, shared):
    got, _ = scales(low, 10.0)
    assert got["b"] == got["c"] == np.float32(10 / 255)
    assert (got["a"] == got["c"]) is shared
    assert shared or got["a"] == np.float32(low / 255)


def test_the_graph_says_so_too():
    got, graph = scales(6.0, 10.0)
    written = {n.inputs[0].name: graph.constant(n.inputs[1]).item() for n in graph.nodes_of("QuantizeLinear")}
    assert written["a"] == written["b"] == written["c"] == got["c"]
