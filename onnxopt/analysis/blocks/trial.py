"""What the removal of each block costs, in outputs on held-out samples, and which goes next.

The cheapest block goes, with what stands in for it; then those that were cheap are looked at again in the model
without it. Which form stands in is decided by the damage: one that costs time must spare a share of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.blocks.finding import Block
from onnxopt.analysis.blocks.standing_in import FREE, StandIn, macs_of, replace_block
from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.compensation.moments import Moments, Sums
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.analysis.recovery.patches import Patches
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph
from onnxopt.runtime import host
from onnxopt.runtime.ort import OrtSession

SPARED = 0.1  # of the damage, for which a form that takes time is worth it
ROWS = 65536  # per block, from all samples together


@dataclass(frozen=True)
class Price:
    """What the removal of a block costs.

    Attributes:
        block: Which.
        stand_in: What is best put in its place.
        damages: Form to damage on held-out samples (see `compensation.damage`).
        saved: Multiply-accumulates; 1 where a stand-in that was asked for takes as many as the block.
    """

    block: Block
    stand_in: StandIn
    damages: dict[str, float]
    saved: int

    @property
    def damage(self) -> float:
        """Damage with the stand-in chosen."""
        return self.damages[self.stand_in.form]


class Trials:
    """Tries removals.

    Args:
        graph: The model; it is not changed.
        samples: To fit on, and to judge on.
        forms: Which may stand in for a block.

    Attributes:
        before: The model.
        graph: The model without the blocks that have gone.
    """

    def __init__(self, graph: Graph, samples: tuple[Sequence[Feeds], Sequence[Feeds]], forms: Sequence[str]) -> None:
        self.before = graph
        self.graph = graph.copy()
        self._fit, self._judged = samples
        self._forms = forms
        self._damage = Damage(self._outputs(graph), self._judged, graph.metadata)

    def prices(self, blocks: Sequence[Block]) -> list[Price]:
        """What each block costs now."""
        return [self._price(block, moments) for block, moments in zip(blocks, self._moments(blocks), strict=True)]

    def drop(self, price: Price) -> None:
        """Let a block go."""
        replace_block(self.graph, price.block, price.stand_in)

    def damage(self, graph: Graph) -> float:
        """Damage of a graph on held-out samples."""
        return self._damage.of(self._outputs(graph))

    def _outputs(self, graph: Graph) -> list[dict[str, Array]]:
        session = OrtSession(graph.to_proto(), threads=host.cores())
        return [session.run(feeds) for feeds in self._judged]

    def _moments(self, blocks: Sequence[Block]) -> list[Moments]:
        """Of what a block would be given now, with what it gave in the model before."""
        graphs = self.before, self.graph
        old, new = (LookingWalk(g, self._fit, (), optimized=True, threads=host.cores()) for g in graphs)
        found = []
        for block in blocks:
            patches = _patches(block, -(-ROWS // len(self._fit)))
            sums = Sums((1, block.channels, block.channels), with_outputs=True)
            for given, seen in zip(old.reach(block.output), new.reach(block.skip), strict=True):
                values, wanted = seen[block.skip], given[block.output]
                sums.add(*patches.rows(values.astype(np.float32), wanted.astype(np.float32)))
            found.append(sums.result())
        return found

    def _price(self, block: Block, moments: Moments) -> Price:
        damages: dict[str, float] = {}
        best: StandIn | None = None
        for stand_in in (StandIn.fit(form, moments) for form in self._forms):
            form = stand_in.form
            trial = self.graph.copy()
            replace_block(trial, block, stand_in)
            damages[form] = self.damage(trial)
            worth = 1.0 if form in FREE else 1 - SPARED
            pays = macs_of(block, stand_in) < block.macs
            if best is None or (pays and damages[form] < worth * damages[best.form]):
                best = stand_in
        assert best is not None
        return Price(block, best, damages, max(1, block.macs - macs_of(block, best)))


def _patches(block: Block, most: int) -> Patches:
    """How a matrix that maps channels to channels reads."""
    square = block.channels, block.channels
    rank = len(block.shape) - 2
    if block.axis != 1 or not rank:
        return Patches("MatMul", square, 1, most=most)
    ones = (1,) * rank
    return Patches("Conv", (*square, *ones), 0, 1, ones, ones, ones, (0,) * 2 * rank, most)
