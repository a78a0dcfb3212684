"""Zeros in all layers of a model, one after the other.

Sequential: each layer is fitted on what it reads in the model with zeros so far, to what it gave before. What a layer
gets, new weights or only zeros in place of the smallest, is decided by its error on held-out samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.compensation.abreast import Abreast, Numbers, errors_of
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import give_bias
from onnxopt.analysis.sparsity.elimination import eliminate, smallest
from onnxopt.analysis.sparsity.layers import Layer, write
from onnxopt.analysis.sparsity.polishing import polish
from onnxopt.analysis.sparsity.rule import FloatArray, Rule
from onnxopt.data import Feeds
from onnxopt.graph import Graph


@dataclass(frozen=True)
class Sparse:
    """New numbers of a layer.

    Attributes:
        layer: Which.
        weight: float64[groups, columns, length].
        bias: float64[groups, columns]; None where it stays.
        errors: Mean squared error of its output on held-out samples as a share of the output's variance: `plain` with
            the smallest weights gone (none of a dense layer), `refitted` with those that make up for it; empty without
            samples.
    """

    layer: Layer
    weight: FloatArray
    bias: FloatArray | None
    errors: dict[str, float]


def magnitudes(graph: Graph, layers: Sequence[Layer], rule: Rule) -> list[Sparse]:
    """Zeros in place of the smallest weights of each layer, the others as they were."""
    sparse = [layer for layer in layers if not layer.dense]
    return [Sparse(layer, _smallest_gone(layer.reader.matrix(graph), rule, layer), None, {}) for layer in sparse]


def reconstruct(
    graph: Graph, layers: Sequence[Layer], rule: Rule, samples: tuple[Sequence[Feeds], Sequence[Feeds]]
) -> list[Sparse]:
    """Zeros in every layer but the dense ones, and the weights that are left refitted where that helps.

    Memory: activations of the samples where the walks are, and one layer's covariance.

    Args:
        graph: The model; it is not changed.
        layers: In order of execution.
        rule: What is wanted.
        samples: To fit on, and to judge on.
    """
    first = next((i for i, layer in enumerate(layers) if not layer.dense), len(layers))
    trial = graph.copy()
    for layer in layers[first:]:
        give_bias(trial, layer.reader.node(trial))
        layer.reader.own(trial)
    walks = [Abreast(graph, trial, feeds) for feeds in samples]
    return [_fit_layer(trial, layer, rule, walks) for layer in layers[first:]]


def _fit_layer(trial: Graph, layer: Layer, rule: Rule, walks: Sequence[Abreast]) -> Sparse:
    fit, judge = walks
    reader = layer.reader
    weight, bias = reader.matrix(trial), reader.bias(trial)
    plain = _smallest_gone(weight, rule, layer), bias
    fitted = _fitted(weight, bias, fit.moments(reader, centred=bias is not None), rule, layer)
    errors = errors_of(judge.rows(reader), (plain, fitted))
    best = fitted if errors[1] < errors[0] else plain
    write(trial, layer, *best)
    named = {"plain": errors[0], "refitted": errors[1]}
    return Sparse(layer, best[0], best[1] if best is fitted else None, named)


def _fitted(weight: FloatArray, bias: FloatArray | None, moments: Moments, rule: Rule, layer: Layer) -> Numbers:
    wanted, shift = refit(moments, weight, bias, np.ones((weight.shape[0], weight.shape[2]), np.bool_))
    if layer.dense:
        return wanted, shift
    found = np.empty_like(wanted)
    for group, rows in enumerate(wanted):
        covariance = moments.covariance[group]
        start, left = eliminate(rows, covariance, rule, layer.order)
        found[group] = polish(start, rows, covariance, left)
    if shift is not None:
        shift = shift + np.einsum("gcl,gl->gc", wanted - found, moments.mean)
    return found, shift


def _smallest_gone(weight: FloatArray, rule: Rule, layer: Layer) -> FloatArray:
    if layer.dense:
        return weight
    return np.asarray([np.where(smallest(rows, rule, layer.order), rows, 0.0) for rows in weight])
