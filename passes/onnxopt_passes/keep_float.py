"""Find the few layers whose quantization ruins the outputs, and keep them float.

1. Quantize a copy of the graph and see whether it reaches its goals on held-out samples: the SQNR of its outputs to
   the float model's, that of the worst part of them (a detector's scores, say), and with `--max-drop` a score that
   keeps to the budget. It does: done.
2. Else rank the quantizers by the noise that each makes alone (see `evaluation.sensitivity`), for what leaving it
   out would keep in float, the layers that write and read its tensor: their MACs and the values they move. A depthwise
   layer has few of the one and many of the other.
3. Take out the first one, two, four, … until the goal is reached, then halve the last step. Never more layers than
   `most` allows: where that does not suffice, the best found is kept and the report says so.
4. An SQNR that nobody asked for is not bought at any price. Were noise spread evenly, layers that do a share s of the
   work (MACs, and values moved) would leave 1 - s of it; where those found gain less than three times those dB, none
   of them ruins the outputs, and none stays float.

The SQNR comes first, since four samples tell it. The budget goes on from there; or from the start where no SQNR that is
good enough was found, since what counts for the user is the budget.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.recovery import Choices, recover
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.given import came_quantized
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.store import complete
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Judge
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.evaluation.sensitivity import Alone, Switchboard
from onnxopt.graph import label
from onnxopt.placement import FloatNodes, Placement, plan
from onnxopt.placement.retarget import refuse_pairs
from onnxopt.placement.tail import FEATURE_OPS
from onnxopt.placement.trial import quantized
from onnxopt.runtime.host import cores
from onnxopt.runtime.ort import OrtSession

RANKED_ON, JUDGED_ON = 1, 4  # held-out samples
ENOUGH = 12.0  # dB
WORTH = 3.0  # times the dB that the same work in float would gain if noise were spread evenly
CORRECTED_ON = 8  # samples
BESIDES = 0.01  # of the model: what a layer in float costs beside its own work, such as its Q and DQ


class KeepFloat(Pass):
    """Keep the layers float whose quantization ruins the outputs; the fewest that suffice.

    When to use it: between `calibrate` and `insert-qdq`; the pipeline `quantize` does it. It costs one comparison where
    the quantized model is good already. With `--max-drop` it also keeps float what the budget needs; each step of that
    search scores the model once.

    Example:
        keep-float{sqnr=20} keeps layers float until held-out outputs have 20 dB

    Effect: exact. The graph is not touched; `insert-qdq` leaves the layers found alone, and names them.
    """

    name = "keep-float"
    effect = "exact"
    requires = (CalibrationTable, Ranging)
    provides = (FloatNodes,)
    needs_data = True

    sqnr: float | None = option(
        default=None,
        help=f"Enough: signal to noise of the worst output, in dB; default: {ENOUGH:g} if few layers prevent it.",
    )
    most: float = option(default=0.15, help="Share of the MACs that may stay float for it.", low=0, high=1)
    recover: str = option(
        default="off",
        help="Level of the `recover` that follows: if there is one, the budget is judged with the biases put right.",
        choices=("off", "fast", "full"),
    )
    nodes: tuple[str, ...] | None = option(
        default=None, help="Keep just the nodes float that write these tensors; default: search."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Search, unless the nodes are given."""
        refuse_pairs(graph, f"put {self.name} before insert-qdq")
        names = self.nodes
        if names is None:
            names = self._found(graph, context)
            context.resolve(nodes=names)
        written = {t.name for n in graph.nodes for t in n.outputs}
        unknown = next((n for n in names if n not in written), None)
        if unknown is not None:
            raise UsageError(f"keep-float: no node writes a tensor '{unknown}' at this place in the pipeline")
        self._report(graph, context, names)
        if names:
            placement = plan(graph, context.target, context.get(Shapes))
            int8 = {n.outputs[0].name for n in graph.nodes if id(n) in placement.consumers}
            for name in sorted({*names} - int8):
                context.note(name, f"no node that {context.target.name} runs in int8 writes it; nothing to keep float")
            placement = plan(graph, context.target, context.get(Shapes), names)
            complete(graph, list(placement.tensors), context.get(CalibrationTable), context.get(Ranging), context)
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

    def _report(self, graph: Graph, context: Context, names: Sequence[str]) -> None:
        """Name the nodes, and what they cost."""
        cost = context.get(Cost)
        kept = []
        for node in graph.nodes_of(*FEATURE_OPS):
            if node.outputs[0].name in names:
                macs = cost.macs.get(node.outputs[0].name, 0)
                kept.append({"node": label(node), "macs": macs, "share": macs / max(cost.total_macs, 1)})
                context.note(node, "kept float: quantized it costs too much accuracy")
        context.record.details["kept_float"] = kept


