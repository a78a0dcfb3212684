"""How close a quantized model is to the float one: SQNR of the part of the outputs that suffers most."""

from collections.abc import Iterable

from onnxopt.data import Sample
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.evaluation.parts import output_parts
from onnxopt.graph import Graph
from onnxopt.runtime.ort import OrtSession


def sqnr_by_part(graph: Graph, reference: Graph, samples: Iterable[Sample], *, threads: int = 1) -> dict[str, float]:
    """SQNR in dB of each float output of a quantized model, Q and DQ computed as they are written.

    Boxes and scores of a known detector count as two outputs. Memory does not grow with the number of samples.

    Args:
        graph: The quantized model.
        reference: The float model.
        samples: What to run them on.
        threads: Threads of the sessions.
    """
    wanted = OrtSession(reference.to_proto(), threads=threads)
    given = OrtSession(graph.to_proto(), threads=threads, optimized=False)
    sums: dict[str, DistanceSums] = {}
    for sample in samples:
        parts = (output_parts(s.run(sample.feeds), sample.feeds, reference.metadata) for s in (wanted, given))
        first, second = parts
        for name, values in first.items():
            sums.setdefault(name, DistanceSums()).update(values, second[name])
    return {name: each.result().sqnr_db for name, each in sums.items()}
