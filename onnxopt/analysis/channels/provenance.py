"""Which channels of the original are left in each tensor: enough to cut the same model elsewhere the same way."""

import numpy as np

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.analysis.channels.trace import Trace

Provenance = dict[str, dict[str, list[int]]]


def provenance(relations: Trace, kept: Kept) -> Provenance:
    """Old indices in their new order: tensor name to axis to list, for every axis that lost any.

    Weights are named as in the original graph, activations too; axes are written as text, as JSON wants it. Of a
    weight that several nodes read and that became several, the first is told. Copies have other names in the cut graph.
    """
    found: Provenance = {}
    for site in relations.sites:
        tensor = relations.graph.nodes[site.node].inputs[site.input]
        _add(found, tensor.name, site.axis, site.atoms, kept)
    for name, layout in relations.layouts.items():
        for axis, atoms in layout.items():
            _add(found, name, axis, atoms, kept)
    return found


def _add(found: Provenance, name: str, axis: int, atoms: IntArray, kept: Kept) -> None:
    if not kept.all(atoms):
        found.setdefault(name, {}).setdefault(str(axis), np.flatnonzero(kept.where(atoms)).tolist())
