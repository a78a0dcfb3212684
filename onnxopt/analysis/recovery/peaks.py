"""What channels reach: their largest magnitudes over samples."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt.data import Dataset
from onnxopt.graph import Graph
from onnxopt.runtime.host import cores
from onnxopt.runtime.ort import OrtSession

Peaks: TypeAlias = Mapping[str, npt.NDArray[np.float64]]


def channel_peaks(graph: Graph, names: Sequence[str], samples: Dataset) -> Peaks:
    """Run the model over samples; the maxima are taken inside the graph, to move no tensor.

    Args:
        graph: The model.
        names: Tensors [batch, channels, ...].
        samples: Data.

    Returns:
        float64[channels] by name.
    """
    copy = graph.copy()
    tensors = copy.tensors()
    found = {}
    for name in names:
        magnitude = copy.add_node("Abs", [tensors[name]]).outputs[0]
        peak = copy.add_node("GlobalMaxPool", [magnitude]).outputs[0]
        peak.dtype = np.float32
        copy.outputs.append(peak)
        found[name] = peak.name
    session = OrtSession(copy.to_proto(), threads=cores())
    peaks: dict[str, npt.NDArray[np.float64]] = {}
    for sample in samples:
        values = session.run(sample.feeds, list(found.values()))
        for name in names:
            reached = values[found[name]].max(axis=0).astype(np.float64).ravel()
            peaks[name] = np.maximum(peaks.get(name, reached), reached)
    return peaks
