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
from collections.abc import Collection, Sequence

import numpy as np

from onnxopt import Context, Graph, Pass, UsageError, option
from onnxopt.analysis.channels import ChannelGroups, Group, Policy, cut, cut_weights, masked, provenance
from onnxopt.analysis.channels.selection import allowed_counts, block_of
from onnxopt.analysis.compensation import Choice, Chooser, LatencyBudget, Study, Ways
from onnxopt.analysis.compensation.study import RANKING
from onnxopt.analysis.scope import Scope
from onnxopt.placement.retarget import is_pair

KEY = "onnxopt.prune"
ENOUGH = 0.8  # of the share asked for; where less goes, the report says so
BUDGETS = ("ratio", "macs", "params", "size", "latency")


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
        align = block_of(self.align, context.target.alignment)
        context.resolve(align=align)
        found = context.get(self._analysis)
        groups = self._in_scope(found, context)
        if not found.groups and any(is_pair(n) for n in graph.walk()):
            context.note(graph.source, "its weights are 8-bit codes, which are not pruned; run strip-qdq before")
        elif not found.groups and _given_weights(graph):
            context.note(graph.source, "its weights are inputs, too, which a caller may set; export them as constants")
        elif not found.groups:
            context.note(graph.source, "has no Conv, Gemm or MatMul with channels to remove")
        limit = LatencyBudget.parse(str(self.latency)) if self.latency is not None else None
        budget = (given[0], float(getattr(self, given[0]))) if given and limit is None else None
        if not groups or _asks_nothing(budget, limit):
            return False
        chooser = Chooser(graph, context, found, groups, self._ways(context))
        choice = chooser.choose(budget, limit, align)
        self._explain(groups, choice, align, context)
        if not choice:
            return False
        _cut(graph, found, groups, choice, chooser.study, context)
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

    def _ways(self, context: Context) -> Ways:
        """How channels are ranked, and whether layers are refitted."""
        real = context.fit is not None and context.holdout is not None and not context.synthetic
        why = context.cannot_run or ("" if context.fit is not None else "there are no samples")
        compensate = self.compensation if self.compensation is not None else real and not why
        criterion = self.criterion or ("reconstruction" if compensate else "l2")
        if why and (compensate or criterion in RANKING):
            what = "compensation=true" if compensate else f"criterion={criterion}"
            raise UsageError(f"prune: {what} has to run the model on samples: {why}")
        context.resolve(criterion=criterion, compensation=compensate)
        return Ways(criterion, compensate, why)

    def _in_scope(self, found: ChannelGroups, context: Context) -> list[Group]:
        """Free groups that may be pruned; says for every other one why not."""
        scope = Scope(self.scope, self.ignore)
        scope.check(self.name, {m.node for g in found.groups for m in g.members}, "node with channels")
        chosen = []
        for group in found.groups:
            makers = [m.node for m in group.members if m.role == "out"]
            reason = scope.why_not(makers, [m.node for m in group.members])
            if group.fixed is not None:
                context.note(group.name, f"{group.channels} channels are fixed: {group.fixed}")
            elif reason:
                context.note(group.name, reason)
            else:
                chosen.append(group)
        return chosen

    def _explain(self, groups: Sequence[Group], choice: Choice, align: int, context: Context) -> None:
        """Note why a group that might have been cut was not, or much less than asked for."""
        for group in groups:
            if group.name in choice:
                share = 1 - len(choice[group.name]) / group.size
                if self.ratio and share < ENOUGH * self.ratio:
                    block = group.step(align) * group.channels // group.size
                    asked = f"{share:.0%} of its {group.channels} channels go, not {self.ratio:.0%}"
                    context.note(group.name, f"{asked}: they stay in blocks of {block}")
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


def _given_weights(graph: Graph) -> bool:
    """Whether layers read weights that are inputs with a default."""
    layers = graph.nodes_of("Conv", "ConvTranspose", "Gemm", "MatMul")
    return any(t.name in graph.overridable for node in layers for t in node.inputs[1:])


def _places(text: str, size: int) -> list[int]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=size)
    return [int(i) for i in np.flatnonzero(bits)]


def _cut(
    graph: Graph, found: ChannelGroups, groups: Sequence[Group], choice: Choice, study: Study | None, context: Context
) -> None:
    """Cut the graph, and say what was done."""
    compensate = bool(context.record.options["compensation"])
    context.record.details["provenance"] = provenance(found.relations, found.kept(choice))
    given = [(node, [t.name for t in node.inputs]) for node in graph.nodes]
    turned: set[str] = set()
    if study is None:
        cut(graph, found.relations, found.kept(choice))
    else:
        outcome = study.apply(graph, choice)
        turned = set(study.turned) & set(choice)
        context.record.details["damage"] = {"plain": outcome.before, "kept": outcome.after}
        if outcome.refitted:
            context.count("layers refitted", outcome.refitted)
        elif compensate:
            context.note(graph.source, "the refit was taken back: it did not help on held-out samples")
    context.record.details["weights"] = cut_weights(found.relations, found.kept(choice), given)
    _record(graph, groups, choice, turned, context, study=study is not None and compensate)


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
