"""Prove what a pass does: expected graph *and* equal outputs. For the built-in passes and for yours.

```python
from onnxopt.testing import assert_rewrites

def test_drops_dropout():
    assert_rewrites(
        DropDropout(),
        "(float[2] x) => (float[2] y) { a = Relu (x)  y = Dropout (a) }",
        "(float[2] x) => (float[2] y) { y = Relu (x) }",
    )
```

Graphs are written in the syntax of `onnx.parser`; model header and graph name may be left out. A weight declared
without data, `<float[8,3,3,3] w>`, gets seeded random values in the graph before, and stands for any values of that
type and shape in the graph after.
"""

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from onnxopt.graph import Array, Constant, Graph, Node, Tensor, is_standard, onnx_dtype
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context, Effect, Pass
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import NumberFormat, Target

__all__ = [
    "assert_preserves",
    "assert_rewrites",
    "graph_text",
    "outputs_of",
    "parse_graph",
    "plain_context",
    "random_feeds",
]

Runtime = Literal["ort", "reference"]
Outputs = dict[str, Array]

SHOWN = 16  # values; a longer weight is shown by its digest
ROUNDING = 1e-5  # of the largest output; see `Pass.effect`
LAST_PLACES = 4  # units in the last place, for half precision
SLACK = 3  # times what the runtime's own optimizations change
SYMBOL_SIZE = 2  # what a symbolic dimension is run at


def plain_context() -> Context:
    """A fresh context with a target that asks for nothing in particular, no data, and seed 0."""
    eight_bit = NumberFormat("uint8", symmetric=False), NumberFormat("int8", symmetric=True)
    return Context(Target("plain", "No runtime in particular", 13, *eight_bit))


def parse_graph(text: str, *, opset: int = 17, seed: int = 0) -> Graph:
    """Graph from text in the syntax of `onnx.parser`.

    Args:
        text: A whole model, a graph, or a graph without its name: `(float[2] x) => (float[2] y) { y = Relu (x) }`.
        opset: ONNX's operator set, for a text without model header.
        seed: For the values of weights that are declared without data.

    Raises:
        onnx.parser.ParseError: Not of that syntax.
    """
    return _parse(text, opset, seed)[0]


def _parse(text: str, opset: int, seed: int) -> tuple[Graph, set[str]]:
    """The graph, and the names of the weights that were declared without data."""
    text = text.strip()
    if text.startswith("("):
        text = f"graph {text}"
    if not text.startswith("<"):
        text = f'<ir_version: 8, opset_import: ["": {opset}]> {text}'
    model = parser.parse_model(text)
    known = {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer}
    known |= {name for node in model.graph.node for name in node.output}
    undefined = [v for v in model.graph.value_info if v.name not in known]
    generator = np.random.default_rng(seed)
    for value in undefined:
        model.graph.initializer.append(numpy_helper.from_array(_random(value, generator), value.name))
        model.graph.value_info.remove(value)
    return Graph.from_proto(model, source="text"), {v.name for v in undefined}


def _random(value: onnx.ValueInfoProto, generator: np.random.Generator) -> Array:
    """Normally distributed floats, whole numbers from 0 to 3, or truth values, of the declared type and shape."""
    kind = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else SYMBOL_SIZE for d in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if np.issubdtype(dtype, np.floating):
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    return np.asarray(generator.integers(0, 2 if dtype == np.bool_ else 4, shape)).astype(dtype)


def random_feeds(graph: Graph, seed: int = 0) -> Outputs:
    """Seeded random inputs; symbolic dimensions are 2."""
    generator = np.random.default_rng(seed)
    names = {t.name for t in graph.inputs}
    return {v.name: _random(v, generator) for v in graph.to_proto(weights=False).graph.input if v.name in names}


def outputs_of(
    graph: Graph, feeds: Mapping[str, Array], *, optimized: bool = False, runtime: Runtime = "ort"
) -> Outputs:
    """Outputs by name.

    Args:
        graph: What to run.
        feeds: Input name to array.
        optimized: Let ONNX Runtime optimize; off by default, so that what is written is what runs.
        runtime: `ort`, or `reference` for ONNX's reference evaluator.
    """
    if runtime == "ort":
        return OrtSession(graph.to_proto(), optimized=optimized).run(feeds)
    values = ReferenceEvaluator(graph.to_proto()).run(None, dict(feeds))
    return {tensor.name: np.asarray(value) for tensor, value in zip(graph.outputs, values, strict=True)}


