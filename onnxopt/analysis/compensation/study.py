"""A copy of a model made ready to lose channels, and everything that is measured on it.

1. Normalisations go into the weights before them, every layer gets a bias, linear streams are put into their best
   basis: the copy computes what the model does.
2. Groups are ranked, and the damage of removing some of each is measured on held-out samples.
3. After a choice, layers are refitted one by one, as far as held-out samples say, and the result is kept if they speak
   for it.
4. `apply` writes the numbers into the model and cuts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, cut
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.compensation.absorbing import absorb_normalizations, drop_absorbed
from onnxopt.analysis.compensation.affordable import plan
from onnxopt.analysis.compensation.damage import Damage
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import Reader, find_readers, give_bias
from onnxopt.analysis.compensation.refitting import refit_readers
from onnxopt.analysis.compensation.sensitivity import REMOVED, Lab, Sensitivity, measure, take_moments
from onnxopt.analysis.compensation.sharpening import best_factor, last_layer, sharpen
from onnxopt.analysis.compensation.streams import find_streams, order_by_rank, turn
from onnxopt.analysis.compensation.views import views
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.data import Dataset, Feeds
from onnxopt.graph import Graph
from onnxopt.runtime import host

RANKING = ("reconstruction", "activation")  # criteria that need samples
Analyse = Callable[[Graph], ChannelGroups]
Choice = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Samples:
    """What a study is made on.

    Attributes:
        fit: To fit on.
        held_out: To judge on.
        nbytes: Bytes of a tensor of the model by name.
        macs: Multiply-accumulates of one run.
    """

    fit: Dataset
    held_out: Dataset
    nbytes: Callable[[str], int]
    macs: int


@dataclass(frozen=True)
class Outcome:
    """What became of a refit.

    Attributes:
        refitted: How many layers; 0 where it was taken back.
        before: Damage on held-out samples without it.
        after: And with it.
    """

    refitted: int
    before: float
    after: float


class Study:
    """See the module.

    Args:
        graph: The model; it is not changed.
        analyse: Finds the groups of a graph.
        samples: What to fit and judge on.
        scope: Names of the groups that may be cut.
        compensate: Whether layers make up for what they lose.
        rank: Whether channels are ranked on samples even so.

    Attributes:
        found: Groups of the copy: those of the model, by the same names.
        turned: Names of the groups that are in another basis than they were: their places are not the model's.
    """

    def __init__(
        self,
        graph: Graph,
        analyse: Analyse,
        samples: Samples,
        scope: Sequence[str],
        *,
        compensate: bool = True,
        rank: bool = False,
    ) -> None:
        self._graph = graph.copy()
        self._graph.sort()
        self._absorbed = absorb_normalizations(self._graph) if compensate else []
        self._added = _give_biases(self._graph) if compensate else []
        self.found = analyse(self._graph)
        self.groups = [g for g in self.found.free if g.name in scope]
        self._compensate = compensate
        readers = find_readers(self._graph, self.found, self.groups) if compensate or rank else []
        self._lab = self._open(samples, readers)
        for reader in readers:
            reader.own(self._graph)
        self.turned: dict[str, IntArray] = {}
        if compensate:
            self._turn_streams()
        self._damage = Damage(list(self._lab.outputs(self._graph)), self._lab.held_out, graph.metadata)

    def _open(self, samples: Samples, readers: Sequence[Reader]) -> Lab:
        sizes = (len(samples.fit), len(samples.held_out))
        numbers = plan(self._graph, readers, samples.nbytes, samples.macs, sizes, len(self.groups) * len(REMOVED))
        fit = _views(samples.fit.take(numbers.pictures), numbers.views)
        judged = samples.held_out.take(numbers.judged)
        held_out = _views(judged, numbers.judged_views)
        pictures = [sample.feeds for sample in judged]
        return Lab(self._graph, self.found, readers, fit, held_out, pictures, self._compensate)

    def _turn_streams(self) -> None:
        names = {g.name for g in self.groups}
        streams = find_streams(self._graph, self.found, self._lab.readers, self._absorbed)
        streams = [s for s in streams if s.group.name in names]
        stops = {r.position for s in streams for r in s.readers}
        walk = LookingWalk(self._graph, self._lab.fit, (), optimized=True, threads=host.cores())
        moments: dict[int, Moments] = {}
        for reader in self._lab.readers:
            if reader.position in stops:
                moments[reader.position] = take_moments(self._lab, reader, walk)
        for stream in streams:
            turn(self._graph, stream, moments)
            self.turned[stream.group.name] = order_by_rank(stream)

    def measure(
        self, orders: Mapping[str, IntArray], removed: Sequence[float] = REMOVED, *, criterion: str = "reconstruction"
    ) -> dict[str, Sensitivity]:
        """Rank every group, and measure the damage of removing some shares of each.

        Args:
            orders: Places of every group in the order in which they go.
            removed: Shares to try; none: rank only.
            criterion: `reconstruction` ranks anew, by elimination, what can be refitted, `activation` by energy; any
                other leaves the orders as given. Groups in another basis are ranked by it always.
        """
        known = dict(orders)
        if criterion in RANKING:
            known = {g.name: orders[g.name] for g in self.groups if not self._lab.of_group(g)}
        jointly = criterion == "reconstruction"
        return measure(self._lab, self.groups, {**known, **self.turned}, removed, jointly=jointly)

    def damage(self, graph: Graph) -> float:
        """Damage of a graph on the held-out samples."""
        return self._damage.of(self._lab.outputs(graph))

    def apply(self, graph: Graph, choice: Choice) -> Outcome:
        """Cut a graph, refitted where that helps.

        Args:
            graph: The model that the study is of.
            choice: Places that stay, per group.
        """
        kept = self.found.kept(choice)
        plain = self._cut(self._graph.copy(), choice)
        before = after = self.damage(plain)
        count, source = 0, self._graph
        if self._compensate:
            trial = self._graph.copy()
            samples = (self._lab.fit, self._lab.pictures)
            count = refit_readers(trial, self._graph, self._lab.readers, kept, samples)
            self._sharpen(trial, choice)
            after = self.damage(self._cut(trial.copy(), choice))
            if after < before:
                source = trial
            else:
                count, after = 0, before
        self._transfer(source, graph)
        self._cut(graph, choice)
        return Outcome(count, before, after)

    def _sharpen(self, trial: Graph, choice: Choice) -> None:
        """Give a classifier's scores their spread back."""
        layer = last_layer(trial)
        if layer is not None:
            outputs = list(self._lab.outputs(self._cut(trial.copy(), choice)))
            sharpen(trial, layer, best_factor(outputs, self._damage))

    def _transfer(self, source: Graph, graph: Graph) -> None:
        """Give a graph the constants of a copy with the same nodes."""
        graph.sort()
        if self._compensate:
            absorb_normalizations(graph)
            _give_biases(graph)
        for mine, theirs in zip(graph.nodes, source.nodes, strict=True):
            for index, tensor in enumerate(theirs.inputs):
                new, old = source.constant(tensor), graph.constant(mine.inputs[index])
                if new is not None and old is not None and not (new is old or np.array_equal(new, old)):
                    graph.own_constant(mine, index).values = new

    def _cut(self, graph: Graph, choice: Choice) -> Graph:
        nodes = list(graph.nodes)
        cut(graph, self.found.relations, self.found.kept(choice))
        drop_absorbed(graph, [nodes[i] for i in self._absorbed])
        for node in (nodes[i] for i in self._added):
            bias = graph.constant(node.inputs[2])
            if bias is not None and not bias.any():
                node.inputs.pop(2)
        return graph


def _give_biases(graph: Graph) -> list[int]:
    """Give every layer that may have one a bias; positions of the nodes that had none."""
    return [position for position, node in enumerate(graph.nodes) if give_bias(graph, node)]


def _views(samples: Dataset, count: int) -> list[Feeds]:
    return [view for seed, sample in enumerate(samples) for view in views(sample.feeds, count, seed)]
