"""One row per layer: what it computes in, what that costs in accuracy and time, and why it is not int8."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxopt.analysis.int8_reasons import Reasons
from onnxopt.evaluation.layer_noise import LayerNoise
from onnxopt.graph import Graph, Node
from onnxopt.profiling.mapping import QUANTIZERS
from onnxopt.profiling.profile import LayerTime, Profile
from onnxopt.report.document import Layer
from onnxopt.runtime.adapter import Kernels
from onnxopt.targets import Target

MOST = 1500  # rows; a page of more is of no use to anybody


@dataclass(frozen=True)
class Known:
    """What there is to show; a part that was not measured is None.

    Attributes:
        kernels: Which nodes run in int8.
        noise: Error of tensors.
        profile: Times of the optimized model's layers.
        before: Times of the layers of the model as given.
        macs: Multiply-accumulates by node name, for want of a profile.
    """

    kernels: Kernels | None
    noise: LayerNoise | None
    profile: Profile | None
    before: Profile | None
    macs: Mapping[str, int]


def layer_table(graph: Graph, target: Target, known: Known) -> tuple[Layer, ...]:
    """Rows in order of execution; of very many the slowest.

    Args:
        graph: The optimized model.
        target: What it was optimized for.
        known: What was measured.
    """
    named = graph.copy()
    named.name_nodes()
    rows = _Rows(named, target, known)
    if known.profile is not None:
        timed = sorted(known.profile.layers, key=lambda layer: -layer.total_ms)[:MOST]
        shown = {layer.name for layer in timed}
        return tuple(rows.timed(layer) for layer in known.profile.layers if layer.name in shown)
    listed = [n for n in named.nodes if n.op not in QUANTIZERS and n.op != "Constant"]
    return tuple(rows.untimed(node) for node in listed[:MOST])


class _Rows:
    def __init__(self, graph: Graph, target: Target, known: Known) -> None:
        self._graph, self._known = graph, known
        self._nodes = {n.name: n for n in graph.nodes}
        self._reasons = Reasons(graph, target)
        self._weighted = {n.name: n for n in self._reasons.view.weighted}
        before = known.before.layers if known.before is not None else ()
        self._before = {layer.name: layer.total_ms for layer in before}

    def timed(self, layer: LayerTime) -> Layer:
        """Row of a layer that the runtime timed."""
        nodes = [self._nodes[name] for name in layer.nodes if name in self._nodes]
        int8, reason = self._int8(layer.nodes)
        return Layer(
            name=layer.name,
            op=layer.op,
            kind=layer.precision,
            scale=self._scale(nodes),
            sqnr_db=self._sqnr(nodes),
            macs=layer.macs or None,
            milliseconds=layer.total_ms,
            before_ms=self._before.get(layer.name),
            bound=layer.bound,
            int8=int8,
            reason=reason,
        )

    def untimed(self, node: Node) -> Layer:
        """Row of a node of the graph."""
        int8, reason = self._int8([node.name])
        return Layer(
            name=node.name,
            op=node.op,
            scale=self._scale([node]),
            sqnr_db=self._sqnr([node]),
            macs=self._known.macs.get(node.name),
            int8=int8,
            reason=reason,
        )

    def _int8(self, names: Iterable[str]) -> tuple[bool | None, str]:
        weighted = [name for name in names if name in self._weighted]
        if not weighted or self._known.kernels is None:
            return None, ""
        floating = next((name for name in weighted if name not in self._known.kernels.int8), None)
        return (True, "") if floating is None else (False, self._reasons.of(self._weighted[floating]))

    def _sqnr(self, nodes: Iterable[Node]) -> float | None:
        found = self._known.noise.sqnr_db if self._known.noise is not None else {}
        return min((found[t.name] for n in nodes for t in n.outputs if t.name in found), default=None)

    def _scale(self, nodes: Iterable[Node]) -> float | None:
        """Of the quantizer behind a layer, or behind the activation that alone reads it."""
        found = self._known.noise.quantizers if self._known.noise is not None else {}
        for tensor in (t for n in nodes for t in n.outputs):
            readers = self._graph.consumers(tensor)
            behind = [t for n in readers for t in n.outputs] if len(readers) == 1 else []
            for one in (tensor, *behind):
                if one.name in found:
                    return found[one.name].scale
        return None
