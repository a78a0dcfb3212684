"""The structural check at any size."""

import pytest

from onnxopt.observers import structure
from onnxopt.testing import parse_graph

MODEL = "(float[1,64] x) => (float[1,64] y) <float[64,64] w, float[64] b> { y = Gemm (x, w, b) }"


@pytest.fixture(params=["whole", "stripped"])
def limit(request, monkeypatch):
    monkeypatch.setattr(structure, "STRIP_ABOVE", 0 if request.param == "stripped" else 10**9)


@pytest.mark.usefixtures("limit")
def test_valid():
    assert structure.structural_fault(parse_graph(MODEL)) == ""


@pytest.mark.usefixtures("limit")
def test_wrong_attribute():
    graph = parse_graph(MODEL)
    graph.nodes[0].attrs["strange"] = 1
    assert "Unrecognized attribute: strange" in structure.structural_fault(graph)


@pytest.mark.usefixtures("limit")
def test_wrong_shape():
    graph = parse_graph(MODEL.replace("float[64,64] w", "float[63,64] w"))
    assert "[ShapeInferenceError]" in structure.structural_fault(graph)


@pytest.mark.usefixtures("limit")
def test_weights_that_are_inputs_too():
    graph = parse_graph(
        '<ir_version: 3, opset_import: ["" : 17]> g (float[1,64] x, float[64,64] w) => (float[1,64] y) '
        "<float[64,64] w> { y = MatMul (x, w) }"
    )
    assert structure.structural_fault(graph) == ""
