"""What a model is, and what onnxopt could do with it: facts for `onnxopt inspect`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import Shapes
from onnxopt.data import InputSpec
from onnxopt.graph import Graph, Tensor, is_standard
from onnxopt.pass_api import Context
from onnxopt.placement import plan
from onnxopt.report.record import PassRecord
from onnxopt.report.table import bytes_text, count_text, table
from onnxopt.targets import Target

SHOWN = 60  # characters of a metadata value
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})


@dataclass(frozen=True)
class Reason:
    """Why something is left alone, and where.

    Attributes:
        why: In words.
        where: Nodes or groups of channels.
    """

    why: str
    where: list[str]


@dataclass(frozen=True)
class Potential:
    """What a kind of optimization finds.

    Attributes:
        summary: In words.
        macs: MACs of the layers that it reaches.
        reached: What it reaches: name to size.
        left: What it leaves alone.
    """

    summary: str
    macs: int
    reached: dict[str, int]
    left: list[Reason]


@dataclass(frozen=True)
class ModelFacts:
    """A model in figures.

    Attributes:
        file: Name of the file.
        file_bytes: Its size, without external data.
        weight_bytes: Size of all initializers.
        ir_version: ONNX IR version.
        opsets: Domain to version.
        inputs: Name, type and declared shape.
        outputs: The same.
        run_at: Input shapes at which MACs were counted; None where none was found.
        parameters: Elements of the initializers.
        macs: Multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul for one run.
        uncounted: Weighted nodes whose sizes are not known.
        operators: Op type to count, most frequent first; operators of other domains with the domain before them.
        metadata: Key to value, long values cut.
        functions: Number of local functions.
        quantized: Whether the model holds quantized operators already.
        prunable: Which channels can be removed.
        quantizable: Which layers the target runs in int8.
    """

    file: str
    file_bytes: int
    weight_bytes: int
    ir_version: int
    opsets: dict[str, int]
    inputs: list[str]
    outputs: list[str]
    run_at: list[str] | None
    parameters: int
    macs: int
    uncounted: list[str]
    operators: dict[str, int]
    metadata: dict[str, str]
    functions: int
    quantized: bool
    prunable: Potential
    quantizable: Potential
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def inspect_model(
    graph: Graph, file_bytes: int, target: Target, inputs: tuple[InputSpec, ...] | None, notes: Iterable[str] = ()
) -> ModelFacts:
    """Gather what is known.

    Args:
        graph: The model.
        file_bytes: Size of its file.
        target: For which to ask what is quantizable.
        inputs: Sizes to count MACs at; None counts at the declared ones.
        notes: What else a reader should know.
    """
    context = Context(target, inputs=inputs or ())
    context.bind(graph, PassRecord("inspect"))
    cost, shapes = context.get(Cost), context.get(Shapes)
    operators = Counter(n.op if is_standard(n) else f"{n.domain}.{n.op}" for n in graph.walk())
    return ModelFacts(
        file=graph.source,
        file_bytes=file_bytes,
        weight_bytes=graph.nbytes(),
        ir_version=graph.ir_version,
        opsets={domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        inputs=[_declared(t) for t in graph.inputs],
        outputs=[_declared(t) for t in graph.outputs],
        run_at=None if inputs is None else [str(spec) for spec in inputs],
        parameters=cost.parameters,
        macs=cost.total_macs,
        uncounted=cost.unknown,
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        metadata={key: _cut(value) for key, value in graph.metadata.items()},
        functions=graph.functions,
        quantized=any(op.rpartition(".")[2] in QUANTIZERS for op in operators),
        prunable=_prunable(context.get(ChannelGroups)),
        quantizable=_quantizable(graph, target, shapes, cost),
        notes=list(notes),
    )


def _declared(tensor: Tensor) -> str:
    kind = np.dtype(tensor.dtype).name if tensor.dtype is not None else "unknown type"
    sizes = "unknown rank" if tensor.shape is None else ", ".join("?" if d is None else str(d) for d in tensor.shape)
    return f"{tensor.name}: {kind}[{sizes}]"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _prunable(groups: ChannelGroups) -> Potential:
    free = groups.free
    channels, total = sum(g.channels for g in free), sum(g.channels for g in groups.groups)
    return Potential(
        f"{channels} of {total} channels, in {len(free)} of {len(groups.groups)} groups",
        sum(g.macs for g in free),
        {g.name: g.channels for g in free},
        _by_reason((g.name, g.fixed) for g in groups.groups if g.fixed is not None),
    )


def _quantizable(graph: Graph, target: Target, shapes: Shapes, cost: Cost) -> Potential:
    placement = plan(graph, target, shapes)
    names = {n.outputs[0].name: n.name or n.outputs[0].name for n in graph.nodes if n.outputs}
    reached = {weight.node: cost.macs.get(weight.node, 0) for weight in placement.weights}
    macs = sum(reached.values())
    share = macs / cost.total_macs if cost.total_macs else 0.0
    return Potential(
        f"{len(reached)} weighted layers, {share:.1%} of the MACs, for target {target.name}",
        macs,
        {names[output]: count for output, count in reached.items()},
        _by_reason(placement.notes),
    )


def _by_reason(pairs: Iterable[tuple[str, str]]) -> list[Reason]:
    """Places gathered under their reason, the most frequent reason first."""
    gathered: dict[str, list[str]] = {}
    for where, why in pairs:
        gathered.setdefault(why, []).append(where)
    return sorted((Reason(why, where) for why, where in gathered.items()), key=lambda r: -len(r.where))


def facts_text(facts: ModelFacts, *, most: int = 4) -> str:
    """The facts for a terminal; of the places with one reason at most `most` are named."""
    rows = [
        ("file", f"{facts.file}, {bytes_text(facts.file_bytes)}, weights {bytes_text(facts.weight_bytes)}"),
        ("format", f"IR {facts.ir_version}, opset " + ", ".join(f"{d} {v}" for d, v in facts.opsets.items())),
        *_listing("inputs", facts.inputs),
        *_listing("outputs", facts.outputs),
        ("run at", "no size was found" if facts.run_at is None else "; ".join(facts.run_at)),
        ("parameters", count_text(facts.parameters)),
        ("MACs", count_text(facts.macs) + (f", {len(facts.uncounted)} layers uncounted" if facts.uncounted else "")),
        ("quantized", "yes" if facts.quantized else "no"),
    ]
    if facts.functions:
        rows.append(("functions", str(facts.functions)))
    operators = table([(op, str(count)) for op, count in facts.operators.items()], ("operator", "count"), right=(1,))
    parts = [table(rows), operators]
    if facts.metadata:
        parts.append("metadata\n" + _indent(table(facts.metadata.items())))
    parts += [_potential(name, getattr(facts, name), most) for name in ("prunable", "quantizable")]
    return "\n\n".join([*parts, *facts.notes])


def _listing(title: str, items: Sequence[str]) -> list[tuple[str, str]]:
    return [(title if i == 0 else "", item) for i, item in enumerate(items)]


def _potential(name: str, potential: Potential, most: int) -> str:
    lines = [f"{name}: {potential.summary}"]
    for reason in potential.left:
        more = f" and {len(reason.where) - most} more" if len(reason.where) > most else ""
        lines.append(f"  not {', '.join(reason.where[:most])}{more}: {reason.why}")
    return "\n".join(lines)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
