"""The float model that a quantized graph was made of, for passes that compare the two."""

from dataclasses import dataclass

from onnxopt.graph import Graph


@dataclass(frozen=True)
class FloatModel:
    """Artefact: the graph as it was before pairs were inserted. It shares its weights with earlier graphs.

    Attributes:
        graph: In float, tensors named as in the quantized graph.
    """

    graph: Graph
