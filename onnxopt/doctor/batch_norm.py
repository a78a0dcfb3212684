"""How strange inputs are to a model's first BatchNormalization, which keeps mean and variance of its training.

Per channel the KL divergence of a normal distribution with the sample's mean m and variance v from one with those of
training, M and V: (log(V / v) + (v + (m - M)²) / V - 1) / 2. Its median over channels, as log(1 + ·): a few channels
always see something new, and the divergence grows with the square of a wrong range.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.data import Array
from onnxopt.graph import Graph

LEAST_SHARE = 1e-3  # of the variance of training, added to a sample's: a channel at rest is not infinitely strange


@dataclass(frozen=True, eq=False)
class TrainingStatistics:
    """What the first BatchNormalization knows of training.

    Attributes:
        tensor: Name of its input.
        mean: Per channel, float64[c].
        variance: Per channel, float64[c].
    """

    tensor: str
    mean: Array
    variance: Array

    @classmethod
    def find(cls, graph: Graph) -> "TrainingStatistics | None":
        """Return the statistics nearest to the input, or None: usually they are merged with the weights."""
        graph = graph.copy()
        graph.sort()
        for node in graph.nodes_of("BatchNormalization"):
            if graph.producer(node.inputs[0]) is None:
                continue  # of the input itself: it normalizes pixels, and may have been written there by hand
            mean, variance = (graph.constant(tensor) for tensor in node.inputs[3:5])
            # Exporters write 0 and 1 for a layer that was never trained.
            if mean is not None and variance is not None and (variance > 0).all() and np.ptp(variance) > 0:
                return cls(node.inputs[0].name, np.asarray(mean, np.float64), np.asarray(variance, np.float64))
        return None

    def strangeness(self, values: Array) -> float:
        """Return how far one sample's features float[1, c, h, w] are from training; 0 where they are like it."""
        axes = (0, *range(2, values.ndim))
        features = np.asarray(values, np.float64)
        mean, variance = features.mean(axis=axes), features.var(axis=axes) + LEAST_SHARE * self.variance
        ratio = (variance + (mean - self.mean) ** 2) / self.variance
        divergence = (np.log(self.variance / variance) + ratio - 1) / 2
        return float(np.log1p(np.median(divergence)))