def assert_rewrites(
    passes: Pass | Sequence[Pass],
    before: str | Graph,
    after: str | None,
    *,
    feeds: Mapping[str, Array] | None = None,
    notes: Iterable[str] = (),
    context: Context | None = None,
    opset: int = 17,
    runtimes: Sequence[Runtime] | None = None,
) -> Graph:
    """Run passes on a graph and compare the graph and its outputs with what is expected.

    Args:
        passes: One pass, or several to run in order.
        before: The graph; it is not changed.
        after: Expected graph as text, compared without regard to node names, names of inner tensors, value_info
            and order; None: the passes leave the graph alone.
        feeds: Inputs to compare on; default: two random sets.
        notes: Each must be part of a note `node: reason` that a pass left.
        context: Surroundings; default: `plain_context()`.
        opset: For texts without model header.
        runtimes: Which runtimes compare; default: ONNX Runtime, and the reference evaluator where all operators
            are ONNX's own.

    Returns:
        The graph after the passes.

    Raises:
        AssertionError: With a unified diff, or as `assert_preserves`.
    """
    run = _Run(passes, before, context, opset)
    _compare_text(run.before, run.after, after, opset)
    _check_notes(run.records, notes)
    _check_outputs(run, feeds, runtimes)
    return run.after


def assert_preserves(
    passes: Pass | Sequence[Pass],
    before: str | Graph,
    *,
    feeds: Mapping[str, Array] | None = None,
    context: Context | None = None,
    opset: int = 17,
    runtimes: Sequence[Runtime] | None = None,
) -> Graph:
    """Run passes on a graph and compare its outputs only, whatever the graph becomes.

    Outputs are compared within the `effect` that the passes promise (the widest of them): `exact` bit for bit;
    `rounding` max|a-b| <= max(1e-5, 3 x what ONNX Runtime's own optimizations change) x max|a| per output (four units
    in the last place instead of 1e-5 for half precision); `lossy` against the pass's `reference`, where it gives one,
    within rounding, and finite. ONNX's checker must accept the result, and `run()` must say truly whether it changed.

    Arguments and result are those of `assert_rewrites`.

    Raises:
        AssertionError: Naming the runtime, the output, and by how much it differs.
    """
    run = _Run(passes, before, context, opset)
    _check_outputs(run, feeds, runtimes)
    return run.after


class _Run:
    """Passes run over a graph.

    Attributes:
        steps: The passes.
        before: The graph before.
        after: The graph after.
        records: One record per pass.
    """

    def __init__(self, passes: Pass | Sequence[Pass], graph: str | Graph, context: Context | None, opset: int) -> None:
        self.steps = [passes] if isinstance(passes, Pass) else list(passes)
        self.before = parse_graph(graph, opset=opset) if isinstance(graph, str) else graph.copy()
        self.after = self.before.copy()
        self.records: list[PassRecord] = []
        surroundings = context or plain_context()
        for step in self.steps:
            start = self.after.copy()
            self.records.append(run_pass(step, self.after, surroundings, ()))
            _check_honest(self.records[-1], start, self.after)


def _check_outputs(run: _Run, feeds: Mapping[str, Array] | None, runtimes: Sequence[Runtime] | None) -> None:
    if not any(record.changed for record in run.records):
        return
    standard = _standard_only(run.before) and _standard_only(run.after)
    onnx.checker.check_model(run.after.to_proto(), full_check=_standard_only(run.after))
    chosen: Sequence[Runtime] = runtimes or (("ort", "reference") if standard else ("ort",))
    for given in [feeds] if feeds is not None else [random_feeds(run.before, seed) for seed in (0, 1)]:
        for runtime in chosen:
            _compare_outputs(run, given, runtime)


def _standard_only(graph: Graph) -> bool:
    return all(is_standard(node) for node in graph.walk())


def _check_honest(record: PassRecord, before: Graph, after: Graph) -> None:
    really = _state(before) != _state(after)
    assert record.changed == really, f"{record.name} returned {record.changed}, but the graph changed: {really}"


def _state(graph: Graph) -> bytes:
    """The whole file but recorded shapes, which go when a pass says that it changed something.

    Weights are written in one way: one that a pass has read is exported as raw bytes, whatever it was in the file.
    """
    model = graph.to_proto()
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model.SerializeToString(deterministic=True)


