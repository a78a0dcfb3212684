"""Keep the layers float whose int8 kernels make the whole model slower: measured on the target, kind by kind.

Int8 does not pay everywhere. Which layers lose depends on the runtime and the processor: the stem, layers of few
channels, depthwise layers, attention and the final layers are where it happens. Layers timed alone mislead, since what
costs is often a conversion beside them; so models are timed whole:

1. Quantize the graph, and once more with each kind of layer kept float.
2. Time all of them in turns in one process. A kind is better float if the median speed-up round by round is above 1 by
   more than two standard errors of the median, 1.25·s/√n where s is 1.48 times half the distance of the quartiles (as
   of a normal distribution).
3. Keep all those kinds float together if that is faster than the best of them alone; else that one.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.graph import Node
from onnxopt.placement import FloatNodes, Placement, plan
from onnxopt.placement.tail import FEATURE_OPS
from onnxopt.placement.trial import quantized
from onnxopt.runtime.adapter import Feeds, Runtime, load_runtime, prepared
from onnxopt.runtime.latency import Comparison, Latency, compare

PICTURE = 4  # channels of a picture, at most
NARROW = 16  # channels; one vector of 512 bits holds so many int32 sums
SECONDS = 30.0  # of measuring, each time
CERTAIN = 2 * 1.25 * 1.48  # two standard errors of a median, over half the distance of the quartiles and √n


class Tune(Pass):
    """Measure on the target which kinds of layers are faster in float, and keep those float.

    When to use it: where milliseconds count; `quantize{tune=true}` does it. It takes a minute or so, and its result
    holds for this machine; the recipe written by `--print-recipe` repeats it without measuring.

    Example:
        tune{on=true} on OpenVINO and a processor with bf16 may keep the stem float

    Effect: exact. The graph is not touched; `insert-qdq` leaves the layers found alone.
    """

    name = "tune"
    effect = "exact"
    requires = (CalibrationTable, Ranging)
    provides = (FloatNodes,)

    on: bool = option(default=False, help="Measure; without it nothing is done.")
    nodes: tuple[str, ...] | None = option(
        default=None, help="Keep just the nodes float that write these tensors; default: measure."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Measure, unless the nodes are given."""
        if not self.on and self.nodes is None:
            return False
        before = context.get(FloatNodes).names if context.has(FloatNodes) else ()
        names = self.nodes
        if names is None:
            names = self._measured(graph, context, before)
            context.resolve(nodes=names)
        written = {t.name for n in graph.nodes for t in n.outputs}
        unknown = next((n for n in names if n not in written), None)
        if unknown is not None:
            raise UsageError(f"tune: no node writes a tensor '{unknown}' at this place in the pipeline")
        for node in graph.nodes:
            if node.outputs and node.outputs[0].name in names:
                context.note(node, "kept float: the whole model is faster so")
        context.put(FloatNodes(tuple(dict.fromkeys((*before, *names)))))
        return False

    def _measured(self, graph: Graph, context: Context, before: Sequence[str]) -> tuple[str, ...]:
        runtime = load_runtime(context.target)
        samples = context.holdout or context.fit
        if runtime is None or not samples:
            context.note(graph.source, f"no {context.target.name} on this machine, so nothing to measure on")
            return ()
        placement = plan(graph, context.target, context.get(Shapes), before)
        kinds = _kinds(graph, placement)
        if not kinds:
            context.note(graph.source, "no layer is of a kind that may be faster in float")
            return ()
        feeds = next(iter(samples.take(1))).feeds
        choices = {"int8": (), **kinds}
        comparison = _timed(graph, context, runtime, feeds, before, choices)
        better = [name for name in kinds if _surely_faster(comparison[name], comparison.rounds)]
        context.record.details["tune"] = [str(latency) for latency in comparison.latencies]
        if not better:
            context.note(graph.source, f"nothing is faster in float: {', '.join(kinds)} were timed")
        if len(better) < 2:
            return kinds[better[0]] if better else ()
        together = tuple(dict.fromkeys(n for name in better for n in kinds[name]))
        best = max(better, key=lambda name: comparison[name].speedup.median)
        again = _timed(graph, context, runtime, feeds, before, {"best": kinds[best], "together": together})
        context.record.details["tune"].append(f"{' + '.join(better)} against {best}: {again['together']}")
        return together if again["together"].speedup.median > 1 else kinds[best]


def _timed(
    graph: Graph,
    context: Context,
    runtime: Runtime,
    feeds: Feeds,
    before: Sequence[str],
    choices: Mapping[str, Sequence[str]],
) -> Comparison:
    sessions = {
        name: runtime.open(quantized(graph, context, (*before, *kept)).to_proto()) for name, kept in choices.items()
    }
    runs = {name: prepared(session, feeds) for name, session in sessions.items()}
    return compare(runs, rounds=200, seconds=SECONDS, least=30)


def _surely_faster(latency: Latency, rounds: int) -> bool:
    return latency.speedup.median - 1 > CERTAIN * latency.speedup.spread / sqrt(rounds)


def _kinds(graph: Graph, placement: Placement) -> dict[str, tuple[str, ...]]:
    """First outputs of the int8 layers of each kind that there is; a layer may be of several."""
    kinds: dict[str, list[str]] = {}
    for node in graph.nodes_of(*FEATURE_OPS):
        if id(node) in placement.consumers:
            for kind in _kinds_of(graph, node, placement):
                kinds.setdefault(kind, []).append(node.outputs[0].name)
    return {kind: tuple(names) for kind, names in sorted(kinds.items())}


def _kinds_of(graph: Graph, node: Node, placement: Placement) -> list[str]:
    weight = graph.constant(node.inputs[1])
    if weight is None:
        return ["attention"]
    kinds = ["final"] if id(node) in placement.final else []
    if node.op == "Conv":
        channels = (weight.shape[0], weight.shape[1] * int(node.attrs.get("group", 1)))
        if node.attrs.get("group", 1) == channels[0] > 1:
            kinds.append("depthwise")
        elif channels[1] <= PICTURE:
            kinds.append("stem")
        elif min(channels) < NARROW:
            kinds.append("narrow")
    return kinds
