"""Remove channels that carry nothing: those that nothing reads, that never change, or that are equal to another.

1. In every group of channels that stand and fall together (`ChannelGroups`), `analysis.compensation.redundancy` finds
   the places that can go: from weights alone, so that it holds for every input.
2. Values that never change go into the biases of what reads them; the weights that read equal channels are added. A
   value other than 0 stays where what reads it pads the picture with zeros.
3. The channels are cut. What a cut leaves behind may be redundant in turn, so it starts again until nothing is found.
"""

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.channels import ChannelGroups, cut
from onnxopt.analysis.channels.selection import allowed_counts, block_of
from onnxopt.analysis.compensation.redundancy import Leaving, Redundancy
from onnxopt.placement.retarget import is_pair


class EliminateChannels(Pass):
    """Remove channels that nothing reads, that are constant, or that are equal to another one.

    When to use it: before `prune`, on models that were trained to have such channels (network slimming, filters of
    zeros) or where BatchNormalization has switched some off. It costs no accuracy.

    Example (`align=1`), where the second of four filters in `w1` is 0 and the last one equal to the first:
        before: `a = Conv (x, w1, b1)` with `float[4,3,3,3] w1`, `b = Relu (a)`, `y = Conv (b, w2, b2)`
        after:  the same nodes with `float[2,3,3,3] w1`, and what the two gave in `w2` and `b2`

    Effect: rounding. Sums are the same but for their order.
    """

    name = "eliminate-channels"
    effect = "rounding"

    align: int | None = option(
        default=None, help="Kept channel counts are multiples of this; none: what the target likes.", low=1
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Find, fold and cut, until nothing is left to find."""
        if any(is_pair(n) for n in graph.walk()):
            context.note(graph.source, "its weights are 8-bit codes; run strip-qdq before")
            return False
        align = block_of(self.align, context.target.alignment)
        context.resolve(align=align)
        changed = False
        while self._once(graph, context, align):
            changed = True
        return changed

    def _once(self, graph: Graph, context: Context, align: int) -> bool:
        graph.sort()
        found = ChannelGroups.of(graph)
        redundancy = Redundancy(graph, found)
        chosen = _chosen(redundancy, align)
        if not chosen:
            for each in redundancy.groups:
                block = each.group.step(align) * each.group.channels // each.group.size
                context.note(
                    each.group.name, f"blocks of {block} stay whole; of channels, {len(each.places)} carry nothing"
                )
            return False
        if redundancy.give_biases(chosen):
            found = ChannelGroups.of(graph)
            redundancy = Redundancy(graph, found)
            chosen = _chosen(redundancy, align)
        redundancy.fold(chosen)
        kept = {e.group.name: sorted({*range(e.group.size)} - {*gone}) for e, gone in chosen}
        cut(graph, found.relations, found.kept(kept))
        for each, gone in chosen:
            width = each.group.channels // each.group.size
            for kind, places in (("unread", each.unread), ("constant", each.known), ("equal", each.twins)):
                count = len({*places} & {*gone})
                if count:
                    context.count(f"{kind} channels removed", count * width)
        return True


def _chosen(redundancy: Redundancy, align: int) -> list[Leaving]:
    """What goes: of each group as many places as leave whole blocks of channels."""
    chosen: list[Leaving] = []
    for each in redundancy.groups:
        wanted = max(1, each.group.size - len(each.places))
        count = next(c for c in allowed_counts(each.group, align) if c >= wanted)
        if count < each.group.size:
            chosen.append((each, each.places[: each.group.size - count]))
    return chosen
