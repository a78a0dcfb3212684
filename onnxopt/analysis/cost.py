"""What a graph costs: multiply-accumulates and parameters.

MACs are those of Conv, ConvTranspose, Gemm and MatMul and of their quantized forms, at the sizes that the model is run
at. An element-wise operator costs memory traffic rather than multiplications and counts zero.
"""

from math import prod
from typing import Self

from onnxopt.analysis.shapes import RunShapes
from onnxopt.graph import Graph, Node, label
from onnxopt.pass_api import Analysis, Context

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedMatMul")
# The same on codes of a few bits: the operator, and which of its inputs holds the weights.
CODED = {
    "ConvInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulNBits": 1,
    "QGemm": 3,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}


class Cost(Analysis):
    """MACs per node, and sums.

    Attributes:
        macs: First output's name to MACs, for each weighted node whose sizes are known.
        unknown: Labels of the weighted nodes whose sizes are not known.
        parameters: Elements of all initializers and values of Constant nodes of rank 1 or more.
    """

    def __init__(self, macs: dict[str, int], unknown: list[str], parameters: int) -> None:
        self.macs = macs
        self.unknown = unknown
        self.parameters = parameters

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> Self:
        """Count."""
        shapes = context.get(RunShapes)
        macs: dict[str, int] = {}
        unknown = []
        for node in graph.walk():
            if node.op in WEIGHTED or node.op in CODED:
                count = node_macs(node, shapes)
                if count is None:
                    unknown.append(label(node))
                else:
                    macs[node.outputs[0].name] = count
        parameters = sum(prod(shapes.static(c) or (0,)) for c in graph.initializers())
        parameters += sum(prod(shapes.static(n.outputs[0]) or (0,)) for n in graph.walk() if n.op == "Constant")
        return cls(macs, unknown, parameters)

    @property
    def total_macs(self) -> int:
        """MACs of the whole graph for one run."""
        return sum(self.macs.values())


def node_macs(node: Node, shapes: RunShapes) -> int | None:
    """MACs of a weighted node, None where a size is unknown.

    Conv: N·Cout·prod(out spatial)·(Cin/group)·prod(kernel). ConvTranspose: the same with input and output swapped.
    Gemm, MatMul: elements of the output times the length of the summed axis.
    """
    at = CODED.get(node.op, 1)
    output = shapes.static(node.outputs[0])
    weight = shapes.static(node.inputs[at]) if len(node.inputs) > at else None
    if output is None or weight is None:
        return None
    if node.op in {"Conv", "FusedConv", "ConvInteger", "QLinearConv"}:
        return prod(output) * prod(weight[1:])
    if node.op == "ConvTranspose":
        source = shapes.static(node.inputs[0])
        return None if source is None else prod(source) * prod(weight[1:])
    if node.op == "MatMulNBits":  # its weights are packed: [N, blocks, bytes of a block]
        return prod(output) * int(node.attrs["K"])
    if node.op in {"Gemm", "QGemm"}:
        return prod(output) * weight[1 if node.attrs.get("transB") else 0]
    return prod(output) * weight[-2 if len(weight) > 1 else 0]
