"""What the float model gives on a few samples, held to compare one candidate after another with.

Outputs are taken apart where their columns mean different things (see `Decoder.parts`): the boxes of a detector, in
pixels, are so much larger than its scores that together they would hide all errors of these.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnxopt.data import Feeds
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.evaluation.decoding import Reader
from onnxopt.graph import Graph
from onnxopt.runtime.ort import OrtSession

LEAST = 0.1  # of the mean power of a signal

Run: TypeAlias = Callable[[Feeds], Feeds]
FloatArray: TypeAlias = npt.NDArray[np.float64]


class FloatOutputs:
    """The float model's outputs; memory grows with the number of samples.

    Args:
        graph: The float model.
        samples: Its inputs, per sample.
        threads: Threads of the session.
    """

    def __init__(self, graph: Graph, samples: Sequence[Feeds], *, threads: int = 1) -> None:
        session = OrtSession(graph.to_proto(), threads=threads)
        self._reader = Reader(graph.metadata)
        self._wanted = [(feeds, self._reader.parts(session.run(feeds), feeds)) for feeds in samples]

    def sqnr_db(self, run: Run, most: int | None = None) -> dict[str, float]:
        """SQNR of each part of the outputs, in dB: infinite where all are equal, minus infinite where it is no number.

        Args:
            run: The candidate: from a sample's inputs to its outputs.
            most: Look at so many samples, the first ones; None: at all.
        """
        sums: dict[str, DistanceSums] = {}
        for feeds, wanted in self._wanted[:most]:
            given = self._reader.parts(run(feeds), feeds)
            for name, values in wanted.items():
                sums.setdefault(name, DistanceSums()).update(values, given[name])
        found = {name: each.result().sqnr_db for name, each in sums.items()}
        return {name: -math.inf if math.isnan(db) else db for name, db in found.items()}

    def worst_sqnr_db(self, run: Run, most: int | None = None) -> float:
        """SQNR of the part that suffers most, in dB; infinite where all are equal or none is float."""
        return min(self.sqnr_db(run, most).values(), default=math.inf)

    def noise(self, run: Run, most: int | None = None) -> float:
        """Power of the error over that of the signal: the mean over samples, summed over the parts.

        Each sample counts as much as any other, unlike in `sqnr_db`, where the one with most to see decides. One with
        next to no signal is measured by that of the others.

        Args:
            run: The candidate: from a sample's inputs to its outputs.
            most: Look at so many samples, the first ones; None: at all.

        Returns:
            0 where all are equal, infinite where something is no number or of another shape.
        """
        powers: dict[str, list[tuple[float, float]]] = {}
        for feeds, wanted in self._wanted[:most]:
            given = self._reader.parts(run(feeds), feeds)
            for name, values in wanted.items():
                sums = DistanceSums()
                sums.update(values, given[name])
                error = sums.error if sums.compared and math.isfinite(sums.error) else math.inf
                powers.setdefault(name, []).append((sums.signal, error))
        return sum(_mean_noise(*np.array(rows).T) for rows in powers.values())


def _mean_noise(signal: FloatArray, error: FloatArray) -> float:
    least = LEAST * signal.mean()
    if least == 0:
        return math.inf if error.any() else 0.0
    return float(np.mean(error / np.maximum(signal, least)))
