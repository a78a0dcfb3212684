"""Relu(Relu(x)) = Relu(x): what is not negative stays as it is."""

from onnxopt import Context, Graph, Pass, option


class MergeRelus(Pass):
    """Remove a Relu that reads the output of a Relu.

    When to use it: on exports that activate twice, where one block ends with a Relu and the next begins with one.

    Example:
        before: `a = Relu (x)`, `y = Relu (a)`
        after:  `y = Relu (x)`

    Effect: exact. The second Relu changes no value.
    """

    name = "merge-relus"
    effect = "exact"
    most: int = option(default=1000, help="Remove at most so many.", low=0)

    def run(self, graph: Graph, context: Context) -> bool:
        """Remove them one by one."""
        removed = 0
        for relu in graph.nodes_of("Relu"):
            first = graph.producer(relu.inputs[0])
            if first is None or first.op != "Relu" or removed == self.most:
                continue
            if graph.bypass(relu, relu.inputs[0]):
                context.count("Relu removed")
                removed += 1
            else:
                context.note(relu, "its input and its output are both outputs of the model")
        return removed > 0
