"""The oracles of pruning. Each is another way to the same outputs.

* mask: the cut graph equals the original with the removed channels masked where they are summed over;
* zeros (T0): where the weights that make and read the removed channels are 0 beforehand, cutting changes nothing;
* permutation: channels of a group that change places in everything that the group touches change nothing.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from onnxopt.analysis.channels import ChannelGroups, cut, masked
from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.weights import weight_value
from onnxopt.graph import Array, Graph
from onnxopt.testing import outputs_of, random_feeds

ADDED = frozenset({"Add", "Conv", "ConvTranspose", "Gemm"})  # whose constants are offsets, which 0 silences


def assert_depends_on_input(graph: Graph) -> None:
    """Two inputs give clearly different outputs, or an equality would prove nothing."""
    a, b = (outputs_of(graph, random_feeds(graph, seed)) for seed in (1, 2))
    stored = {t.name for t in graph.outputs if graph.constant(t) is not None}
    for name, value in a.items():
        if value.dtype == np.float32 and name not in stored:
            assert np.abs(value - b[name]).max() > 1e-2 * np.abs(value).max()


def random_choice(found: ChannelGroups, seed: int) -> dict[str, list[int]]:
    """Random keep sets of random sizes; the last seeds keep only one of each group, or all but one."""
    generator = np.random.default_rng(seed)
    choice = {}
    for group in found.free:
        count = {2: 1, 3: max(1, group.size - 1)}.get(seed, int(generator.integers(1, group.size + 1)))
        choice[group.name] = sorted(generator.permutation(group.size)[:count].tolist())
    return choice


def assert_cut_equals_mask(
    graph: Graph, found: ChannelGroups, choice: Mapping[str, list[int]], tolerance: float = 1e-5
) -> Graph:
    kept = found.kept(choice)
    feeds = random_feeds(graph, 1)
    original = outputs_of(graph, feeds)
    wanted = outputs_of(masked(graph, found.relations, kept), feeds)
    after = graph.copy()
    cut(after, found.relations, kept)
    got = outputs_of(after, feeds)
    assert_close(got, wanted, tolerance)
    if any(len(choice[g.name]) < g.size for g in found.free):
        assert numbers_read(after) < numbers_read(graph)
    assert_close(outputs_of(graph, feeds), original)  # neither touched the graph itself
    return after


def assert_oracles(graph: Graph, found: ChannelGroups) -> None:
    """All three, for random choices; the cut graph passes the checker, and its shapes the strict inference."""
    assert_depends_on_input(graph)
    assert any(group.size > 1 for group in found.free)
    for seed in range(4):
        choice = random_choice(found, seed)
        model = assert_cut_equals_mask(graph, found, choice).to_proto()
        onnx.checker.check_model(model, full_check=True)
        quiet = silenced(graph, found, found.kept(choice))
        after = quiet.copy()
        cut(after, found.relations, found.kept(choice))
        feeds = random_feeds(graph, 1)
        if not found.relations.statistics:
            assert_close(outputs_of(after, feeds), outputs_of(quiet, feeds))
    assert_close(outputs_of(permuted(graph, found, 0), feeds), outputs_of(graph, feeds))


def silenced(graph: Graph, found: ChannelGroups, kept: Kept) -> Graph:
    """Copy with the weights, and what is added to them, of the channels that are not kept set to 0."""
    copy = graph.copy()
    for site in found.relations.sites:
        node = copy.nodes[site.node]
        if kept.all(site.atoms) or site.role == "through" or (site.role == "constant" and node.op not in ADDED):
            continue
        if copy.constant(node.inputs[site.input]) is None:
            continue
        own = copy.own_constant(node, site.input)
        own.values = own.values * _along(kept.where(site.atoms), own.values.ndim, site.axis).astype(own.values.dtype)
    return copy


def permuted(graph: Graph, found: ChannelGroups, seed: int) -> Graph:
    """Copy in which the channels of every free group have changed places."""
    generator = np.random.default_rng(seed)
    moves = np.arange(len(found.relations.atoms))
    for group in found.free:
        moves[group.roots] = group.roots[generator.permutation(group.size)]
    copy = graph.copy()
    for site in found.relations.sites:
        order = _order(found.relations.atoms.roots(site.atoms), moves)
        node = copy.nodes[site.node]
        if (order != np.arange(len(order))).any() and copy.constant(node.inputs[site.input]) is not None:
            own = copy.own_constant(node, site.input)
            own.values = np.take(own.values, order, axis=site.axis)
    return copy


def _order(roots: IntArray, moves: IntArray) -> IntArray:
    """Place to take from, for each place of an axis; of several with one root the first goes to the first."""
    places = {root: iter(np.flatnonzero(roots == root).tolist()) for root in np.unique(roots).tolist()}
    return np.array([next(places[int(moves[root])]) for root in roots.tolist()], np.int64)


def _along(values: Array, rank: int, axis: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def numbers_read(graph: Graph) -> int:
    """Elements of all constants, counted once for each node that reads them."""
    values = [
        weight_value(graph, t)
        for node in graph.nodes
        if node.op not in {"Identity", "Transpose", "DequantizeLinear"}
        for t in node.inputs
    ]
    return sum(value.size for value in values if value is not None)


def assert_close(got: Mapping[str, Array], wanted: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        assert np.isfinite(value).all() or not np.issubdtype(value.dtype, np.floating)
        assert np.abs(got[name] - value).max() <= tolerance * max(1.0, np.abs(value).max())
