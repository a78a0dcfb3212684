"""Which channels of the original are left in each tensor: enough to cut the same model elsewhere the same way."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.trace import Trace
from onnxopt.graph import Node

Provenance = dict[str, dict[str, list[int]]]


class Cut(TypedDict):
    """Where a constant of a cut graph is from: the original's name, and old indices in their new order per axis."""

    was: str
    axes: dict[str, list[int]]


def provenance(relations: Trace, kept: Kept) -> Provenance:
    """Old indices in their new order: tensor name to axis to list, for every axis that lost any.

    Weights are named as in the original graph, activations too; axes are written as text, as JSON wants it. Of a
    weight that several nodes read and that became several, the first is told: see `cut_weights` for all.
    """
    found: Provenance = {}
    for site in relations.sites:
        tensor = relations.graph.nodes[site.node].inputs[site.input]
        _add(found, tensor.name, site.axis, site.atoms, kept)
    for name, layout in relations.layouts.items():
        for axis, atoms in layout.items():
            _add(found, name, axis, atoms, kept)
    return found


def cut_weights(relations: Trace, kept: Kept, nodes: Sequence[tuple[Node, Sequence[str]]]) -> dict[str, Cut]:
    """The constants of the cut graph that lost something, by their names there.

    Args:
        relations: Of the original.
        kept: What stays.
        nodes: Those of the original, as they are in the cut graph now, with the names of what they read before.
    """
    found: dict[str, Cut] = {}
    axes: Provenance = {}
    for site in relations.sites:
        node, names = nodes[site.node]
        if site.input < len(node.inputs) and not kept.all(site.atoms):
            name = node.inputs[site.input].name
            _add(axes, name, site.axis, site.atoms, kept)
            found[name] = Cut(was=names[site.input], axes=axes[name])
    return found


def _add(found: Provenance, name: str, axis: int, atoms: IntArray, kept: Kept) -> None:
    if not kept.all(atoms):
        found.setdefault(name, {}).setdefault(str(axis), np.flatnonzero(kept.where(atoms)).tolist())
