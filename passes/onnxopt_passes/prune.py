"""Remove the least important channels, and with them everything that depends on them.

1. `ChannelGroups` finds which channels stand and fall together; an operator it does not understand fixes them.
2. Every channel of a free group gets a score from its weights (`criterion`).
3. How many of a group stay: `ratio` says which share goes; or `threshold` says up to which score they go; or, with
   neither, the highest threshold is sought at which the outputs on held-out samples keep an SQNR of 20 dB.
   Counts are rounded to multiples of `align` channels; blocks of grouped convolutions are never broken.
4. Weights, biases, constants, group counts, Split sizes, Slice bounds and shape constants are cut.

The kept places are written into the model's metadata (key `onnxopt.prune`), from which `reference` masks the
original, and in full into the report.
"""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from onnxopt import Context, Graph, Pass, UsageError, option
from onnxopt.analysis.channels import ChannelGroups, Group, cut, masked
from onnxopt.analysis.channels.scoring import FloatArray, score_groups
from onnxopt.analysis.channels.selection import (
    allowed_counts,
    best,
    count_above,
    nearest_count,
    step_thresholds,
)
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.evaluation.parts import output_parts
from onnxopt.graph import Array
from onnxopt.placement.retarget import is_pair
from onnxopt.runtime.ort import OrtSession

KEY = "onnxopt.prune"
SQNR_DB = 20.0
SAMPLES = 4
TRIALS = 12
WIDEST_BLOCK = 16  # a multiple of what any CPU kernel likes, for a target that does not say
PROTOBUF_LIMIT = 2 << 30

Choice = dict[str, list[int]]


