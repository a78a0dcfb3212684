"""Remove what no output depends on.

1. A node none of whose outputs is read, and none of which is a graph output, is removed; again, until none is left.
2. An initializer that no node reads is removed.
3. A trailing output that an operator need not produce and nobody reads is left as it is: it costs nothing.

Graph inputs stay, read or not: they are the model's interface.
"""

from onnxopt import Context, Graph, Pass
from onnxopt.graph import Node


class EliminateDead(Pass):
    """Remove nodes and initializers that no output depends on.

    When to use it: after any pass that rewires the graph; `simplify` runs it for you.

    Example:
        before: `dead = Relu (x)`, `y = Sigmoid (x)` with output `y`
        after:  `y = Sigmoid (x)`

    Effect: exact. Only what cannot reach an output goes.
    """

    name = "eliminate-dead"
    effect = "exact"

    def run(self, graph: Graph, context: Context) -> bool:
        """Walk back from the outputs and drop what was not met."""
        alive = _reachable(graph)
        dead = [n for n in graph.nodes if id(n) not in alive]
        graph.remove(*dead)
        unused = len(graph.unused_initializers)
        graph.unused_initializers.clear()
        if dead:
            context.count("nodes removed", len(dead))
        if unused:
            context.count("initializers removed", unused)
        return bool(dead or unused)


def _reachable(graph: Graph) -> set[int]:
    """Identities of the nodes that an output depends on, through nested graphs too."""
    seen: set[int] = set()
    pending: list[Node] = [n for t in graph.outputs for n in t.inputs]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            pending.extend(graph.dependencies(node))
    return seen
