"""The oracle of pruning: the cut graph equals the original with the removed channels masked."""

from collections.abc import Mapping

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, cut, masked
from onnxopt.graph import Array, Graph
from onnxopt.testing import outputs_of, random_feeds


def assert_depends_on_input(graph: Graph) -> None:
    """Two inputs give clearly different outputs, or an equality would prove nothing."""
    a, b = (outputs_of(graph, random_feeds(graph, seed)) for seed in (1, 2))
    for name, value in a.items():
        if value.dtype == np.float32:
            assert np.abs(value - b[name]).max() > 1e-2 * np.abs(value).max()


def random_choice(found: ChannelGroups, seed: int) -> dict[str, list[int]]:
    """Random keep sets of random sizes; the last seeds keep only one of each group, or all but one."""
    generator = np.random.default_rng(seed)
    choice = {}
    for group in found.free:
        count = {2: 1, 3: max(1, group.size - 1)}.get(seed, int(generator.integers(1, group.size + 1)))
        choice[group.name] = sorted(generator.permutation(group.size)[:count].tolist())
    return choice


def assert_cut_equals_mask(graph: Graph, found: ChannelGroups, choice: Mapping[str, list[int]]) -> Graph:
    kept = found.kept(choice)
    feeds = random_feeds(graph, 1)
    original = outputs_of(graph, feeds)
    wanted = outputs_of(masked(graph, found.relations, kept), feeds)
    after = graph.copy()
    cut(after, found.relations, kept)
    got = outputs_of(after, feeds)
    assert_close(got, wanted)
    if any(len(choice[g.name]) < g.size for g in found.free):
        assert numbers_read(after) < numbers_read(graph)
    assert_close(outputs_of(graph, feeds), original)  # neither touched the graph itself
    return after


def numbers_read(graph: Graph) -> int:
    """Elements of all constants, counted once for each node that reads them."""
    values = [graph.constant(t) for node in graph.nodes if node.op != "Identity" for t in node.inputs]
    return sum(value.size for value in values if value is not None)


def assert_close(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        assert np.abs(got[name] - value).max() <= 1e-5 * max(1.0, np.abs(value).max())
