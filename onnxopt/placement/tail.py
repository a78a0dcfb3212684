"""The part of a graph that turns features into answers, found from structure alone.

Box coordinates span hundreds, scores span one: a scale that serves both makes every score zero. So everything that
computes no features stays float:

* an operator from which no feature-computing operator (Conv, ConvTranspose, Gemm or MatMul with constant weights)
  can be reached any more: the *tail*;
* the expectation over bins of a distribution-focal-loss head is a Conv by type and no feature by nature: a 1x1 Conv
  or a MatMul with the weights 0, 1, 2, … (and perhaps a row of ones). It is recognised and does not count;
* a Conv with no feature-computing operator behind it: a *final* layer. Its error goes straight into the answer.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.graph import Array, Graph, Node, is_standard

FEATURE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Tail:
    """Identities (`id`) of nodes.

    Attributes:
        nodes: Nodes behind the last features; expectation layers among them.
        final: Feature-computing nodes with no other behind them.
    """

    nodes: frozenset[int]
    final: frozenset[int]


def find_tail(graph: Graph) -> Tail:
    """Walk back once from the outputs."""
    leads: dict[int, bool] = {}  # does a node lead to a feature-computing operator behind it?
    nodes: set[int] = set()
    final: set[int] = set()
    for node in reversed(graph.nodes):
        consumers = [c for t in node.outputs for c in t.outputs]
        leads[id(node)] = any(leads.get(id(c), True) or computes_features(graph, c) for c in consumers)
        if leads[id(node)]:
            continue
        (final if computes_features(graph, node) else nodes).add(id(node))
    return Tail(frozenset(nodes), frozenset(final))


def computes_features(graph: Graph, node: Node) -> bool:
    """Whether a node is a weighted operator with constant weights, and no expectation over bins."""
    if node.op not in FEATURE_OPS or not is_standard(node) or len(node.inputs) < 2:
        return False
    if graph.constant(node.inputs[1]) is None and not any(graph.constant(t) is not None for t in node.inputs[:1]):
        return False
    return not is_expectation(graph, node)


def is_expectation(graph: Graph, node: Node) -> bool:
    """Whether a Conv or MatMul computes the mean of a distribution over bins 0, 1, …, R-1."""
    rows = _rows(graph, node)
    if rows is None or rows.size > 2 * 64:
        return False
    bins = np.arange(rows.shape[1], dtype=rows.dtype)
    others = rows[1:]
    return len(bins) > 1 and np.array_equal(rows[0], bins) and bool((others == 1).all()) and len(others) < 2


def _rows(graph: Graph, node: Node) -> Array | None:
    """Constant weights as a matrix whose rows meet the activations; either operand of a MatMul may be the constant."""
    if node.op not in {"Conv", "MatMul"} or len(node.inputs) < 2:
        return None
    left, right = graph.constant(node.inputs[0]), graph.constant(node.inputs[1])
    if node.op == "Conv":
        return right.reshape(right.shape[0], -1) if right is not None else None
    if left is not None:
        return left if left.ndim == 2 else None
    return right.reshape(right.shape[0], -1).T if right is not None and right.ndim else None
