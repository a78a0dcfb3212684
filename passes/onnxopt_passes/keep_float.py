"""Find the few layers whose quantization ruins the outputs, and keep them float.

1. Quantize a copy of the graph and compare its outputs with the float model's on held-out samples. Good enough: done.
2. Else rank the quantizers by what each does alone (see `evaluation.sensitivity`). Taking one out keeps the layers
   that write and read its tensor in float.
3. Take out the worst one, two, four, … until the outputs are good enough, then halve the last step. Never more layers
   than `most` allows: where that does not suffice, the best found is kept and the report says so.
"""

from collections.abc import Callable, Sequence

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.evaluation.sensitivity import lone_sqnr, worst_sqnr
from onnxopt.placement import FloatNodes, Placement, emit, plan
from onnxopt.placement.tail import FEATURE_OPS
from onnxopt.runtime.ort import OrtSession

RANKED_ON, JUDGED_ON = 1, 4  # held-out samples


class KeepFloat(Pass):
    """Keep the layers float whose quantization ruins the outputs; the fewest that suffice.

    When to use it: between `calibrate` and `insert-qdq`; the pipeline `quantize` does it. It costs one comparison where
    the quantized model is good already.

    Example:
        keep-float{sqnr=20} keeps layers float until held-out outputs have 20 dB

    Effect: exact. The graph is not touched; `insert-qdq` leaves the layers found alone, and names them.
    """

    name = "keep-float"
    effect = "exact"
    requires = (CalibrationTable, Ranging)
    provides = (FloatNodes,)
    needs_data = True

    sqnr: float = option(default=12.0, help="Enough: signal to noise of the worst output, in dB.")
    most: float = option(default=0.15, help="Share of the MACs that may stay float for it.", low=0, high=1)
    nodes: tuple[str, ...] | None = option(
        default=None, help="Keep just the nodes float that write these tensors; default: search."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Search, unless the nodes are given."""
        names = self.nodes
        if names is None:
            names = self._found(graph, context)
            context.resolve(nodes=names)
        for node in graph.nodes_of(*FEATURE_OPS):
            if node.outputs[0].name in names:
                context.note(node, "kept float: quantized it ruins the outputs")
        context.put(FloatNodes(names))
        return False

    def _found(self, graph: Graph, context: Context) -> tuple[str, ...]:
        if context.holdout is None:
            context.note(graph.source, "no samples to judge on, so no layer is known to need float")
            return ()
        if not plan(graph, context.target, context.get(Shapes)).weights:
            return ()
        if graph.opset < context.target.opset_floor:
            raise UsageError(f"keep-float needs opset {context.target.opset_floor}; run upgrade-opset before")
        return _Search(graph, context, self).run()


class _Search:
    def __init__(self, graph: Graph, context: Context, options: KeepFloat) -> None:
        self.graph, self.context, self.options = graph, context, options
        self.table = context.get(CalibrationTable)
        assert context.holdout is not None
        self.feeds = [s.feeds for s in context.holdout.take(JUDGED_ON)]
        reference = OrtSession(graph.to_proto(), threads=2)
        self.references = [reference.run(f) for f in self.feeds]

    def run(self) -> tuple[str, ...]:
        placement = self.plan(())
        start = self.quality(())
        if start >= self.options.sqnr:
            return ()
        steps = self.steps(placement)
        names, reached = _fewest(steps, self.quality, self.options.sqnr, start)
        where = self.graph.source
        self.context.record.details["sqnr_db"] = {"all_int8": start, "kept": reached}
        if reached < self.options.sqnr:
            self.context.note(where, f"{reached:.1f} dB is the best found; {self.options.sqnr:g} dB were asked for")
        return names

    def plan(self, names: Sequence[str]) -> Placement:
        return plan(self.graph, self.context.target, self.context.get(Shapes), names)

    def quality(self, names: Sequence[str]) -> float:
        """SQNR of the quantized graph with some nodes kept float, as its target's arithmetic defines it."""
        quantized = self.graph.copy()
        placement = plan(quantized, self.context.target, self.context.get(Shapes), names)
        self._complete(placement)
        emit(quantized, self.context.target, placement, self.table)
        session = OrtSession(quantized.to_proto(), threads=2)
        return worst_sqnr(self.references, [session.run(f) for f in self.feeds])

    def _complete(self, placement: Placement) -> None:
        """Measure what this placement needs and the first one did not."""
        missing = self.table.missing(placement.tensors)
        if missing and self.context.fit is not None:
            table, _ = measure_ranges(
                self.graph,
                missing,
                self.context.fit,
                self.context.get(RunShapes),
                self.context.target,
                self.context.get(Ranging),
            )
            for name in missing:
                self.table[name] = table[name]

    def steps(self, placement: Placement) -> list[tuple[str, ...]]:
        """What to keep float after one, two, three, … quantizers were taken out, worst first, within `most`."""
        ranked = lone_sqnr(self.graph, self.context.target, placement, self.table, self.feeds[:RANKED_ON])
        cost = self.context.get(Cost)
        allowed = self.options.most * cost.total_macs
        steps: list[tuple[str, ...]] = []
        names: list[str] = []
        for group in sorted(ranked, key=lambda g: (ranked[g], g)):
            added = [n for n in self._around(placement, group) if n not in names]
            spent = sum(
                cost.macs.get(n.outputs[0].name, 0) for n in self.graph.nodes if n.outputs[0].name in {*names, *added}
            )
            if added and spent <= allowed:
                names += added
                steps.append(tuple(names))
        return steps

    def _around(self, placement: Placement, group: str) -> list[str]:
        """First outputs of the int8 nodes that write or read a tensor of the group."""
        members = {t.name for t in placement.tensors.values() if t.group == group}
        nodes = [n for n in self.graph.nodes if id(n) in placement.consumers]
        return [n.outputs[0].name for n in nodes if any(t.name in members for t in [*n.inputs, *n.outputs])]


def _fewest(
    steps: list[tuple[str, ...]], quality: Callable[[Sequence[str]], float], enough: float, start: float
) -> tuple[tuple[str, ...], float]:
    """The first step that is good enough (by doubling, then halving), or else the best one tried."""
    best: tuple[tuple[str, ...], float] = ((), start)
    low, high, size = 0, None, 1
    while low < len(steps) and high is None:
        index = min(low + size, len(steps))
        reached = quality(steps[index - 1])
        best = max(best, (steps[index - 1], reached), key=lambda b: b[1])
        if reached >= enough:
            high = index
        else:
            low, size = index, size * 2
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        reached = quality(steps[middle - 1])
        if reached >= enough:
            high, best = middle, (steps[middle - 1], reached)
        else:
            low = middle
    return best if high is None else (steps[high - 1], best[1])
