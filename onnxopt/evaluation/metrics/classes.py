"""Classifiers: `top1` and `top5`, the share of samples whose class is the likeliest, or among the five likeliest."""

import numpy as np

from onnxopt.data import Feeds, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.metrics.metric import PERCENT, Average, Metric


def top(reader: Reader, count: int) -> Metric:
    """Return the metric `top<count>`."""
    name = f"top{count}"

    def hit(outputs: Feeds, sample: Sample) -> float:
        return float(_rank(reader, outputs, sample, name) < count)

    return Metric(name, lambda: Average(hit), point=PERCENT)


def top1(reader: Reader) -> Metric:
    """Return the metric `top1`."""
    return top(reader, 1)


def top5(reader: Reader) -> Metric:
    """Return the metric `top5`."""
    return top(reader, 5)


def _rank(reader: Reader, outputs: Feeds, sample: Sample, name: str) -> int:
    """Place of the labelled class among all, 0 being the likeliest; of equal scores the first class comes first.

    Raises:
        UsageError: The sample has no class number, or the model is no classifier with that class.
    """
    scores = reader.classes(outputs, sample.feeds)
    if scores is None:
        shapes = {output: list(array.shape) for output, array in outputs.items()}
        raise UsageError(f"metric {name} needs an output of shape [N, classes]; the model has {shapes}")
    if not isinstance(sample.label, int | np.integer):
        raise UsageError(f"metric {name} needs a class number with each sample, as a csv of file,label gives")
    if not 0 <= sample.label < scores.shape[1]:
        place = f"{sample.place}: " if sample.place else ""
        raise UsageError(f"{place}a sample is labelled {sample.label}, but the model has {scores.shape[1]} classes")
    order = np.argsort(-scores[0], kind="stable")
    return int(np.flatnonzero(order == sample.label)[0])
