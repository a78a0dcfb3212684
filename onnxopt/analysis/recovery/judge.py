"""How close a quantized model is to the float one, on samples that nothing was fitted to."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from onnxopt.data import Sample
from onnxopt.evaluation.agreement import Comparison
from onnxopt.graph import Graph
from onnxopt.runtime.ort import OrtSession

GAIN = 0.05  # dB; less is noise
LOSS = 0.02  # of the agreement; what chance makes of some hundred answers
FLIPPED = 1.5  # answers; of few, one that turns says as little


@dataclass(frozen=True)
class Closeness:
    """Two ways to say it. Least squares may bring numbers closer and, by making them smaller, answers further off.

    Attributes:
        parts: SQNR in dB of each float output; boxes and scores of a known detector count as two.
        agreement: Share of equal top classes or texts, or F1 of the confident detections, 0..1; None for other models.
        answers: How many that is a share of.
    """

    parts: dict[str, float]
    agreement: float | None
    answers: float = math.inf

    @property
    def sqnr_db(self) -> float:
        """SQNR of the part that suffers most; infinite where all are equal."""
        return min((v for v in self.parts.values() if not math.isnan(v)), default=math.inf)

    def improves(self, other: "Closeness", gain: float = GAIN) -> bool:
        """Whether this is closer than another: in numbers, by this many dB, and in answers no further off."""
        return self.answers_like(other) and self.sqnr_db > other.sqnr_db + gain

    def answers_like(self, other: "Closeness") -> bool:
        """Whether as many answers are those of the float model, but for what chance makes of that."""
        if self.agreement is None or other.agreement is None:
            return True
        allowed = max(LOSS, FLIPPED / self.answers) if self.answers else math.inf
        return self.agreement >= other.agreement - allowed

    def __str__(self) -> str:
        answers = f", agreement {100 * self.agreement:.1f} %" if self.agreement is not None else ""
        return f"{self.sqnr_db:.1f} dB{answers}"


def closeness(graph: Graph, reference: Graph, samples: Iterable[Sample], *, threads: int = 1) -> Closeness:
    """Compare, with Q and DQ computed as they are written. Memory does not grow with the number of samples.

    Args:
        graph: The quantized model.
        reference: The float model.
        samples: What to run them on.
        threads: Threads of the sessions.
    """
    sessions = (
        OrtSession(reference.to_proto(), threads=threads),
        OrtSession(graph.to_proto(), threads=threads, optimized=False),
    )
    answers = Comparison(reference.metadata)
    for sample in samples:
        wanted, given = (session.run(sample.feeds) for session in sessions)
        answers.update(wanted, given, sample)
    agreement = answers.result()
    parts = {name: distance.sqnr_db for name, distance in agreement.parts.items()}
    return Closeness(parts, agreement.share, agreement.answers)
