"""Scores of a model on labelled samples: the built-in metrics, or what the user wrote.

A user's metric is a function `(outputs, sample) -> float`, averaged over the samples, or an object with
`update(outputs, sample)` and `compute() -> float` for scores of the whole set; a class, or a function without
arguments, that makes such an object will do. `outputs` maps each output's name to its array. Higher is better unless
the metric has an attribute `lower_is_better` that is true.
"""

from onnxopt.evaluation.metrics.load import METRICS, load_metric
from onnxopt.evaluation.metrics.metric import PERCENT, Accumulator, Metric, Score, Scoring, score

__all__ = ["METRICS", "PERCENT", "Accumulator", "Metric", "Score", "Scoring", "load_metric", "score"]
