"""Layers behind a change refitted, so that each gives what it gave before.

Sequential: a layer is fitted on what it reads in the changed model as refitted so far. Its new weights stay if its
output on held-out samples comes closer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.compensation.abreast import Abreast, errors_of
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.reading import FloatArray, Reader, give_bias, read
from onnxopt.data import Feeds
from onnxopt.graph import Graph, is_standard

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LEAST = 32  # weights; layers with fewer are arithmetic, such as a detector's weighted mean over distances


def find_refittable(graph: Graph, known: Collection[str]) -> list[Reader]:
    """The layers of a sorted graph that can be given other weights and whose outputs are among known names."""
    found = []
    for position, node in enumerate(graph.nodes):
        if node.op not in OPS or not is_standard(node) or node.outputs[0].name not in known:
            continue
        weight = graph.constant(node.inputs[1])
        if weight is None or weight.size < LEAST or weight.dtype.kind != "f" or not np.isfinite(weight).all():
            continue
        if node.op in {"Gemm", "MatMul"} and weight.ndim != 2:
            continue
        if node.op == "Conv":
            channels = weight.shape[1] * int(node.attrs.get("group", 1))
        else:
            channels = weight.shape[1 if node.op == "Gemm" and node.attrs.get("transB") else 0]
        reader = read(graph, position, np.arange(channels))
        if reader is not None:
            found.append(reader)
    return found


@dataclass(frozen=True)
class Refitted:
    """New numbers of a layer.

    Attributes:
        reader: Which.
        weight: float64[groups, columns, length].
        bias: float64[groups, columns]; None where it has none.
        errors: Of its output on held-out samples, without them and with, as shares of the output's variance.
    """

    reader: Reader
    weight: FloatArray
    bias: FloatArray | None
    errors: tuple[float, float]

    def write(self, graph: Graph) -> None:
        """Give them to a copy of the graph."""
        if self.bias is not None:
            give_bias(graph, self.reader.node(graph))
        self.reader.write(graph, self.weight, self.bias)


def refit_following(
    before: Graph, graph: Graph, changed: Collection[str], samples: tuple[Sequence[Feeds], Sequence[Feeds]]
) -> list[Refitted]:
    """Refit what follows some tensors.

    Args:
        before: The model that the graph was.
        graph: The changed one, sorted; layers have the output names that they had. It is not changed further.
        changed: Names of the tensors that are not what they were.
        samples: To fit on, and to judge on.

    Returns:
        The layers that have come closer.
    """
    trial = graph.copy()
    reached = _behind(trial, changed)
    known = {t.name for n in before.nodes for t in n.outputs}
    readers = [r for r in find_refittable(trial, known) if r.position in reached]
    for reader in readers:
        give_bias(trial, reader.node(trial))
        reader.own(trial)
    walks = [Abreast(before, trial, feeds) for feeds in samples]
    found = (_refit(trial, reader, walks) for reader in readers)
    return [each for each in found if each is not None]


def _refit(trial: Graph, reader: Reader, walks: Sequence[Abreast]) -> Refitted | None:
    fit, judge = walks
    weight, bias = reader.matrix(trial), reader.bias(trial)
    moments = fit.moments(reader, centred=bias is not None)
    fitted = refit(moments, weight, bias, np.ones((weight.shape[0], weight.shape[2]), np.bool_))
    old, new = errors_of(judge.rows(reader), ((weight, bias), fitted))
    if new < old:
        reader.write(trial, *fitted)
    return Refitted(reader, *fitted, (old, new)) if new < old else None


def _behind(graph: Graph, changed: Collection[str]) -> set[int]:
    """Positions of the nodes that depend on some tensors."""
    names, found = set(changed), set()
    for position, node in enumerate(graph.nodes):
        if any(t.name in names for t in node.inputs):
            found.add(position)
            names |= {t.name for t in node.outputs}
    return found
