"""Remove the least important channels, and with them everything that depends on them.

1. `ChannelGroups` finds which channels stand and fall together; an operator it does not understand fixes them.
2. Channels of a group are ranked (`criterion`): by their weights, by the energy they bring into the layers that read
   them, or by what is lost when they go and the others make up for them.
3. How many of each group stay: `ratio` removes one share of every group. `macs`, `params` and `size` say what may
   remain of the whole model, `latency` how long it may take on the target, which is timed: the damage of cutting each
   group is measured on held-out samples, and channels go where they save most for the least. Without any of them, as
   many go as the outputs on held-out samples bear, and with `--max-drop` as half of that budget bears. Made-up samples
   say nothing of damage: there every group loses about the same share.
   Counts are rounded to multiples of `align` channels; blocks of grouped convolutions are never broken.
4. Weights, biases, constants, group counts, Split sizes, Slice bounds and shape constants are cut.
5. Layers that have lost inputs are refitted (`compensation`, see `analysis.compensation`), which stays if held-out
   samples speak for it.

The kept places are written into the model's metadata (key `onnxopt.prune`), and in full into the report.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import numpy as np

from onnxopt import Context, Graph, Pass, UsageError, option
from onnxopt.analysis.channels import ChannelGroups, Group, Policy, cut, masked, provenance
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.scoring import score_groups
from onnxopt.analysis.channels.selection import allowed_counts, nearest_count
from onnxopt.analysis.compensation import Costs, Samples, Study, allocate, mac_costs, size_costs
from onnxopt.analysis.compensation.allocation import Curve, total_damage
from onnxopt.analysis.compensation.fast_enough import LatencyBudget, most_that_may_stay
from onnxopt.analysis.compensation.sensitivity import REMOVED
from onnxopt.analysis.compensation.study import RANKING
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import RunShapes
from onnxopt.data import Dataset
from onnxopt.evaluation.budget import Judge
from onnxopt.placement.retarget import is_pair
from onnxopt.runtime.adapter import Runtime, load_runtime

KEY = "onnxopt.prune"
WIDEST_BLOCK = 16  # a multiple of what any CPU kernel likes, for a target that does not say
PROTOBUF_LIMIT = 2 << 30
BUDGETS = ("ratio", "macs", "params", "size", "latency")
TOLERATED = 0.01  # damage that outputs bear where no budget is given: 20 dB of SQNR, or 0.01 nat of divergence
LEAST = 0.3  # of the MACs that remain where no budget is given
HALVINGS = 6
SPENT = 0.5  # of the accuracy budget; passes behind this one need some, too
HOPED = 3.0  # times TOLERATED, that a budget may allow
TRIES = 4  # at keeping to a budget, each bearing a third of the damage of the one before

Choice = dict[str, list[int]]


class WideGroups(ChannelGroups):
    """Groups of a graph whose normalisations may lose channels."""

    policy = Policy(normalized_width=True)


class Prune(Pass):
    """Remove channels of Conv, Gemm and MatMul together with everything that depends on them.

    When to use it: before quantization, where a smaller model is worth some accuracy. With data, the layers that lose
    inputs are refitted, and channels go where that costs least; without, small ratios can cost much already. Look at
    the measured damage.

    Example (`ratio=0.5, align=1`):
        before: `a = Conv (x, w1)` with `float[8,3,3,3] w1`, `b = Relu (a)`, `y = Conv (b, w2)` with `float[4,8,1,1] w2`
        after:  the same nodes with `float[4,3,3,3] w1` and `float[4,4,1,1] w2`

    Effect: lossy. Without compensation the outputs are exactly those of the original with the removed channels
    multiplied by 0 wherever a node sums over them.
    """

    name = "prune"
    effect = "lossy"
    needs_data = True

    ratio: float | None = option(default=None, help="Share of channels to remove from each group.", low=0, high=1)
    macs: float | None = option(
        default=None, help="Share of the multiply-accumulates that may remain, of the whole model.", low=0, high=1
    )
    params: float | None = option(default=None, help="Share of the parameters that may remain.", low=0, high=1)
    size: float | None = option(default=None, help="Share of the bytes of weights that may remain.", low=0, high=1)
    latency: float | str | None = option(
        default=None, help="What the model may take on the target: `4.2ms`, or `0.8` of what it takes now."
    )
    criterion: str | None = option(
        default=None,
        help="How channels are ranked; none: by reconstruction where there is data, else by l2.",
        choices=("l1", "l2", "random", *RANKING),
    )
    compensation: bool | None = option(
        default=None, help="Refit layers that lose inputs; none: where there is data, and if it helps."
    )
    align: int | None = option(
        default=None, help="Kept channel counts are multiples of this; none: what the target likes.", low=1
    )
    normalized_width: bool = option(
        default=False, help="Let channels go that a normalisation takes its statistics over, too; they change with it."
    )
    scope: tuple[str, ...] = option(default=(), help="Prune only groups made by nodes that match one of these names.")
    ignore: tuple[str, ...] = option(
        default=(), help="Leave groups alone that a node matching one of these belongs to."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Choose and cut.

        Raises:
            UsageError: Several budgets are given, a pattern matches nothing, or samples are needed and there are none.
        """
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"prune: give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
        align = self.align or context.target.alignment or WIDEST_BLOCK
        context.resolve(align=align)
        found = context.get(self._analysis)
        groups = self._in_scope(found, context)
        if not found.groups and any(is_pair(n) for n in graph.walk()):
            context.note(graph.source, "its weights are 8-bit codes, which are not pruned; run strip-qdq before")
        elif not found.groups:
            context.note(graph.source, "has no Conv, Gemm or MatMul with channels to remove")
        limit = LatencyBudget.parse(str(self.latency)) if self.latency is not None else None
        budget = (given[0], float(getattr(self, given[0]))) if given and limit is None else None
        if not groups or _asks_nothing(budget, limit):
            return False
        work = _Work(graph, context, found, groups, self._ways(context))
        choice = work.choose(budget, limit, align)
        self._explain(groups, choice, align, context)
        if not choice:
            return False
        work.cut(choice)
        return True

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        """The original with masks in place of the cut, read back from the metadata of `after`; None if refitted."""
        runs = json.loads(after.metadata.get(KEY, "[]"))
        if len(runs) == len(json.loads(before.metadata.get(KEY, "[]"))) or runs[-1]["study"]:
            return None
        found = self._analysis.of(before)
        sizes = {g.name: g.size for g in found.groups}
        choice = {name: _places(text, sizes[name]) for name, text in runs[-1]["kept"].items()}
        return masked(before, found.relations, found.kept(choice))

    @property
    def _analysis(self) -> type[ChannelGroups]:
        return WideGroups if self.normalized_width else ChannelGroups

    def _ways(self, context: Context) -> "_Ways":
        """How channels are ranked, and whether layers are refitted."""
        real = context.fit is not None and context.holdout is not None and not context.synthetic
        why = context.cannot_run or ("" if context.fit is not None else "there are no samples")
        compensate = self.compensation if self.compensation is not None else real and not why
        criterion = self.criterion or ("reconstruction" if compensate else "l2")
        if why and (compensate or criterion in RANKING):
            what = "compensation=true" if compensate else f"criterion={criterion}"
            raise UsageError(f"prune: {what} has to run the model on samples: {why}")
        context.resolve(criterion=criterion, compensation=compensate)
        return _Ways(criterion, compensate, why)

    def _in_scope(self, found: ChannelGroups, context: Context) -> list[Group]:
        """Free groups that may be pruned; says for every other one why not."""
        names = sorted({m.node for g in found.groups for m in g.members})
        for pattern in (*self.scope, *self.ignore):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(
                    f"prune: '{pattern}' matches the name of no node with channels; names look like {names[:3]}"
                )
        chosen = []
        for group in found.groups:
            makers = [m.node for m in group.members if m.role == "out"]
            if group.fixed is not None:
                context.note(group.name, f"{group.channels} channels are fixed: {group.fixed}")
            elif self.scope and not _match(makers, self.scope):
                context.note(group.name, "outside scope")
            elif _match([m.node for m in group.members], self.ignore):
                context.note(group.name, "ignored on request")
            else:
                chosen.append(group)
        return chosen

    def _explain(self, groups: Sequence[Group], choice: Choice, align: int, context: Context) -> None:
        """Note why a group that might have been cut was not."""
        for group in groups:
            if group.name in choice:
                continue
            if len(allowed_counts(group, align)) == 1:
                block = group.step(align) * group.channels // group.size
                context.note(group.name, f"{group.channels} channels are no more than one block of {block}")
            elif self.ratio:
                context.note(group.name, f"rounded to multiples of {align}, all {group.channels} channels stay")
            else:
                context.note(group.name, f"its {group.channels} channels are worth more than what they cost")


