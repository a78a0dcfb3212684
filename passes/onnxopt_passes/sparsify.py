"""Put zeros into the weights of Conv, Gemm and MatMul, and let the weights that are left make up for them.

1. `sparsity` puts so large a share of zeros into each layer, anywhere; `pattern=2:4` at least two zeros into every four
   consecutive input channels at the same place of the kernel, which sparse tensor cores skip. Layers whose outputs read
   one channel each (depthwise) or, with a pattern, no multiple of M channels get none; other grouped convolutions are
   done group by group.
2. With data, layers are done in order of execution: which weights go, and what the others become, follows from the
   covariance of what the layer reads in the model as it is by then (`analysis.sparsity`). Layers that get no zeros are
   refitted, too, to make up for what goes wrong before them, unless `scope` or `ignore` leaves them out. A layer's new
   weights stay if its output on held-out samples comes closer than with the smallest weights gone, and all of them if
   the model's outputs do. Without data, the smallest weights go.
3. In the end every layer is checked for the zeros that it should have.
"""

import json
from collections.abc import Sequence

import numpy as np

from onnxopt import Context, Graph, OptimizationError, Pass, UsageError, option
from onnxopt.analysis.compensation.abreast import choose_samples
from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.scope import Scope
from onnxopt.analysis.sparsity import Layer, Rule, Sparse, find_layers, magnitudes, reconstruct, write
from onnxopt.analysis.sparsity.layers import OPS
from onnxopt.graph import Array, label
from onnxopt.runtime import host
from onnxopt.runtime.ort import OrtSession

KEY = "onnxopt.sparsify"
DEFAULT = 0.5
TRIALS = 3  # runs over the samples that judge