class Prune(Pass):
    """Remove output channels of Conv, Gemm and MatMul together with everything that depends on them.

    When to use it: before quantization, where a smaller model is worth some accuracy. Weights are not refitted, so
    even small ratios can cost much: look at the measured damage. Without `ratio` it removes only as much as keeps
    the outputs on held-out samples at an SQNR of 20 dB, which may be nothing.

    Example (`ratio=0.5, align=1`):
        before: `a = Conv (x, w1)` with `float[8,3,3,3] w1`, `b = Relu (a)`, `y = Conv (b, w2)` with `float[4,8,1,1] w2`
        after:  the same nodes with `float[4,3,3,3] w1` and `float[4,4,1,1] w2`

    Effect: lossy. The outputs are exactly those of the original with the removed channels multiplied by 0 wherever a
    node sums over them.
    """

    name = "prune"
    effect = "lossy"
    needs_data = True

    ratio: float | None = option(
        default=None, help="Share of channels to remove from each group; none: as many as 20 dB allow.", low=0, high=1
    )
    threshold: float | None = option(
        default=None, help="Instead of a ratio: remove channels that score lower; 1 is the mean of a group.", low=0
    )
    criterion: str = option(default="l2", help="Norm of the weights that scores a channel.", choices=("l1", "l2"))
    align: int | None = option(
        default=None, help="Kept channel counts are multiples of this; none: what the target likes.", low=1
    )
    scope: tuple[str, ...] = option(default=(), help="Prune only groups made by nodes that match one of these names.")
    ignore: tuple[str, ...] = option(
        default=(), help="Leave groups alone that a node matching one of these belongs to."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Choose and cut.

        Raises:
            UsageError: Ratio and threshold are both given, a pattern matches nothing, or samples are needed and
                there are none.
        """
        if self.ratio is not None and self.threshold is not None:
            raise UsageError("prune: give ratio or threshold, not both")
        align = self.align or context.target.alignment or WIDEST_BLOCK
        context.resolve(align=align)
        found = context.get(ChannelGroups)
        groups = self._in_scope(found, context)
        if not found.groups and any(is_pair(n) for n in graph.walk()):
            context.note(graph.source, "its weights are 8-bit codes, which are not pruned; run strip-qdq before")
        scores = {n: s for n, s in score_groups(graph, found, self.criterion).items() if n in {g.name for g in groups}}
        if self.ratio is not None:
            counts = {g.name: nearest_count(g, g.size * (1 - self.ratio), align) for g in groups}
            choice = best(scores, counts)
        else:
            threshold = self.threshold
            if threshold is None:
                threshold = _highest_threshold(graph, context, groups, scores, align)
                context.resolve(threshold=threshold)
            choice = _above(groups, scores, threshold, align)
        self._explain(groups, choice, align, context)
        if not choice:
            return False
        cut(graph, found.relations, found.kept(choice))
        _record(graph, found, choice, context)
        return True

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        """The original with masks in place of the cut, read back from the metadata of `after`."""
        runs = json.loads(after.metadata.get(KEY, "[]"))
        if len(runs) == len(json.loads(before.metadata.get(KEY, "[]"))):
            return None
        found = ChannelGroups.of(before)
        sizes = {g.name: g.size for g in found.groups}
        choice = {name: _places(text, sizes[name]) for name, text in runs[-1].items()}
        return masked(before, found.relations, found.kept(choice))

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
            elif self.ratio is None:
                context.note(group.name, f"no block of its {group.channels} channels scores low enough")


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _above(groups: Sequence[Group], scores: Mapping[str, FloatArray], threshold: float, align: int) -> Choice:
    counts = {g.name: count_above(g, scores[g.name], threshold, align) for g in groups}
    return best(scores, counts)


def _places(text: str, size: int) -> list[int]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=size)
    return [int(i) for i in np.flatnonzero(bits)]


def _record(graph: Graph, found: ChannelGroups, choice: Choice, context: Context) -> None:
    """Write what was kept into the report and the model's metadata."""
    groups = {g.name: g for g in found.groups}
    packed = {}
    for name, places in choice.items():
        bits = np.zeros(groups[name].size, np.uint8)
        bits[places] = 1
        packed[name] = np.packbits(bits).tobytes().hex()
        share = 1 - len(places) / groups[name].size
        context.count("channels removed", round(groups[name].channels * share))
    runs = [*json.loads(graph.metadata.get(KEY, "[]")), packed]
    graph.set_metadata(KEY, json.dumps(runs, separators=(",", ":")))
    context.count("groups cut", len(choice))
    context.record.details["groups"] = [
        {
            "name": name,
            "channels": groups[name].channels,
            "unit": groups[name].unit,
            "kept": places,
            "members": [[m.node, m.role, m.input, m.axis] for m in groups[name].members],
        }
        for name, places in choice.items()
    ]


def _highest_threshold(
    graph: Graph, context: Context, groups: Sequence[Group], scores: Mapping[str, FloatArray], align: int
) -> float:
    """Bisect over the thresholds that make a difference; 0 where no cut is good enough."""
    steps = step_thresholds(groups, scores, align)
    if not steps:
        return 0.0
    judge = _Judge(graph, context)
    good, bad, measured = -1, len(steps), {}
    for _ in range(TRIALS):
        if bad - good <= 1:
            break
        middle = (good + bad) // 2
        measured[repr(steps[middle])] = sqnr = judge.sqnr_db(_above(groups, scores, steps[middle], align))
        good, bad = (middle, bad) if sqnr >= SQNR_DB else (good, middle)
    context.record.details["search_db"] = measured
    return steps[good] if good >= 0 else 0.0


class _Judge:
    """Measures cuts on held-out samples against the graph as it is."""

    def __init__(self, graph: Graph, context: Context) -> None:
        data = context.holdout or context.fit
        if not data:
            if context.cannot_run:
                raise UsageError(f"prune without a ratio has to run the model: {context.cannot_run}; give a ratio")
            raise UsageError("prune without a ratio judges its cuts on samples: give data, or a ratio")
        if graph.nbytes() > PROTOBUF_LIMIT:
            raise UsageError("prune without a ratio cannot try cuts on a model over 2 GB: give a ratio")
        self._graph = graph
        self._found = context.get(ChannelGroups)
        self._samples = list(data.take(SAMPLES))
        self._wanted = self._outputs(graph)

    def sqnr_db(self, choice: Choice) -> float:
        """SQNR of the output that suffers most, in dB, to two places; boxes and scores count apart."""
        trial = self._graph.copy()
        cut(trial, self._found.relations, self._found.kept(choice))
        sums: dict[str, DistanceSums] = {}
        for wanted, got in zip(self._wanted, self._outputs(trial), strict=True):
            for name, value in wanted.items():
                sums.setdefault(name, DistanceSums()).update(value, got[name])
        return round(min((s.result().sqnr_db for s in sums.values()), default=-np.inf), 2)

    def _outputs(self, graph: Graph) -> list[dict[str, Array]]:
        session = OrtSession(graph.to_proto())
        metadata = graph.metadata
        return [output_parts(session.run(s.feeds), s.feeds, metadata) for s in self._samples]
