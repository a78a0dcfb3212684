"""How much each channel of a group matters, by its weights alone.

A channel's signal passes through the weights that make it (`out`), those applied to it channel by channel
(`through`: depthwise kernels, the scale of BatchNormalization) and those that read it (`in`). Its score is the
product over these roles of the norm of its slice, averaged over the group's constants of that role. The product does
not change when a factor is moved from a producer to a consumer, as normalisation layers and their folding do.

Norms are means over a slice (l1: mean |w|, l2: root mean square), so that kernels of different sizes compare, and
each is divided by its mean over the group: a score of 1 is an ordinary channel of its group, whichever group it is.
"""

from collections import defaultdict
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.channels.groups import ChannelGroups, Group
from onnxopt.analysis.channels.trace import Site
from onnxopt.analysis.channels.weights import weight_value
from onnxopt.graph import Graph

FloatArray = npt.NDArray[np.float64]
Criterion = Literal["l1", "l2"]


def score_groups(graph: Graph, found: ChannelGroups, criterion: str) -> dict[str, FloatArray]:
    """Group name to one score per root, for free groups.

    Args:
        graph: The graph that was analysed.
        found: Its groups.
        criterion: `l1` or `l2`.
    """
    sites: dict[int, list[Site]] = defaultdict(list)
    for site in found.relations.sites:
        if site.role != "constant":
            for root in np.unique(found.relations.atoms.roots(site.atoms)).tolist():
                sites[root].append(site)
    norms: dict[int, FloatArray] = {}
    for site in {id(s): s for group in sites.values() for s in group}.values():
        norms[id(site)] = _norms(graph, site, criterion)
    return {g.name: _score(found, g, sites[int(g.roots[0])], norms) for g in found.free}


def _norms(graph: Graph, site: Site, criterion: str) -> FloatArray:
    """Norm of each slice along the site's axis."""
    node = graph.nodes[site.node]
    values = weight_value(graph, node.inputs[site.input])
    assert values is not None
    weights = np.abs(np.asarray(values, np.float64))
    if node.op == "BatchNormalization":
        variance = graph.constant(node.inputs[4])
        assert variance is not None
        weights /= np.sqrt(np.asarray(variance, np.float64) + node.attrs.get("epsilon", 1e-5))
    others = tuple(a for a in range(weights.ndim) if a != site.axis)
    if criterion == "l1":
        return np.asarray(weights.mean(axis=others))
    return np.asarray(np.sqrt(np.square(weights).mean(axis=others)))


def _score(found: ChannelGroups, group: Group, sites: list[Site], norms: dict[int, FloatArray]) -> FloatArray:
    by_role: dict[str, list[FloatArray]] = defaultdict(list)
    for site in sites:
        by_role[site.role].append(_per_root(found, group, site, norms[id(site)]))
    score = np.ones(group.size)
    for values in by_role.values():
        score *= np.mean(values, axis=0)
    return score


def _per_root(found: ChannelGroups, group: Group, site: Site, norms: FloatArray) -> FloatArray:
    """Mean norm of the atoms behind each root, divided by the mean over the group."""
    roots = found.relations.atoms.roots(site.atoms)
    mine = np.isin(roots, group.roots)
    places = np.searchsorted(group.roots, roots[mine])
    sums = np.bincount(places, norms[mine], minlength=group.size)
    means = sums / np.bincount(places, minlength=group.size)
    average = means.mean()
    return np.asarray(means / average if average > 0 else means)
