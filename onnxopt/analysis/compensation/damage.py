"""How much a model's outputs suffer, in one number, without labels.

1. Classifiers: the mean Kullback-Leibler divergence of the classes' probabilities from those before, in nats.
2. Any other: Σ (a - b)² / Σ (a - mean a)² of every output, added up; of a detector, boxes and scores count apart, and
   boxes by how sure the model was of them before, for nobody looks at the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxopt.data import Feeds
from onnxopt.evaluation.decoding import Reader, class_scores
from onnxopt.evaluation.decoding.dense import Dense
from onnxopt.graph import Array

SURE = 1e-12
CLIPPED = 1e6  # a model whose outputs are not finite is that bad


@dataclass
class Damage:
    """Compares outputs with those before.

    Attributes:
        before: Outputs of the model before, per sample.
        feeds: What it was fed.
        metadata: The model's, by which a detector is told.
    """

    before: Sequence[Mapping[str, Array]]
    feeds: Sequence[Feeds]
    metadata: Mapping[str, str] = field(default_factory=dict)
    _reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self.metadata)

    def of(self, after: Iterable[Mapping[str, Array]]) -> float:
        """Damage of outputs for the same samples."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self._of(list(zip(self.before, after, self.feeds, strict=True)))

    def _of(self, pairs: Sequence[tuple[Mapping[str, Array], Mapping[str, Array], Feeds]]) -> float:
        if all(class_scores(dict(a)) is not None for a, _, _ in pairs):
            found = float(np.mean([_divergence(dict(a), dict(b)) for a, b, _ in pairs]))
        else:
            found = self._distance(pairs)
        return min(found, CLIPPED) if np.isfinite(found) else CLIPPED

    def _distance(self, pairs: Sequence[tuple[Mapping[str, Array], Mapping[str, Array], Feeds]]) -> float:
        errors: dict[str, float] = {}
        spreads: dict[str, float] = {}
        for wanted, got, feeds in pairs:
            first, second = (_parts(outputs, feeds, self._reader) for outputs in (wanted, got))
            for name, values in first.items():
                a, b = np.asarray(values, np.float64), np.asarray(second[name], np.float64)
                weight = _sureness(name, first)
                errors[name] = errors.get(name, 0.0) + float((weight * np.square(a - b)).sum())
                spreads[name] = spreads.get(name, 0.0) + float((weight * np.square(a - a.mean())).sum())
        return sum(error / max(spreads[name], SURE) for name, error in errors.items())


def _parts(outputs: Mapping[str, Array], feeds: Feeds, reader: Reader) -> dict[str, Array]:
    """Parts of outputs; classes of a detector as they count, each times the objectness of its box.

    What class a box would have where nothing is says nothing, and most places are such.
    """
    parts = reader.parts(outputs, feeds)
    decoder = reader.decoder(outputs, feeds)
    if isinstance(decoder, Dense) and decoder.objectness:
        name = f"{decoder.output} (scores)"
        parts[name] = parts[name][..., :1] * parts[name][..., 1:]
    return parts


def _sureness(name: str, parts: Mapping[str, Array]) -> Array:
    """Weights of a detector's boxes: the highest score of each; 1 for anything else."""
    scores = parts.get(f"{name.removesuffix(' (boxes)')} (scores)") if name.endswith(" (boxes)") else None
    if scores is None:
        return np.ones(1)
    return np.asarray(np.max(np.asarray(scores, np.float64), axis=-1, keepdims=True))


def _divergence(wanted: dict[str, Array], got: dict[str, Array]) -> float:
    first, second = class_scores(wanted), class_scores(got)
    assert first is not None
    assert second is not None
    p, q = _log_probabilities(first), _log_probabilities(second)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def as_scores(values: Array) -> Array:
    """Logarithms of probabilities, [N, classes]; other scores as they are."""
    values = np.asarray(values, np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        return np.log(np.maximum(values, SURE))
    return values


def _log_probabilities(scores: Array) -> Array:
    values = as_scores(scores)
    values = values - values.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))
