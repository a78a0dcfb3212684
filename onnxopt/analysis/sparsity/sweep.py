"""Zeros in all layers of a model, one after the other.

Sequential: each layer is fitted on what it reads in the model with zeros so far, to what it gave before. An error that
another branch carries into the sum behind the layer is made up for, too. What a layer gets, new weights or only zeros
in place of the smallest, is decided by its error on held-out samples.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Moments, Sums
from onnxopt.analysis.compensation.reading import Reader
from onnxopt.analysis.compensation.refitting import companions, rows_per_sample
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.analysis.sparsity.elimination import eliminate, smallest
from onnxopt.analysis.sparsity.layers import Layer, prepare_bias, write
from onnxopt.analysis.sparsity.polishing import polish
from onnxopt.analysis.sparsity.rule import FloatArray, Rule
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph

Rows = tuple[Array, Array]


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
    graph: Graph,
    layers: Sequence[Layer],
    rule: Rule,
    samples: tuple[Sequence[Feeds], Sequence[Feeds]],
    *,
    threads: int = 1,
) -> list[Sparse]:
    """Zeros in every layer, the other weights refitted where that helps.

    Memory: activations of the samples where the walk is, and one layer's covariance.

    Args:
        graph: The model; it is not changed.
        layers: In order of execution.
        rule: What is wanted.
        samples: To fit on, and to judge on.
        threads: Threads of the sessions.
    """
    trial = graph.copy()
    first = next((i for i, layer in enumerate(layers) if not layer.dense), len(layers))
    layers = layers[first:]
    for layer in layers:
        prepare_bias(trial, layer)
        layer.reader.own(trial)
    walks = [_Walks(graph, trial, feeds, threads) for feeds in samples]
    return [_fit_layer(trial, layer, rule, walks) for layer in layers]


class _Walks:
    """The model before and the one with zeros, side by side."""

    def __init__(self, before: Graph, trial: Graph, samples: Sequence[Feeds], threads: int) -> None:
        self._trial, self._count = trial, len(samples)
        self._old, self._new = (LookingWalk(g, samples, (), optimized=True, threads=threads) for g in (before, trial))

    def rows(self, reader: Reader) -> Iterator[Rows]:
        """Yield what a layer reads and what it should give, one sample after the other."""
        output, source = reader.output(self._trial), reader.input(self._trial)
        others = companions(self._trial, reader)
        most = rows_per_sample(reader, self._count)
        given, found = self._old.look(output, *others), self._new.look(source, *others)
        for old, new in zip(given, found, strict=True):
            yield reader.rows(new[source], _wanted(old, new, output, others), most)

    def past(self, reader: Reader) -> None:
        for walk in (self._old, self._new):
            walk.past(reader.output(self._trial))


def _wanted(old: dict[str, Array], new: dict[str, Array], output: str, others: Sequence[str]) -> Array:
    wanted = old[output]
    for name in others:
        if old[name].shape == wanted.shape:
            wanted = wanted + (old[name] - new[name])
    return wanted


def _fit_layer(trial: Graph, layer: Layer, rule: Rule, walks: Sequence[_Walks]) -> Sparse:
    fit, judge = walks
    reader = layer.reader
    weight, bias = reader.matrix(trial), reader.bias(trial)
    sums = Sums(reader.patches.shape, with_outputs=True)
    for rows, wanted in fit.rows(reader):
        sums.add(rows, wanted)
    moments = sums.result(centred=bias is not None)
    plain = _smallest_gone(weight, rule, layer), bias
    fitted = _fitted(weight, bias, moments, rule, layer)
    errors = _errors(judge.rows(reader), (plain, fitted))
    best = fitted if errors[1] < errors[0] else plain
    write(trial, layer, *best)
    for walk in walks:
        walk.past(reader)
    named = {"plain": errors[0], "refitted": errors[1]}
    return Sparse(layer, best[0], best[1] if best is fitted else None, named)


def _fitted(
    weight: FloatArray, bias: FloatArray | None, moments: Moments, rule: Rule, layer: Layer
) -> tuple[FloatArray, FloatArray | None]:
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


def _errors(rows: Iterable[Rows], choices: Sequence[tuple[FloatArray, FloatArray | None]]) -> list[float]:
    """Squared error of each choice of weights and bias as a share of the variance of what is wanted."""
    squares, count = 0.0, 0
    mean: FloatArray | float = 0.0
    lost = [0.0] * len(choices)
    for inputs, wanted in rows:
        values = np.asarray(wanted, np.float64)
        mean = mean + values.sum(axis=1)
        squares += float(np.square(values).sum())
        count += values.shape[1]
        for index, (weight, bias) in enumerate(choices):
            given = np.matmul(inputs, weight.astype(np.float32).transpose(0, 2, 1)).astype(np.float64)
            lost[index] += float(np.square(values - given - (0.0 if bias is None else bias[:, None, :])).sum())
    total = squares - float(np.square(mean).sum()) / max(1, count)
    return [each / total if total > 0 else float(each > 0) for each in lost]