@dataclass(frozen=True)
class _Goal:
    """What a choice of float nodes has to reach.

    Attributes:
        name: Under which the report has it.
        measure: Value of a choice.
        enough: The value to reach.
        sign: 1 where more is better, else -1.
        missed: What to say of the best value where that is not enough.
        price: For a value in dB: so many times what float would gain if noise were spread evenly; 0: any gain.
    """

    name: str
    measure: Callable[[Sequence[str]], float]
    enough: float
    sign: int
    missed: str
    price: float = 0.0

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return self.sign * value >= self.sign * self.enough


class _Search:
    def __init__(self, graph: Graph, context: Context, options: KeepFloat) -> None:
        self.graph, self.context, self.options = graph, context, options
        self.table = context.get(CalibrationTable)
        assert context.holdout is not None
        self.feeds = [s.feeds for s in context.holdout.take(JUDGED_ON)]
        self.wanted = FloatOutputs(graph, self.feeds, threads=cores())

    def run(self) -> tuple[str, ...]:
        """Reach one goal after the other; a later one goes on from where an earlier one was reached."""
        at, goals = 0, self.goals()
        for goal in goals:
            values: dict[int, float] = {}
            start, at = at, self._first(goal, at, values)
            if goal.price and at and not self._pays(goal.price, at, values):
                self.context.note(self.graph.source, self._too_dear(at, values))
                at = 0
                continue
            reached = goal.reached(values[at])
            if len(values) > 1 or not reached:
                self.context.record.details[goal.name] = {"before": values[start], "kept": values[at]}
            if not reached:
                self.context.note(self.graph.source, goal.missed.format(values[at]))
                at = at if goal is goals[-1] else 0  # what did not help is no reason to slow the model down
        return self.steps[at] if at else ()

    def _pays(self, price: float, at: int, sqnr_db: Mapping[int, float]) -> bool:
        names = self.steps[at]
        int8 = 1 - (self._share(names) + self._moved(names)) / 2
        return not sqnr_db[at] - sqnr_db[0] < -price * 10 * math.log10(max(int8, np.finfo(np.float64).tiny))

    def _too_dear(self, at: int, sqnr_db: Mapping[int, float]) -> str:
        share, moved = self._share(self.steps[at]), self._moved(self.steps[at])
        before, after = sqnr_db[0], sqnr_db[at]
        return (
            f"{share:.1%} of the MACs and {moved:.1%} of the values in float bring {before:.1f} dB to {after:.1f}; "
            f"no layer is much worse than the others, so none stays float for that; sqnr={ENOUGH:g} asks for it"
        )

    def goals(self) -> list[_Goal]:
        """The SQNR, and the budget where there is one."""
        asked = self.options.sqnr
        enough, price, wish = (ENOUGH, WORTH, "would be enough") if asked is None else (asked, 0.0, "were asked for")
        wanted = f"{{:.1f}} dB is the best found; {enough:g} dB {wish}"
        goals = [_Goal("sqnr_db", self.quality, enough, 1, wanted, price)]
        if self.context.has(Judge):
            judge = self.context.get(Judge)
            lost = f"a drop of {{:.4f}} is the least found; {judge.allowed:.4f} is allowed"
            goals.append(
                _Goal(
                    "drop",
                    lambda names: judge.drop(self.corrected(names)),
                    judge.tolerated,
                    -1,
                    lost,
                )
            )
        return goals

    def quality(self, names: Sequence[str]) -> float:
        """SQNR of the quantized graph with some nodes kept float, as its target's arithmetic defines it."""
        session = OrtSession(self.trial(names).to_proto(), threads=cores())
        return self.wanted.worst_sqnr_db(session.run)

    def trial(self, names: Sequence[str]) -> Graph:
        """The graph quantized with some nodes kept float."""
        return quantized(self.graph, self.context, names)

    def corrected(self, names: Sequence[str]) -> Graph:
        """The same as `recover` will leave it at least: its quickest step alone, which others are added to."""
        trial = self.trial(names)
        if self.options.recover != "off" and self.context.fit is not None and not came_quantized(self.context):
            feeds = [s.feeds for s in self.context.fit.take(CORRECTED_ON)]
            bias = Choices(bias=True)
            recover(trial, self.graph.copy(), self.context.target, feeds, bias, threads=cores())
        return trial

    @cached_property
    def steps(self) -> list[tuple[str, ...]]:
        """What to keep float after no, one, two, … quantizers were taken out, within `most`."""
        if not self.options.most:
            return [()]
        placement = plan(self.graph, self.context.target, self.context.get(Shapes))
        noise = self._alone(placement)
        around = {g: self._around(placement, g) for g in placement.groups}
        gain = {g: noise[g] / (self._share(names) + self._moved(names) + BESIDES) for g, names in around.items()}
        steps: list[tuple[str, ...]] = [()]
        names: list[str] = []
        for group in sorted(gain, key=lambda g: (-gain[g], g)):
            added = [n for n in around[group] if n not in names]
            if added and self._share([*names, *added]) <= self.options.most:
                names += added
                steps.append(tuple(names))
        return steps

    def _alone(self, placement: Placement) -> Mapping[str, float]:
        """Noise of the outputs with one quantizer alone; `calibrate` may have heard each already."""
        if self.context.has(Alone) and self.context.get(Alone).holds(placement.groups, self.table):
            return self.context.get(Alone).noise
        board = Switchboard(self.graph, self.context.target, placement, self.table, threads=cores())
        return board.alone(self.wanted, self.table, RANKED_ON)

    def _moved(self, names: Sequence[str]) -> float:
        """Of the values that all weighted layers read and write, those of some nodes."""
        return sum(self._traffic.get(n, 0) for n in names) / max(sum(self._traffic.values()), 1)

    @cached_property
    def _traffic(self) -> dict[str, int]:
        """Bytes that each weighted layer reads and writes, by its first output."""
        shapes = self.context.get(RunShapes)
        ends = {n.outputs[0].name: n.inputs[0].name for n in self.graph.nodes_of(*FEATURE_OPS)}
        return {output: shapes.nbytes(read) + shapes.nbytes(output) for output, read in ends.items()}

    def _share(self, names: Sequence[str]) -> float:
        """Of the model's MACs, that of some nodes."""
        cost = self.context.get(Cost)
        return sum(cost.macs.get(n, 0) for n in names) / max(cost.total_macs, 1)

    def _around(self, placement: Placement, group: str) -> list[str]:
        """First outputs of the int8 nodes that write or read a tensor of the group."""
        members = placement.groups[group]
        nodes = [n for n in self.graph.nodes if id(n) in placement.consumers]
        return [n.outputs[0].name for n in nodes if any(t.name in members for t in [*n.inputs, *n.outputs])]

    def _first(self, goal: _Goal, low: int, values: dict[int, float]) -> int:
        """The first step from `low` on that is good enough (by doubling, then halving), or else the best one tried.

        Args:
            goal: What is good enough.
            low: The step to begin with.
            values: Receives the value of each step tried.
        """

        def good(at: int) -> bool:
            values[at] = goal.measure(self.steps[at] if at else ())
            return goal.reached(values[at])

        if good(low):
            return low
        high, size = low, 1
        while high < len(self.steps) - 1:
            high, size = min(high + size, len(self.steps) - 1), size * 2
            if good(high):
                break
            low = high
        else:
            return max(values, key=lambda at: (goal.sign * values[at], -at))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if good(middle) else (middle, high)
        return high
