"""How far a half graph's outputs are from the float32 ones.

SQNR says little of what stands behind a TopK, an ArgMax or a comparison: two scores that swap places swap whole rows.
Where an output depends on such a choice, what goes into the choice is judged in its place, and what is chosen from.

A quantized graph is another case: a value near the border between two integers falls to either side, so the least
rounding gives another sample of the same quantization noise, as far from the first as 3 dB more than that noise. There
the float32 graph without pairs is the reference, and what counts is the noise beyond that of the pairs.
"""

import math
from collections.abc import Sequence

import numpy as np

from onnxopt.analysis.half.emulation import emulated
from onnxopt.analysis.half.forms import HalfForm, is_single
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.collect import expose
from onnxopt.data import Feeds
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.graph import Array, Graph, Node, Tensor
from onnxopt.placement.strip import without_pairs
from onnxopt.runtime.ort import OrtSession

SELECTIONS = frozenset(
    {"TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "Unique", "Multinomial", "Compress"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Hardmax"}
)


def judged(graph: Graph, shapes: Shapes) -> list[str]:
    """Names of the float32 tensors to compare: outputs, or what goes into the choices that outputs depend on."""
    data = {id(t) for t in graph.inputs}
    chosen: set[int] = set()
    frontier: dict[str, None] = {}
    for node in graph.nodes:
        reads = [t for t in _reads(node) if id(t) in data]
        if not reads or node.op in {"Shape", "Size"}:
            continue
        data.update(id(t) for t in node.outputs)
        if node.op in SELECTIONS or _rounds(node, shapes) or any(id(t) in chosen for t in reads):
            chosen.update(id(t) for t in node.outputs)
            frontier |= {t.name: None for t in reads if id(t) not in chosen and is_single(t, shapes)}
    plain = [t.name for t in graph.outputs if is_single(t, shapes) and id(t) not in chosen]
    given = {t.name for t in graph.inputs}
    behind = frontier if any(id(t) in chosen for t in graph.outputs) else {}
    return [name for name in dict.fromkeys([*plain, *behind]) if name not in given]


def _reads(node: Node) -> list[Tensor]:
    nested = [t for v in node.attrs.values() if hasattr(v, "nodes") for n in v.nodes for t in _reads(n)]
    return [*node.inputs, *nested]


def _rounds(node: Node, shapes: Shapes) -> bool:
    """Whether a node makes whole numbers of floats."""
    kind = shapes.dtype(node.outputs[0]) if node.op == "Cast" else None
    return kind is not None and kind.kind in "iub" and is_single(node.inputs[0], shapes)


class Judge:
    """Runs half versions of one graph on a few samples.

    Args:
        graph: The float32 model.
        forms: Of its nodes.
        shapes: Types.
        samples: Values of all inputs, few times; the judged values of all of them are held.
        threads: Threads of the sessions.

    Attributes:
        names: Tensors that are compared.
        baseline: Noise of the graph's own Q/DQ pairs; 0 where it has none.
    """

    def __init__(
        self, graph: Graph, forms: Sequence[HalfForm], shapes: Shapes, samples: Sequence[Feeds], threads: int = 1
    ) -> None:
        self._graph, self._forms, self._threads = graph, forms, threads
        self._quantized = any(n.op == "QuantizeLinear" for n in graph.nodes)
        self._samples = samples
        self.runs = 0
        self.baseline = 0.0
        self.names = judged(graph, shapes)
        if self._quantized:
            structure = without_pairs(graph)
            there = {t.name for n in structure.nodes for t in n.outputs}
            self.names = [name for name in judged(structure, shapes) if name in there]
            self._wanted = self._run(structure)
            self.baseline = self._compared(graph)
        else:
            self._wanted = self._run(graph)

    def inputs_alone(self) -> float:
        """Noise of float32 inputs rounded to half, all else in float32: what the model itself makes of an error."""
        rounded = [{k: _rounded(v) for k, v in feeds.items()} for feeds in self._samples]
        return self._noise_of(self._run(self._graph, rounded))

    def _run(self, graph: Graph, samples: Sequence[Feeds] | None = None) -> list[dict[str, Array]]:
        if not self.names:
            return []
        # Fused int8 kernels round sums where Q and DQ as written do not: that is no matter of float16.
        session = OrtSession(expose(graph, self.names).to_proto(), threads=self._threads, optimized=not self._quantized)
        return [session.run(feeds, self.names) for feeds in (self._samples if samples is None else samples)]

    def noise(self, half: frozenset[int]) -> float:
        """Power of the error over that of the signal, of the tensor that suffers most; infinite where it overflows.

        Beside pairs, what is beyond `baseline`.
        """
        self.runs += 1
        return max(0.0, self._compared(emulated(self._graph, half, self._forms)) - self.baseline)

    def goal(self, sqnr: float) -> float:
        """The most noise allowed: `sqnr` dB, or as much as the pairs make."""
        return max(10 ** (-sqnr / 10), self.baseline)

    def _compared(self, graph: Graph) -> float:
        return self._noise_of(self._run(graph))

    def _noise_of(self, got: Sequence[dict[str, Array]]) -> float:
        return max((_noise([w[n] for w in self._wanted], [g[n] for g in got]) for n in self.names), default=0.0)


def _rounded(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values


def _noise(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    sums = DistanceSums()
    for a, b in zip(wanted, got, strict=True):
        _add(sums, a, b)
    decibels = sums.result().sqnr_db
    return math.inf if math.isnan(decibels) else 10 ** (-decibels / 10)


def _add(sums: DistanceSums, wanted: Array, got: Array) -> None:
    """Compare what is a number in the reference: what is none stays none."""
    none = np.isnan(wanted)
    if none.any() and wanted.shape == got.shape and np.isnan(got[none]).all():
        wanted, got = wanted[~none], got[~none]
    sums.update(wanted, got)


def proved(before: Graph, after: Graph, samples: Sequence[Feeds], *, optimized: bool = True) -> dict[str, float]:
    """Run the half graph in ONNX Runtime; the lowest SQNR of each float output in dB.

    Args:
        before: The float32 model.
        after: The half one.
        samples: Values of all inputs.
        optimized: Whether to run it with optimizations, too.

    Raises:
        OptimizationError: It does not load or run, or an output is not finite that was.
    """
    worst: dict[str, float] = {}
    reference = OrtSession(before.to_proto(), optimized=False)
    for level in (False, True) if optimized else (False,):
        session = OrtSession(after.to_proto(), optimized=level)
        sums: dict[str, DistanceSums] = {}
        for feeds in samples:
            wanted, got = reference.run(feeds), session.run(feeds)
            for name, values in wanted.items():
                if values.dtype.kind == "f":
                    _add(sums.setdefault(name, DistanceSums()), values, got[name])
        for name, total in sums.items():
            found = total.result().sqnr_db
            if math.isnan(found) and math.isfinite(total.signal):
                raise OptimizationError(f"output '{name}' is not finite in half precision")
            worst[name] = min(worst.get(name, math.inf), found)
    return worst
