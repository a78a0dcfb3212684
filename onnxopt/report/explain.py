"""Which share of a model really runs in int8, and why the rest does not: facts for `onnxopt explain`."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from onnxopt.analysis.cost import Cost
from onnxopt.analysis.int8_reasons import Reasons
from onnxopt.analysis.tensorrt_rules.finding import Finding
from onnxopt.data import InputSpec
from onnxopt.errors import UsageError
from onnxopt.evaluation import measure
from onnxopt.graph import Graph, label
from onnxopt.report.table import count_text, table
from onnxopt.runtime.adapter import Kernels, install_hint, load_runtime
from onnxopt.targets import Target

NOTHING = "nothing is quantized: the model holds no Q/DQ; `onnxopt run --passes quantize` puts them in"
INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"})


@dataclass(frozen=True)
class FloatLayer:
    """A weighted layer that does not run in int8.

    Attributes:
        node: Its label.
        macs: Its multiply-accumulates; 0 where a size is not known.
        reason: Why.
    """

    node: str
    macs: int
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What a target makes of a model.

    Attributes:
        file: Name of the model's file.
        target: The target's name.
        runtime: Name and version of what was asked; "" where only rules were checked.
        quantized: Whether the model holds Q/DQ.
        layers: Number of Conv, ConvTranspose, Gemm and MatMul nodes.
        int8_layers: How many of them run in int8, or should by the rules where nothing was asked.
        macs: MACs of all of them.
        int8_share: Share of MACs in int8.
        left: The others, the largest first.
        conversions: Conversions left at run time, by kind.
        findings: Rules that the graph breaks.
        notes: What else a reader should know.
    """

    file: str
    target: str
    runtime: str
    quantized: bool
    layers: int
    int8_layers: int
    macs: int
    int8_share: float
    left: list[FloatLayer]
    conversions: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def explain_model(
    graph: Graph, target: Target, inputs: tuple[InputSpec, ...] | None, notes: Iterable[str] = ()
) -> Explanation:
    """Ask the target's runtime what it does with a graph, or check its rules where it cannot run here.

    Args:
        graph: The model, quantized or not.
        target: Whose int8 to ask about.
        inputs: Sizes to count MACs at; None counts at the declared ones.
        notes: What else a reader should know.

    Raises:
        UsageError: The target neither runs here nor has rules to check.
        OptimizationError: The runtime cannot load the model.
    """
    runtime = load_runtime(target)
    if runtime is None and not target.checker:
        missing = f"use {target.machine}" if target.machine is not None else "install its runtime"
        missing += install_hint(target)
        raise UsageError(f"target '{target.name}' cannot run here, so nothing can be read back; {missing}")
    costs = measure.cost(graph, target, inputs or ())
    reasons = Reasons(graph, target)
    findings = [] if runtime is not None else _check(target, graph)
    kernels = measure.read_kernels(graph, runtime) if runtime is not None else _expected(reasons, findings)
    quantized = any(n.op in {"QuantizeLinear", "DequantizeLinear"} for n in graph.walk())
    macs = measure.macs_by_name(graph, costs)
    nodes = {n.name: n for n in reasons.view.weighted}
    broken = {f.node: f.text for f in findings}
    left = [
        FloatLayer(label(n), macs.get(name, 0), broken.get(label(n)) or reasons.of(n))
        for name, n in nodes.items()
        if name in kernels.floating
    ]
    total = sum(macs.values())
    return Explanation(
        file=graph.source,
        target=target.name,
        runtime=runtime.version if runtime is not None else "",
        quantized=quantized,
        layers=len(nodes),
        int8_layers=len(kernels.int8),
        macs=total,
        int8_share=measure.int8_share(kernels, macs),
        left=sorted(left, key=lambda layer: -layer.macs),
        conversions=kernels.conversions,
        findings=findings,
        notes=[*notes, *_remarks(graph, target, reasons, costs, quantized=quantized)],
    )


def _check(target: Target, graph: Graph) -> list[Finding]:
    module, _, name = target.checker.partition(":")
    found: list[Finding] = getattr(import_module(module), name)(graph)
    return found


def _expected(reasons: Reasons, findings: list[Finding]) -> Kernels:
    """Layers that should run in int8: quantized on both sides, and no rule broken at them or at their quantizers."""
    view = reasons.view
    broken = {f.node for f in findings}
    int8 = set()
    for node in view.weighted:
        pair, weight = view.input_pair(node), view.weight(node.inputs[1])
        if pair is None or weight is None:
            continue
        parts = [node, pair, weight, view.quantizer(pair)]
        if not any(label(part) in broken for part in parts if part is not None):
            int8.add(node.name)
    return Kernels(frozenset(int8), frozenset(n.name for n in view.weighted) - int8)


def _remarks(graph: Graph, target: Target, reasons: Reasons, costs: Cost, *, quantized: bool) -> Iterator[str]:
    if not quantized:
        yield NOTHING
    if costs.unknown:
        yield f"{len(costs.unknown)} layers have unknown sizes and count nothing; give --input-shape"
    integers = sum(n.op in INTEGER_OPS for n in graph.walk())
    if integers:
        yield f"{integers} layers are integer operators already (QLinearConv and others) and are not counted"
    view = reasons.view
    kinds = Counter(view.type_of(w) for n in view.weighted if (w := view.weight(n.inputs[1])) is not None)
    odd = {kind: count for kind, count in kinds.items() if kind != target.weight.dtype}
    for kind, count in odd.items():
        yield f"{count} layers have {kind} weights; {target.name} is fast with {target.weight.dtype}"


def explanation_text(facts: Explanation, *, most: int = 3) -> str:
    """The facts for a terminal; of the layers with one reason at most `most` are named."""
    how = facts.runtime or "not measured: what its documented rules say"
    share = f"{facts.int8_share:.1%} of {count_text(facts.macs)}, {facts.int8_layers} of {facts.layers} layers"
    left = ", ".join(f"{count} {kind}" for kind, count in facts.conversions.items())
    rows = [("model", facts.file), ("target", f"{facts.target} ({how})"), ("int8 share of MACs", share)]
    if facts.runtime:
        rows.append(("conversions at run time", left or "none"))
    parts = [table(rows), "\n".join(facts.notes), _reasons_text(facts, most), _findings_text(facts, most)]
    return "\n\n".join(part for part in parts if part)


def _reasons_text(facts: Explanation, most: int) -> str:
    if not facts.left:
        return ""
    gathered: dict[str, list[FloatLayer]] = {}
    for layer in facts.left:
        gathered.setdefault(layer.reason, []).append(layer)
    rows = []
    for reason, layers in sorted(gathered.items(), key=lambda item: -sum(f.macs for f in item[1])):
        part = sum(f.macs for f in layers) / facts.macs if facts.macs else 0.0
        rows.append((f"{part:.1%}", str(len(layers)), reason))
        rows.append(("", "", f"  {_some([f'{f.node} ({count_text(f.macs)})' for f in layers], most)}"))
    return "in float\n" + table(rows, ("MACs", "layers", "why"), right=(0, 1))


def _findings_text(facts: Explanation, most: int) -> str:
    if facts.runtime:
        return ""
    if not facts.findings:
        return "the rules find nothing to object to"
    gathered: dict[tuple[str, str], list[str]] = {}
    for found in facts.findings:
        gathered.setdefault((found.rule, found.text), []).append(found.node)
    rows = [(rule, str(len(nodes)), f"{text}: {_some(nodes, most)}") for (rule, text), nodes in gathered.items()]
    return "rules broken\n" + table(rows, ("rule", "times", "what and where"), right=(1,))


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