def _check_notes(records: Iterable[PassRecord], wanted: Iterable[str]) -> None:
    left = [f"{where}: {reason}" for record in records for where, reason in record.notes]
    for reason in wanted:
        assert any(reason in note for note in left), f"no note says '{reason}'; the notes are {left}"


def _compare_text(before: Graph, result: Graph, after: str | None, opset: int) -> None:
    if after is None:
        wanted, free = graph_text(before), set[str]()
    else:
        expected, undefined = _parse(after, opset, 0)
        names = _Names(expected)
        free = {names.of(c) for c in expected.initializers() if c.name in undefined}
        wanted = _text(expected, free)
    got = _text(result, free)
    if wanted != got:
        lines = difflib.unified_diff(wanted.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=3)
        raise AssertionError("the graph is not the one expected:\n" + "\n".join(lines))


def _compare_outputs(run: _Run, feeds: Mapping[str, Array], runtime: Runtime) -> None:
    before, effect = run.before, _widest(run.steps)
    wanted, got = outputs_of(before, feeds, runtime=runtime), outputs_of(run.after, feeds, runtime=runtime)
    assert list(wanted) == list(got), f"outputs were {list(wanted)} and are {list(got)}"
    if effect == "lossy":
        for name, value in got.items():
            assert np.isfinite(value).all(), f"{runtime}: output '{name}' is not finite"
        reference = run.steps[0].reference(before, run.after) if len(run.steps) == 1 else None
        if reference is None:
            return
        before, wanted = reference, outputs_of(reference, feeds, runtime=runtime)
    bounds = dict.fromkeys(wanted, 0.0) if effect == "exact" else _bounds(before, feeds)
    for name, value in wanted.items():
        _compare(f"{runtime}: output '{name}'", value, got[name], bounds[name])


def _widest(steps: Iterable[Pass]) -> Effect:
    effects = {step.effect for step in steps}
    return "lossy" if "lossy" in effects else "rounding" if "rounding" in effects else "exact"


def _bounds(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, float]:
    """Allowed difference of each output relative to its largest value."""
    plain, optimized = outputs_of(graph, feeds), outputs_of(graph, feeds, optimized=True)
    return {name: max(_floor(plain[name]), SLACK * _difference(plain[name], optimized[name])) for name in plain}


def _floor(values: Array) -> float:
    """What rounding may come to in any case; types coarser than float need more."""
    return max(ROUNDING, LAST_PLACES * float(np.finfo(values.dtype).eps)) if values.dtype.kind == "f" else ROUNDING


def _difference(wanted: Array, got: Array) -> float:
    """max|a-b| / max|a|; 0 where both are empty or zero."""
    if not wanted.size:
        return 0.0
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number, which no bound allows
        high, error = float(np.abs(a).max()), float(np.abs(a - b).max())
    return error / high if high else (0.0 if not error else float("inf"))


def _compare(what: str, wanted: Array, got: Array, bound: float) -> None:
    assert (wanted.dtype, wanted.shape) == (got.dtype, got.shape), (
        f"{what} was {wanted.dtype}{list(wanted.shape)} and is {got.dtype}{list(got.shape)}"
    )
    if wanted.tobytes() == got.tobytes():
        return
    error = _difference(wanted, got)
    assert bound, f"{what} differs by {error:.3g} of its largest value; it must be equal bit for bit"
    assert error <= bound, f"{what} differs by {error:.3g} of its largest value; {bound:.3g} is allowed"


def graph_text(graph: Graph) -> str:
    """A graph as text that two equal graphs share.

    Nodes stand in the order in which the outputs need them, inner tensors are `t0`, `t1`, …, initializers `c0`,
    `c1`, … Weights of more than 16 values are shown by digest. Node names, value_info and metadata are left out.
    """
    return _text(graph, ())


def _text(graph: Graph, free: Collection[str]) -> str:
    """Text of a graph; the initializers whose names in the text are in `free` show no values."""
    names = _Names(graph)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(graph.opsets.items()))
    lines = [f"opset {opsets}"]
    lines += [f"input {_declared(t, names)}" for t in graph.inputs]
    for constant in sorted(graph.initializers(), key=names.rank):
        name = names.of(constant)
        lines.append(f"{_type(constant)} {name}" + ("" if name in free else f" = {_values(constant)}"))
    lines += [line for node in names.order for line in _node_lines(node, names)]
    lines += [f"output {_declared(t, names)}" for t in graph.outputs]
    lines += [f"unused {_type(c)} {c.name}" for c in graph.unused_initializers]
    return "\n".join(lines) + "\n"


