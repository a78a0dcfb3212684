"""Which channels stay: the steps from a budget to a choice.

1. Groups are ranked, and the damage of cutting each is measured where samples allow.
2. A budget is spent where it costs least (`allocation`); a limit in milliseconds becomes one in MACs by timing cuts
   (`fast_enough`); without a budget as much goes as outputs bear, or half of the run's accuracy budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, Group, cut
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.scoring import score_groups
from onnxopt.analysis.channels.selection import nearest_count
from onnxopt.analysis.compensation.allocation import Curve, allocate, total_damage
from onnxopt.analysis.compensation.costs import Costs, mac_costs, size_costs
from onnxopt.analysis.compensation.fast_enough import LatencyBudget, most_that_may_stay
from onnxopt.analysis.compensation.sensitivity import REMOVED, Sensitivity
from onnxopt.analysis.compensation.sharing import Studies
from onnxopt.analysis.compensation.study import RANKING, Samples, Study
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import RunShapes
from onnxopt.data import Dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Judge
from onnxopt.graph import Graph
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.pass_api import Context
from onnxopt.runtime.adapter import Runtime, load_runtime

UNITS = {"macs": "MACs", "params": "parameters", "size": "bytes of weights"}
TOLERATED = 0.01  # damage that outputs bear where no budget is given: 20 dB of SQNR, or 0.01 nat of divergence
LEAST = 0.3  # of the MACs that remain where no budget is given
HALVINGS = 6
SPENT = 0.5  # of the accuracy budget; passes behind this one need some, too
HOPED = 3.0  # times TOLERATED, that a budget may allow
TRIES = 4  # at keeping to a budget, each bearing a third of the damage of the one before

Choice = dict[str, list[int]]


@dataclass(frozen=True)
class Ways:
    """How channels are chosen.

    Attributes:
        criterion: How they are ranked: l1, l2, random, activation or reconstruction.
        compensate: Whether layers are refitted.
        cannot_measure: Why nothing can be measured on samples; empty where it can.
    """

    criterion: str
    compensate: bool
    cannot_measure: str

    @property
    def ranks(self) -> bool:
        """Whether ranking takes samples."""
        return self.criterion in RANKING


class Chooser:
    """Chooses which channels of a model stay.

    Args:
        graph: The model; it is not changed.
        context: Has samples, target and budgets; decisions and measurements are written into its record.
        found: The groups of the model.
        groups: Those that may be cut.
        ways: How.

    Attributes:
        study: What was measured on samples; None where nothing was.
    """

    def __init__(
        self, graph: Graph, context: Context, found: ChannelGroups, groups: Sequence[Group], ways: Ways
    ) -> None:
        self._graph, self._context, self._found, self._groups, self._ways = graph, context, found, groups, ways
        self._cost = context.get(Cost)
        self._studies = context.get(Studies) if context.has(Studies) else Studies()
        self.study: Study | None = None

    def choose(self, budget: tuple[str, float] | None, limit: LatencyBudget | None, align: int) -> Choice:
        """Places that stay, for each group that loses some.

        Args:
            budget: One of ratio, macs, params and size, and the share that goes (ratio) or may stay (the others).
            limit: Or what the target may take.
            align: Counts that stay are multiples of it.

        Raises:
            UsageError: Samples or the target are needed, and not to be had.
        """
        if limit is not None:
            self._clock()  # what cannot be timed is refused before anything takes long
        orders = self._orders()
        blind = bool(self._ways.cannot_measure) or self._context.synthetic
        even = (budget is not None and budget[0] == "ratio") or ((budget or limit) is not None and blind)
        if not even or self._ways.compensate or self._ways.ranks:
            found = self._measured(orders, () if even else REMOVED)
            orders = {name: s.order for name, s in found.items()}
        # Where to cut is settled as the resolved recipe, which has a budget, will settle it.
        spent_on = damage = {g.name: _evenly(g) for g in self._groups}
        if not even:
            damage = {name: s.damage for name, s in found.items()}
            spent_on = spent_on if blind else damage
            self._context.record.details["sensitivity"] = {n: s.to_dict()["damage"] for n, s in found.items()}
            self._context.record.details["sizes"] = {g.name: g.size for g in self._groups}
        counts_at = partial(self._counts, align, spent_on)
        if limit is not None:
            budget = ("macs", self._share_in_time(limit, lambda share: counts_at(("macs", share)), align))
        counts = counts_at(budget) if budget is not None else self._bearable(align, spent_on, damage, orders)
        if budget is not None and limit is None:
            self._tell(counts, *budget, align)
        return self._places(counts, orders)

    def _places(self, counts: Mapping[str, int], orders: Mapping[str, IntArray]) -> Choice:
        return {
            g.name: sorted(orders[g.name][g.size - counts[g.name] :].tolist())
            for g in self._groups
            if counts[g.name] < g.size
        }

    def _clock(self) -> tuple[Runtime, Dataset]:
        """The target's runtime, and what to time it on."""
        runtime, samples = load_runtime(self._context.target), self._context.holdout or self._context.fit
        if runtime is None:
            raise UsageError(f"prune: latency is measured, and {self._context.target.name} cannot run here; give macs")
        if samples is None:
            raise UsageError("prune: latency is measured on samples, and there are none; give macs")
        return runtime, samples

    def _share_in_time(
        self, limit: LatencyBudget, counts_at: Callable[[float], Mapping[str, int]], align: int
    ) -> float:
        """The share of the MACs at which the target is fast enough; it stands in the resolved recipe."""
        context, (runtime, samples) = self._context, self._clock()
        any_order = {g.name: np.arange(g.size) for g in self._groups}

        def cut_to(share: float) -> tuple[Graph, float]:
            trial, counts = self._graph.copy(), counts_at(share)
            cut(trial, self._found.relations, self._found.kept(self._places(counts, any_order)))
            return trial, self._left(counts, "macs")

        feeds = next(iter(samples.take(1))).feeds
        share, measured = most_that_may_stay(limit, self._graph, cut_to, runtime, feeds)
        if share is None:
            raise UsageError(f"prune cannot reach {limit}: {measured[-1]}{_finer(align)}")
        context.resolve(latency=None, macs=share)
        context.record.details["latency"] = measured
        return share

    def _orders(self) -> dict[str, IntArray]:
        """Places of each group by their weights, the weakest first."""
        if self._ways.criterion == "random":
            generator = np.random.default_rng(self._context.seed)
            return {g.name: generator.permutation(g.size) for g in self._groups}
        norm = self._ways.criterion if self._ways.criterion in {"l1", "l2"} else "l2"
        scores = score_groups(self._graph, self._found, norm)
        # Of equal scores the first stay.
        return {g.name: np.argsort(-scores[g.name], kind="stable")[::-1] for g in self._groups}

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What tells the study from those of other models, samples and scopes."""
        return {
            "graph": self._graph.digest(),
            "samples": [s.digest() for s in (self._context.fit, self._context.holdout) if s is not None],
            "analysis": type(self._found).__name__,
            "groups": [g.name for g in self._groups],
            "compensate": self._ways.compensate,
            "rank": self._ways.ranks,
        }

    def _open(self) -> Study:
        context = self._context
        if self._ways.cannot_measure or context.fit is None or context.holdout is None:
            why = self._ways.cannot_measure or "there are no samples"
            raise UsageError(f"prune without a budget has to run the model on samples: {why}; give ratio or macs")
        if self._graph.nbytes() > PROTOBUF_LIMIT:
            raise UsageError("prune cannot try cuts on a model over 2 GB: give ratio, and compensation=false")
        if self.study is None:
            samples = Samples(context.fit, context.holdout, context.get(RunShapes).nbytes, self._cost.total_macs)
            names = [g.name for g in self._groups]
            self.study = self._studies.study(
                self._about,
                lambda: Study(
                    self._graph,
                    type(self._found).of,
                    samples,
                    names,
                    compensate=self._ways.compensate,
                    rank=self._ways.ranks,
                ),
            )
        return self.study

    def _measured(self, orders: Mapping[str, IntArray], removed: Sequence[float]) -> dict[str, Sensitivity]:
        study, criterion = self._open(), self._ways.criterion
        about = {**self._about, "criterion": criterion, "removed": removed, "seed": self._context.seed}
        return self._studies.measured(about, lambda: study.measure(orders, removed, criterion=criterion))

    def _costs(self, kind: str) -> Costs:
        if kind == "macs":
            return mac_costs(self._found, self._groups, self._cost.macs)
        return size_costs(self._found, self._groups, as_bytes=kind == "size")

    def _counts(self, align: int, curves: Mapping[str, Curve], budget: tuple[str, float]) -> dict[str, int]:
        """Counts that stay: the share given of every group, or what meets a budget at the least damage."""
        kind, share = budget
        if kind == "ratio":
            return {g.name: nearest_count(g, g.size * (1 - share), align) for g in self._groups}
        costs = self._costs(kind)
        return allocate(self._groups, curves, costs, share * costs.total, align)

    def _bearable(
        self, align: int, spent_on: Mapping[str, Curve], damage: Mapping[str, Curve], orders: Mapping[str, IntArray]
    ) -> dict[str, int]:
        """Counts at which as much has gone as outputs bear, cut where `spent_on` says."""
        costs, judge = self._costs("macs"), self._context.get(Judge) if self._context.has(Judge) else None
        for attempt in range(TRIES):
            tolerated = TOLERATED if judge is None else HOPED * TOLERATED / 3**attempt
            low, high = LEAST, 1.0
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                counts = allocate(self._groups, spent_on, costs, middle * costs.total, align)
                bearable = total_damage(self._groups, damage, counts) <= tolerated
                low, high = (low, middle) if bearable else (middle, high)
            counts = allocate(self._groups, spent_on, costs, high * costs.total, align)
            trial = self._graph.copy()
            if judge is None or self._spares(judge, trial, self._places(counts, orders)):
                self._context.resolve(macs=high)
                return counts
        self._context.note(self._graph.source, "every cut tried costs more than half of the accuracy budget")
        self._context.resolve(macs=1.0)
        return {g.name: g.size for g in self._groups}

    def _spares(self, judge: Judge, trial: Graph, choice: Choice) -> bool:
        """Whether a cut leaves enough of the accuracy budget to the passes behind."""
        if choice:
            self._open().apply(trial, choice)
        return judge.drop(trial) <= SPENT * judge.allowed

    def _left(self, counts: Mapping[str, int], kind: str) -> float:
        """The share of something that remains at these counts."""
        costs = self._costs(kind)
        left = np.asarray([[counts[g.name] / g.size for g in self._groups]])
        return float(costs.of(left)[0]) / costs.total

    def _tell(self, counts: Mapping[str, int], kind: str, share: float, align: int) -> None:
        """Note that a budget cannot be met."""
        reached = self._left(counts, kind) if kind != "ratio" else 0.0
        if reached > share:
            least = f"the least that can remain is {reached:.3f} of the {UNITS[kind]}, not {share:g}{_finer(align)}"
            self._context.note(self._graph.source, least)


def _finer(align: int) -> str:
    """What else there is to try where no more can go."""
    return f", in blocks of {align}; align=1 cuts finer" if align > 1 else ""


def _evenly(group: Group) -> Curve:
    """A damage for want of a measured one: as it grows with the square of the share, all groups lose about the same."""
    return {round(group.size * (1 - s)): group.macs * s**2 for s in np.linspace(0.1, 1, 10).tolist()}
