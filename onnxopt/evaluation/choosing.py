"""Which metric suits a model and its labels, where the user did not say."""

from collections.abc import Callable, Mapping

import numpy as np

from onnxopt.data import Array, Boxes, Dataset, InputSpec, Sample
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.decoding import Reader, Task
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.graph import Graph
from onnxopt.runtime.ort import OrtSession

AGREEMENT = "agreement"  # what `--metric` calls the judgement by the float model's answers, which needs no labels
LOOKED_AT = 16  # samples; the first ones may show no objects


def choose_metric(graph: Graph, dataset: Dataset, decode: str | None = None) -> str | None:
    """Return the name of the metric for a model and labelled samples.

    Args:
        graph: The model; it is run on one sample.
        dataset: Samples that fit its inputs.
        decode: Decoder that the user named; None: found.

    Returns:
        A metric that `load_metric` knows. None where there are no labels, or none that suit what the model does, and
        where ONNX Runtime cannot run the model.

    Raises:
        UsageError: The data set is broken, or the named decoder does not fit.
    """
    samples = dataset.take(LOOKED_AT) if len(dataset) > LOOKED_AT else dataset
    first: Sample | None = None
    task: Task | None = None
    for sample in samples:
        if sample.label is None:
            return None
        if first is None:
            first, task = sample, _task(graph, sample, decode)
        suited = SUITED[task](sample.label) if task is not None else None
        # A picture without objects suits any metric of objects, so the next one decides.
        if suited is None or not isinstance(sample.label, Boxes) or len(sample.label):
            return suited
    return suited if first is not None else None


def _task(graph: Graph, sample: Sample, decode: str | None) -> Task | None:
    try:
        outputs = OrtSession(graph.to_proto(), optimized=False).run(fill_batch(sample.feeds, _fixed(graph)))
    except OptimizationError:
        return None
    arrays = {name: _first(values) for name, values in outputs.items() if isinstance(values, np.ndarray)}
    return Reader(graph.metadata, decode).task(arrays, {name: _first(values) for name, values in sample.feeds.items()})


def _fixed(graph: Graph) -> list[InputSpec]:
    """The inputs, each with the batch that the file says, or 1."""
    firsts = {t.name: t.shape[0] if t.shape else 1 for t in graph.inputs}
    return [
        InputSpec(t.name, (first if isinstance(first, int) else 1,), np.dtype(np.float32))
        for t in graph.inputs
        for first in [firsts[t.name]]
    ]


def _first(values: Array) -> Array:
    """The first sample of a batch."""
    return values[:1] if values.ndim >= 2 else values


def _boxes(label: object) -> str | None:
    return "coco-map" if isinstance(label, Boxes) else None


def _masks(label: object) -> str | None:
    return "mask-map" if isinstance(label, Boxes) and label.outlines is not None else _boxes(label)


def _keypoints(label: object) -> str | None:
    return "keypoint-map" if isinstance(label, Boxes) and label.keypoints is not None else _boxes(label)


def _rotated(label: object) -> str | None:
    return "obb-map" if isinstance(label, Boxes) and label.outlines is not None else _boxes(label)


def _class(label: object) -> str | None:
    return "top1" if isinstance(label, int | np.integer) else None


def _text(label: object) -> str | None:
    return "cer" if isinstance(label, str) else None


SUITED: Mapping[Task, Callable[[object], str | None]] = {
    "classify": _class,
    "detect": _boxes,
    "segment": _masks,
    "pose": _keypoints,
    "obb": _rotated,
    "text": _text,
}