class Sparsify(Pass):
    """Put zeros into weights, in any place or N of every M input channels; the others make up for them.

    When to use it: for TensorRT on GPUs from Ampere on, with a pattern of two in four, built with its flag for sparse
    weights; large layers gain most. Zeros anywhere make no runtime faster that we know; they make a compressed file
    smaller. Run it after `simplify` and `prune` and before `quantize`, which keeps zeros.

    Example (`pattern=2:4`, no data):
        before: `y = MatMul (x, w)` with a column of `w` being `.1, -.7, .3, .2`
        after:  the same with `0, -.7, .3, 0`

    Effect: lossy. Weights become 0 and, with data, the others and biases change; look at the errors in the report.
    """

    name = "sparsify"
    effect = "lossy"
    needs_data = True

    sparsity: float | None = option(
        default=None, help="Share of zeros in each layer, in any place; 0.5 where no pattern is given.", low=0, high=1
    )
    pattern: str | None = option(
        default=None, help="N:M: of every M consecutive input channels N at most are not 0; TensorRT wants 2:4."
    )
    method: str | None = option(
        default=None,
        help="The smallest weights go, or the others make up for those that go; none: the latter where there is data.",
        choices=("magnitude", "reconstruction"),
    )
    scope: tuple[str, ...] = option(default=(), help="Name patterns of the only nodes to do.")
    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes to leave alone.")
    min_elements: int = option(
        default=32, help="Leave layers with fewer weights alone: arithmetic written as a layer.", low=0
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Find the layers, choose their zeros, check them.

        Raises:
            UsageError: Both a share and a pattern are given, the pattern is none or matches nothing, or samples are
                needed and there are none.
        """
        rule = self._rule()
        graph.sort()
        scope = Scope(self.scope, self.ignore)
        scope.check(self.name, [n.name for n in graph.nodes_of(*OPS)], "Conv, Gemm or MatMul")
        usable = find_layers(graph, rule, context.note, least=self.min_elements)
        layers = _in_scope(graph, usable, scope, context)
        if all(layer.dense for layer in layers) or rule.share == 0:
            if not layers and not context.record.notes:
                context.note(graph.source, "has no Conv, Gemm or MatMul with weights")
            return False
        method = self._method(graph, context)
        context.resolve(method=method, **({} if rule.block else {"sparsity": rule.share}))
        found = magnitudes(graph, layers, rule)
        if method == "reconstruction":
            found = _Work(graph, context, layers, rule).better(found)
        for each in found:
            write(graph, each.layer, each.weight, each.bias)
        _record(graph, found, rule, method, context)
        return True

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        """The original with masks in place of the zeros; None where weights were refitted."""
        runs = json.loads(after.metadata.get(KEY, "[]"))
        known = json.loads(before.metadata.get(KEY, "[]"))
        if len(runs) == len(known) or runs[-1]["method"] != "magnitude":
            return None
        sparse = {n.outputs[0].name: after.constant(n.inputs[1]) for n in after.nodes if n.op in OPS}
        masked = before.copy()
        for node in masked.nodes_of(*OPS):
            weight, left = masked.constant(node.inputs[1]), sparse.get(node.outputs[0].name)
            if weight is None or left is None:
                continue
            mask = (left != 0).astype(weight.dtype)
            node.inputs[1] = masked.add_node("Mul", [node.inputs[1], mask], before=node).outputs[0]
        return masked

    def _rule(self) -> Rule:
        if self.pattern is None:
            return Rule(DEFAULT if self.sparsity is None else self.sparsity)
        if self.sparsity is not None:
            raise UsageError("sparsify: give sparsity or pattern, not both; 2:4 is a sparsity of 0.5")
        return Rule.parse(self.pattern)

    def _method(self, graph: Graph, context: Context) -> str:
        """How zeros are chosen; says why it is not what one would expect."""
        why = context.cannot_try(graph)
        if self.method == "reconstruction" and why:
            raise UsageError(f"sparsify: method=reconstruction has to run the model on samples: {why}")
        if not why and self.method is None and context.synthetic:
            why = "samples that are made up, or a single one, cannot tell what they cost"
        if self.method is None and why:
            context.note(graph.source, f"the smallest weights go, without reconstruction: {why}")
        return self.method or ("magnitude" if why else "reconstruction")


def _in_scope(graph: Graph, layers: Sequence[Layer], scope: Scope, context: Context) -> list[Layer]:
    chosen = []
    for layer in layers:
        node = layer.reader.node(graph)
        reason = scope.why_not([node.name])
        if reason:
            context.note(node, reason)
        else:
            chosen.append(layer)
    return chosen


class _Work:
    """Reconstructs on samples, and judges the model."""

    def __init__(self, graph: Graph, context: Context, layers: Sequence[Layer], rule: Rule) -> None:
        self._graph, self._context, self._layers, self._rule = graph, context, layers, rule
        readers = [layer.reader for layer in layers]
        self._samples = choose_samples(graph, context, readers, TRIALS)

    def better(self, plain: Sequence[Sparse]) -> list[Sparse]:
        """What reconstruction gives, if the model's outputs are closer with it than with the smallest weights gone."""
        found = reconstruct(self._graph, self._layers, self._rule, self._samples)
        damage = Damage(self._outputs(()), self._samples[1], self._graph.metadata)
        before, after = (damage.of(self._outputs(each)) for each in (plain, found))
        self._context.record.details["damage"] = {"magnitude": before, "reconstruction": after}
        if after < before:
            return found
        self._context.note(self._graph.source, f"reconstruction was taken back: damage {after:.4g}, not {before:.4g}")
        return list(plain)

    def _outputs(self, sparse: Sequence[Sparse]) -> list[dict[str, Array]]:
        trial = self._graph.copy()
        for each in sparse:
            write(trial, each.layer, each.weight, each.bias)
        session = OrtSession(trial.to_proto(), threads=host.cores())
        return [session.run(feeds) for feeds in self._samples[1]]


def _record(graph: Graph, found: Sequence[Sparse], rule: Rule, method: str, context: Context) -> None:
    """Check the zeros, and say what there is."""
    rows, zeros, total = [], 0, 0
    for each in found:
        node, weight = each.layer.reader.node(graph), each.layer.weights(graph)
        if not each.layer.dense and not rule.follows(weight, each.layer.axis):
            raise OptimizationError(f"sparsify: {label(node)} does not have the zeros of {rule}")
        missing = weight.size - int(np.count_nonzero(weight))
        errors = {name: round(value, 6) for name, value in each.errors.items()}
        rows.append({"name": node.name, "sparsity": round(missing / weight.size, 4), "errors": errors})
        if not each.layer.dense:
            zeros, total = zeros + missing, total + weight.size
    refitted = [e for e in found if e.errors and e.errors["refitted"] < e.errors["plain"]]
    runs = [*json.loads(graph.metadata.get(KEY, "[]"))]
    method = method if refitted else "magnitude"
    runs.append({"zeros": str(rule), "layers": sum(not e.layer.dense for e in found), "method": method})
    graph.set_metadata(KEY, json.dumps(runs, separators=(",", ":")))
    context.count("layers with zeros", runs[-1]["layers"])
    if refitted:
        context.count("layers refitted", len(refitted))
    context.record.details["layers"] = rows
    context.record.details["sparsity"] = round(zeros / max(1, total), 4)