def _asks_nothing(budget: tuple[str, float] | None, limit: LatencyBudget | None) -> bool:
    """Whether a budget lets the whole model stay."""
    if limit is not None:
        return not limit.absolute and limit.value == 1
    return budget is not None and budget[1] == (0 if budget[0] == "ratio" else 1)


def _evenly(group: Group) -> Curve:
    """A damage for want of a measured one: as it grows with the square of the share, all groups lose about the same."""
    return {round(group.size * (1 - s)): group.macs * s**2 for s in np.linspace(0.1, 1, 10).tolist()}


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _places(text: str, size: int) -> list[int]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=size)
    return [int(i) for i in np.flatnonzero(bits)]


@dataclass(frozen=True)
class _Ways:
    """How channels are ranked, whether layers are refitted, and why nothing can be measured, if so."""

    criterion: str
    compensate: bool
    cannot_measure: str


class _Work:
    """Chooses and cuts."""

    def __init__(
        self, graph: Graph, context: Context, found: ChannelGroups, groups: Sequence[Group], ways: _Ways
    ) -> None:
        self._graph, self._context, self._found, self._groups, self._ways = graph, context, found, groups, ways
        self._cost = context.get(Cost)
        self._study: Study | None = None

    def choose(self, budget: tuple[str, float] | None, limit: LatencyBudget | None, align: int) -> Choice:
        """Places that stay, for each group that loses some."""
        if limit is not None:
            self._clock()  # what cannot be timed is refused before anything takes long
        orders = self._orders()
        blind = bool(self._ways.cannot_measure) or self._context.synthetic
        even = (budget is not None and budget[0] == "ratio") or ((budget or limit) is not None and blind)
        if not even or self._ways.compensate or self._ways.criterion in RANKING:
            found = self._open().measure(orders, () if even else REMOVED, criterion=self._ways.criterion)
            orders = {name: s.order for name, s in found.items()}
        if even:
            damage = {g.name: _evenly(g) for g in self._groups}
        else:
            damage = {name: s.damage for name, s in found.items()}
            self._context.record.details["sensitivity"] = {n: s.to_dict()["damage"] for n, s in found.items()}
        counts_at = partial(self._counts, align, damage)
        if limit is not None:
            budget = ("macs", self._share_in_time(limit, lambda share: counts_at(("macs", share))))
        counts = counts_at(budget) if budget is not None else self._bearable(align, damage, orders)
        if budget is not None and limit is None:
            self._tell(counts, *budget)
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

    def _share_in_time(self, limit: LatencyBudget, counts_at: Callable[[float], Mapping[str, int]]) -> float:
        """The share of the MACs at which the target is fast enough; it stands in the resolved recipe."""
        context, (runtime, samples) = self._context, self._clock()
        any_order = {g.name: np.arange(g.size) for g in self._groups}

        def cut_to(share: float) -> Graph:
            trial = self._graph.copy()
            cut(trial, self._found.relations, self._found.kept(self._places(counts_at(share), any_order)))
            return trial

        feeds = next(iter(samples.take(1))).feeds
        share, measured = most_that_may_stay(limit, self._graph, cut_to, runtime, feeds)
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

    def _open(self) -> Study:
        context = self._context
        if self._ways.cannot_measure or context.fit is None or context.holdout is None:
            why = self._ways.cannot_measure or "there are no samples"
            raise UsageError(f"prune without a budget has to run the model on samples: {why}; give ratio or macs")
        if self._graph.nbytes() > PROTOBUF_LIMIT:
            raise UsageError("prune cannot try cuts on a model over 2 GB: give ratio, and compensation=false")
        if self._study is None:
            samples = Samples(context.fit, context.holdout, context.get(RunShapes).nbytes, self._cost.total_macs)
            names = [g.name for g in self._groups]
            self._study = Study(
                self._graph, type(self._found).of, samples, names, compensate=self._ways.compensate, threads=_threads()
            )
        return self._study

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

    def _bearable(self, align: int, curves: Mapping[str, Curve], orders: Mapping[str, IntArray]) -> dict[str, int]:
        """Counts at which as much has gone as outputs bear."""
        costs, judge = self._costs("macs"), self._context.get(Judge) if self._context.has(Judge) else None
        for attempt in range(TRIES):
            tolerated = TOLERATED if judge is None else HOPED * TOLERATED / 3**attempt
            low, high = LEAST, 1.0
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                counts = allocate(self._groups, curves, costs, middle * costs.total, align)
                bearable = total_damage(self._groups, curves, counts) <= tolerated
                low, high = (low, middle) if bearable else (middle, high)
            counts = allocate(self._groups, curves, costs, high * costs.total, align)
            trial = self._graph.copy()
            if judge is None or self._spares(judge, trial, self._places(counts, orders)):
                self._context.resolve(macs=high)
                return counts
        self._context.note(self._graph.source, "every cut tried costs more than half of the accuracy budget")
        return {g.name: g.size for g in self._groups}

    def _spares(self, judge: Judge, trial: Graph, choice: Choice) -> bool:
        """Whether a cut leaves enough of the accuracy budget to the passes behind."""
        if choice:
            self._open().apply(trial, choice)
        return judge.drop(trial) <= SPENT * judge.allowed

    def _tell(self, counts: Mapping[str, int], kind: str, share: float) -> None:
        """Note that a budget cannot be met."""
        if kind == "ratio":
            return
        costs = self._costs(kind)
        left = np.asarray([[counts[g.name] / g.size for g in self._groups]])
        reached = float(costs.of(left)[0]) / costs.total
        if reached > share:
            self._context.note(self._graph.source, f"the least that can remain is {reached:.3f}, not {share:g}")

    def cut(self, choice: Choice) -> None:
        """Cut the graph, and say what was done."""
        context, graph = self._context, self._graph
        context.record.details["provenance"] = provenance(self._found.relations, self._found.kept(choice))
        turned: set[str] = set()
        if self._study is None:
            cut(graph, self._found.relations, self._found.kept(choice))
        else:
            outcome = self._study.apply(graph, choice)
            turned = set(self._study.turned) & set(choice)
            context.record.details["damage"] = {"plain": outcome.before, "kept": outcome.after}
            if outcome.refitted:
                context.count("layers refitted", outcome.refitted)
            elif self._ways.compensate:
                context.note(graph.source, "the refit was taken back: it did not help on held-out samples")
        _record(graph, self._groups, choice, turned, context, study=self._study is not None and self._ways.compensate)


def _threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _record(
    graph: Graph, groups: Sequence[Group], choice: Choice, turned: Collection[str], context: Context, *, study: bool
) -> None:
    """Write what was kept into the report and the model's metadata."""
    by_name = {g.name: g for g in groups}
    packed = {}
    for name, places in choice.items():
        bits = np.zeros(by_name[name].size, np.uint8)
        bits[places] = 1
        packed[name] = np.packbits(bits).tobytes().hex()
        share = 1 - len(places) / by_name[name].size
        context.count("channels removed", round(by_name[name].channels * share))
    runs = [*json.loads(graph.metadata.get(KEY, "[]")), {"kept": packed, "study": study}]
    graph.set_metadata(KEY, json.dumps(runs, separators=(",", ":")))
    context.count("groups cut", len(choice))
    context.record.details["groups"] = [
        {
            "name": name,
            "channels": by_name[name].channels,
            "unit": by_name[name].unit,
            "kept": places,
            "other_basis": name in turned,
            "members": [[m.node, m.role, m.input, m.axis] for m in by_name[name].members],
        }
        for name, places in choice.items()
    ]