@dataclass
class _Counter:
    tensors: int = 0
    constants: int = 0


class _Names:
    """Names that depend on a graph's structure alone, and its nodes in the order the outputs need them."""

    def __init__(self, graph: Graph) -> None:
        self.order = list(_needed_order(graph.nodes, graph.outputs))
        self._names: dict[int, str] = {id(t): t.name for t in [*graph.inputs, *graph.outputs]}
        self._rank: dict[int, int] = {}
        count = _Counter()
        for node in self.order:
            self._name_node(node, count)
        for tensor in graph.outputs:
            self._name(tensor, count)

    def _name_node(self, node: Node, count: _Counter) -> None:
        for tensor in node.inputs:
            self._name(tensor, count)
        for inner in _inner_graphs(node):
            for tensor in inner.inputs:
                self._name(tensor, count)
            for child in inner.nodes:
                self._name_node(child, count)
        for tensor in node.outputs:
            self._name(tensor, count)

    def _name(self, tensor: Tensor, count: _Counter) -> None:
        if isinstance(tensor, Constant):
            self._rank.setdefault(id(tensor), len(self._rank))
        if id(tensor) in self._names or not tensor.name:
            return
        if isinstance(tensor, Constant):
            self._names[id(tensor)] = f"c{count.constants}"
            count.constants += 1
        else:
            self._names[id(tensor)] = f"t{count.tensors}"
            count.tensors += 1

    def of(self, tensor: Tensor) -> str:
        return self._names.get(id(tensor), tensor.name)

    def rank(self, constant: Constant) -> int:
        return self._rank.get(id(constant), len(self._rank))


def _needed_order(nodes: Sequence[Node], outputs: Iterable[Tensor]) -> Iterator[Node]:
    """Each node after those it needs, starting from the first output; what no output needs comes last."""
    top = {id(n) for n in nodes}
    done: set[int] = set()
    for root in [*(n for t in outputs for n in t.inputs), *nodes]:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if ready:
                done.add(id(node))
                if id(node) in top:
                    yield node
                continue
            stack.append((node, True))
            stack += [(n, False) for t in reversed(list(_reads(node))) for n in t.inputs]


def _reads(node: Node) -> Iterator[Tensor]:
    yield from node.inputs
    for inner in _inner_graphs(node):
        for child in inner.nodes:
            yield from _reads(child)


def _inner_graphs(node: Node) -> list[gs.Graph]:
    return [value for _, value in sorted(node.attrs.items()) if isinstance(value, gs.Graph)]


def _node_lines(node: Node, names: _Names, indent: str = "") -> Iterator[str]:
    outputs = ", ".join(names.of(t) if t.name else "_" for t in node.outputs)
    inputs = ", ".join(names.of(t) if t.name else "_" for t in node.inputs)
    plain = {k: v for k, v in sorted(node.attrs.items()) if not isinstance(v, gs.Graph)}
    attrs = ", ".join(f"{key} = {_attribute(value)}" for key, value in plain.items())
    domain = "" if is_standard(node) else f"{node.domain}."
    yield f"{indent}{outputs} = {domain}{node.op}" + (f" <{attrs}>" if attrs else "") + f" ({inputs})"
    for key, value in sorted(node.attrs.items()):
        if isinstance(value, gs.Graph):
            yield f"{indent}  {key} ({', '.join(names.of(t) for t in value.inputs)})"
            for child in value.nodes:
                yield from _node_lines(child, names, indent + "    ")
            yield f"{indent}    return {', '.join(names.of(t) for t in value.outputs)}"


def _attribute(value: Any) -> str:
    if isinstance(value, Constant):
        return f"{_type(value)} {_values(value)}"
    return f"{float(np.float32(value)):g}" if isinstance(value, float) else str(value)


def _declared(tensor: Tensor, names: _Names) -> str:
    return f"{_type(tensor)} {names.of(tensor)}"


def _type(tensor: Tensor) -> str:
    if tensor.dtype is None:
        return "?"
    kind = onnx.TensorProto.DataType.Name(onnx_dtype(tensor.dtype)).lower()
    shape = "" if tensor.shape is None else "[" + ",".join("?" if d is None else str(d) for d in tensor.shape) + "]"
    return re.sub(r"\[\]$", "", kind + shape)


def _values(constant: Constant) -> str:
    values = np.asarray(constant.values)
    if values.size > SHOWN:
        return "sha256:" + hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
    return "{" + ", ".join(str(v) for v in values.ravel()) + "}"
