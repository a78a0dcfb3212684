"""In which range does a model want its pictures? Guessed from its first layer, for made-up inputs only.

Trained networks normalize: behind the first Conv (and its BatchNormalization, folded or not) the features of a
picture prepared rightly have a spread near one. A picture in 0..1 fed to a network that wants 0..255 is almost black
to it, and every later range would be measured on noise.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.calibration.collect import expose
from onnxopt.data import InputSpec, Preprocess, parse_preprocess, synthetic
from onnxopt.errors import OptimizationError
from onnxopt.graph import Graph, Tensor
from onnxopt.runtime.ort import OrtSession

PICTURES = 3
# 0..255 must win clearly: first layers with many idle channels look weak at any range.
CANDIDATES = (
    ("yolo", "0..1", 0.0),
    ("imagenet", "normalized by ImageNet's mean and deviation", 0.0),
    ("yolox", "0..255", 1.0),
)


def guess_range(graph: Graph, inputs: Sequence[InputSpec]) -> tuple[Preprocess, str] | None:
    """The normalization under which the first features' spread is nearest one.

    Args:
        graph: The float model.
        inputs: One picture input; for anything else there is no guess.

    Returns:
        The preprocessing and a sentence that says so; None where the model gives no hint.
    """
    features = _first_features(graph)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype.kind != "f" or features is None:
        return None
    try:
        session = OrtSession(expose(graph, [features.name]).to_proto())
        distances = [
            (abs(np.log(_spread(session, features.name, inputs, preset))) + handicap, preset, words)
            for preset, words, handicap in CANDIDATES
        ]
    except OptimizationError:
        return None
    distance, preset, words = min(distances)
    if not np.isfinite(distance):
        return None
    return parse_preprocess(preset), f"made-up pictures are {words}: that suits the first layer best"


def _first_features(graph: Graph) -> Tensor | None:
    graph.sort()
    conv = next(graph.nodes_of("Conv"), None)
    if conv is None:
        return None
    output = conv.outputs[0]
    consumers = graph.consumers(output)
    normalized = len(consumers) == 1 and consumers[0].op == "BatchNormalization"
    return consumers[0].outputs[0] if normalized else output


def _spread(session: OrtSession, name: str, inputs: Sequence[InputSpec], preset: str) -> float:
    """Median over channels of the standard deviation over the picture."""
    samples = synthetic(inputs, PICTURES, preprocess=parse_preprocess(preset))
    with np.errstate(invalid="ignore"):  # a model may give NaN; then this is no candidate
        deviations = [session.run(sample.feeds, [name])[name].std(axis=(0, 2, 3)) for sample in samples]
    return max(float(np.median(np.mean(deviations, axis=0))), 1e-9)
