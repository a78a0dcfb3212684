"""Remove residual blocks whose absence the outputs feel least, and let what is left make up for them.

1. A block is an Add of x and of something that is computed from x and has its shape; without it, y = x. Found from the
   graph: names and nested blocks play no part.
2. For each block the damage of its removal is measured on held-out samples, with what may stand in for it: nothing; the
   layers that read y directly, with other weights; a factor and a shift per channel; a 1x1 convolution. All are fitted
   by least squares, and what takes time must spare a tenth of the damage.
3. The cheapest block goes, by damage, or by damage per multiply-accumulate saved where `macs` is the budget; the next
   ones are measured anew without it; and so on until the budget is met.
4. Layers behind the first gap are refitted one by one to what they gave before; that stays if the outputs on held-out
   samples come closer.

Wang and Wu, "Practical network acceleration with tiny sets", CVPR 2023, find that where few samples are at hand,
accuracy lost per latency saved is less with blocks than with channels.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnxopt import Context, Graph, Pass, UsageError, option
from onnxopt.analysis.blocks import (
    FORMS,
    Block,
    Price,
    Trials,
    find_blocks,
    find_refittable,
    refit_following,
    replace_block,
    settle,
)
from onnxopt.analysis.compensation.abreast import choose_samples
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.scope import Scope
from onnxopt.analysis.shapes import RunShapes
from onnxopt.data import Feeds

Samples = tuple[Sequence[Feeds], Sequence[Feeds]]

KEY = "onnxopt.drop-blocks"
TOLERATED = 0.01  # damage that outputs bear where no budget is given: 20 dB of SQNR, or 0.01 nat of divergence
AGAIN = 4  # blocks that are measured again after one has gone


class DropBlocks(Pass):
    """Remove the residual blocks that matter least, and refit what is left.

    When to use it: on deep residual models, before `prune` and `quantize`. A block takes its latency with it, whatever
    the runtime likes; fewer channels may not. It needs data. Without `count` or `macs`, blocks go as long as outputs
    hardly change, which on small models means none.

    Example (`count=1`):
        before: `a = Conv (x, w1)`, `b = Relu (a)`, `c = Conv (b, w2)`, `y = Add (x, c)`, `z = Conv (y, w3)`
        after:  `z = Conv (x, w4)`

    Effect: lossy. A block is missing and weights behind it change; the report says what each block cost.
    """

    name = "drop-blocks"
    effect = "lossy"
    needs_data = True

    count: int | None = option(default=None, help="Remove so many blocks.", low=0)
    macs: float | None = option(
        default=None, help="Share of the multiply-accumulates that may remain, of the whole model.", low=0, high=1
    )
    stand_in: str | None = option(
        default=None, help="What takes a block's place; none: what helps enough for what it costs.", choices=FORMS
    )
    refit: bool = option(default=True, help="Refit the layers behind, if it helps.")
    scope: tuple[str, ...] = option(default=(), help="Name patterns: remove only blocks with a node that matches.")
    ignore: tuple[str, ...] = option(default=(), help="Name patterns: leave blocks alone with a node that matches.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Measure, remove, refit.

        Raises:
            UsageError: Both budgets are given, a pattern matches nothing, or the model cannot be run on samples.
        """
        if self.count is not None and self.macs is not None:
            raise UsageError("drop-blocks: give count or macs, not both")
        cost = context.get(Cost)
        blocks = self._in_scope(find_blocks(graph, context.get(RunShapes), cost.macs), context)
        if not blocks:
            if not self.scope and not self.ignore:
                context.note(graph.source, "has no residual block")
            return False
        if self.count == 0 or self.macs == 1:
            return False
        why = context.cannot_try(graph)
        if why:
            raise UsageError(f"drop-blocks has to run the model on samples: {why}")
        names = [t.name for n in graph.nodes for t in n.outputs]
        samples = choose_samples(graph, context, find_refittable(graph, names), len(blocks) * len(FORMS))
        trials = Trials(graph.copy(), samples, FORMS if self.stand_in is None else (self.stand_in,))
        dropped = self._choose(trials, blocks, cost.total_macs, context)
        if not dropped:
            context.note(graph.source, "every block is worth more than it costs")
            return False
        refitted = self._replace(graph, dropped, trials, samples, context)
        _record(graph, dropped, plain=not refitted and all(p.stand_in.form == "nothing" for p in dropped))
        return True

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        """The original with the blocks' results multiplied by 0; None where something makes up for them."""
        runs = json.loads(after.metadata.get(KEY, "[]"))
        if len(runs) == len(json.loads(before.metadata.get(KEY, "[]"))) or not runs[-1]["plain"]:
            return None
        masked = before.copy()
        skips = runs[-1]["blocks"]
        for add in masked.nodes_of("Add"):
            skip = skips.get(add.outputs[0].name)
            if skip is None:
                continue
            index = next(i for i, t in enumerate(add.inputs) if t.name != skip)
            branch = add.inputs[index]
            nothing = masked.add_node("Sub", [branch, branch], before=add)
            add.inputs[index] = nothing.outputs[0]
        return masked

    def _in_scope(self, blocks: Sequence[Block], context: Context) -> list[Block]:
        scope = Scope(self.scope, self.ignore)
        scope.check(self.name, [name for b in blocks for name in (b.name, *b.nodes)], "node of a residual block")
        chosen = []
        for block in blocks:
            reason = scope.why_not((block.name, *block.nodes))
            if reason:
                context.note(block.name, reason)
            else:
                chosen.append(block)
        return chosen

    def _choose(self, trials: Trials, blocks: Sequence[Block], total: int, context: Context) -> list[Price]:
        """The blocks that go, in the order in which they do."""
        prices = trials.prices(blocks)
        context.record.details["blocks"] = [_row(p) for p in prices]
        dropped: list[Price] = []
        left, suffered = total, 0.0
        while prices and not self._is_met(len(dropped), left / max(1, total)):
            prices.sort(key=lambda p: (p.damage - suffered) / (p.saved if self.macs is not None else 1))
            best = prices[0]
            if self.count is None and self.macs is None and best.damage > TOLERATED:
                break
            trials.drop(best)
            dropped.append(best)
            left -= best.saved
            prices = [_without(p, best, suffered) for p in prices[1:] if p.block.name not in best.block.nodes]
            suffered = best.damage
            if not self._is_met(len(dropped), left / max(1, total)):
                again = sorted(prices[:AGAIN], key=lambda p: [b.name for b in blocks].index(p.block.name))
                prices = [*trials.prices([p.block for p in again]), *prices[AGAIN:]]
        self._tell(dropped, left / max(1, total), context)
        return dropped

    def _is_met(self, dropped: int, left: float) -> bool:
        if self.count is not None:
            return dropped >= self.count
        return self.macs is not None and left <= self.macs

    def _tell(self, dropped: Sequence[Price], left: float, context: Context) -> None:
        if self.count is not None and len(dropped) < self.count:
            context.note("blocks", f"there are {len(dropped)} to remove, not {self.count}")
        if self.macs is not None and left > self.macs:
            context.note("blocks", f"without any of them {left:.3f} of the multiply-accumulates remain")
        context.record.details["dropped"] = [_row(p) for p in dropped]
        context.record.details["macs"] = round(left, 4)

    def _replace(
        self, graph: Graph, dropped: Sequence[Price], trials: Trials, samples: Samples, context: Context
    ) -> bool:
        """Remove the blocks, refit; whether a refit stayed."""
        for price in dropped:
            replace_block(graph, price.block, price.stand_in)
        graph.sort()
        plain = kept = trials.damage(graph)
        outputs = [p.block.output for p in dropped]
        refitted = refit_following(trials.before, graph, outputs, samples) if self.refit else []
        if refitted:
            trial = graph.copy()
            for each in refitted:
                each.write(trial)
            reached = trials.damage(trial)
            if reached < plain:
                kept = reached
                for each in refitted:
                    each.write(graph)
                context.count("layers refitted", len(refitted))
            else:
                context.note(graph.source, f"the refit was taken back: damage {reached:.4g}, not {plain:.4g}")
                refitted = []
        context.record.details["damage"] = {"plain": plain, "kept": kept}
        context.count("blocks removed", len(dropped))
        merged = settle(graph, outputs)
        if merged:
            context.count("stand-ins taken into the layer before", merged)
        return bool(refitted)


def _record(graph: Graph, dropped: Sequence[Price], *, plain: bool) -> None:
    runs = json.loads(graph.metadata.get(KEY, "[]"))
    runs.append({"blocks": {p.block.output: p.block.skip for p in dropped}, "plain": plain})
    graph.set_metadata(KEY, json.dumps(runs, separators=(",", ":")))


def _row(price: Price) -> dict[str, Any]:
    return {
        "name": price.block.name,
        "macs": price.saved,
        "stand_in": price.stand_in.form,
        "damage": {form: round(value, 6) for form, value in price.damages.items()},
    }


def _without(price: Price, gone: Price, suffered: float) -> Price:
    """What is known of a block when another has gone: damages add up, and one may have been a part of the other."""
    added = gone.damage - suffered
    price = replace(price, damages={form: value + added for form, value in price.damages.items()})
    if gone.block.name not in price.block.nodes:
        return price
    block = replace(price.block, macs=price.block.macs - gone.saved)
    return replace(price, block=block, saved=max(1, price.saved - gone.saved))
