"""The scale of a classifier's scores, given back after a refit.

Least squares keeps of each output what the layers left can explain; what they cannot goes, and with it some of the
spread of the scores. The classes stay in order, but the model is less sure of them than it was. One factor on the
weights of the last layer, chosen on held-out samples, makes up for that: scores y become s y.
"""

from collections.abc import Mapping, Sequence

from onnxopt.analysis.compensation.damage import Damage, as_scores
from onnxopt.evaluation.decoding import class_scores
from onnxopt.graph import Array, Graph, Node

FACTORS = tuple(round(0.8 + 0.05 * i, 2) for i in range(15))
LAST = ("Conv", "Gemm")
PASSING = ("Flatten", "Identity", "LogSoftmax", "Reshape", "Softmax", "Squeeze")


def last_layer(graph: Graph) -> Node | None:
    """The layer that makes the scores of a classifier with one output; None where there is no such."""
    node = graph.producer(graph.outputs[0]) if len(graph.outputs) == 1 else None
    while node is not None and node.op in PASSING:
        source = node.inputs[0]
        node = graph.producer(source) if len(source.outputs) == 1 and not graph.is_output(source) else None
    if node is None or node.op not in LAST or any(graph.constant(t) is None for t in node.inputs[1:]):
        return None
    return node


def best_factor(outputs: Sequence[Mapping[str, Array]], damage: Damage) -> float:
    """The factor with which scores are nearest to those before; 1 where the outputs are no scores of classes."""
    if any(class_scores(dict(o)) is None for o in outputs):
        return 1.0
    scores = [{name: as_scores(values) for name, values in o.items()} for o in outputs]
    found = {f: damage.of({n: f * v for n, v in s.items()} for s in scores) for f in FACTORS}
    return min(found, key=lambda f: (found[f], abs(f - 1)))


def sharpen(graph: Graph, layer: Node, factor: float) -> None:
    """Multiply the weights and bias of a layer."""
    for index in range(1, len(layer.inputs)):
        own = graph.own_constant(layer, index)
        own.values = (own.values * factor).astype(own.values.dtype)
