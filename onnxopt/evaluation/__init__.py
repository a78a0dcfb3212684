"""Scores of one model on labelled samples, and the agreement of two."""

from onnxopt.evaluation.agreement import Agreement, Comparison, OutputDistance
from onnxopt.evaluation.metrics import Metric, Score, load_metric, score

__all__ = ["Agreement", "Comparison", "Metric", "OutputDistance", "Score", "load_metric", "score"]
