"""What every installed pass must be and do, whoever wrote it."""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from onnxopt import Context, Graph, Pass, UsageError, load
from onnxopt.cli.describe import SECTIONS, body, sections
from onnxopt.data import synthetic
from onnxopt.evaluation.inputs import fill_batch, resolve_inputs
from onnxopt.manager import Observer, run_pass
from onnxopt.observers.outputs import serialised
from onnxopt.observers.verify import Verify
from onnxopt.pipeline import Entry, parse
from onnxopt.registry import PASSES, PIPELINES, load_pass, names
from onnxopt.report.record import PassRecord
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph

TESTDATA = Path(__file__).parents[1] / "testdata"
TARGET = replace(ORT, alignment=4)  # small enough for small graphs
HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "there" : 1]> g '

GRAPHS = {
    "conv-bn-relu": """(float[N,3,8,8] x) => (float[N,8] y) <float[16,3,3,3] w,
        float[16] s, float[16] b, float[16] m,
        float[16] v = {1., 2., 1., 2., 1., 2., 1., 2., 1., 2., 1., 2., 1., 2., 1., 2.}, float[8,16,1,1] w2,
        float[8,8] g> {
        c = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, s, b, m, v)  r = Relu (n)
        d = Conv (r, w2)  p = GlobalAveragePool (d)  f = Flatten (p)  y = Gemm (f, g) }""",
    "residual-silu": """(float[1,8,8,8] x) => (float[1,8,8,8] y) <float[8,8,3,3] w, float[8] b, float[8,8,1,1] w2> {
        c = Conv <pads = [1, 1, 1, 1]> (x, w, b)  s = Sigmoid (c)  m = Mul (c, s)  d = Conv (m, w2)
        y = Add (d, x) }""",
    "depthwise": """(float[1,8,9,9] x) => (float[1,8,5,5] y) <float[16,8,1,1] w,
        float[16,1,3,3] d, float[8,16,1,1] p,
        float low = {0.0}, float high = {6.0}> {
        a = Conv (x, w)  b = Clip (a, low, high)  c = Conv <group = 16, strides = [2, 2], pads = [1, 1, 1, 1]> (b, d)
        e = Clip (c, low, high)  y = Conv (e, p) }""",
    "concat-split-resize": """(float[1,8,4,4] x) => (float[1,8,8,8] y)
        <float[8,8,1,1] w, float[8,12,1,1] w2, int64[2] parts = {4, 4}, float[4] scales = {1., 1., 2., 2.}> {
        a = Conv (x, w)  u, v = Split <axis = 1> (a, parts)  r = Relu (v)  m = MaxPool <kernel_shape = [1, 1]> (v)
        c = Concat <axis = 1> (u, r, m)  z = Resize <mode = "nearest"> (c, , scales)  y = Conv (z, w2) }""",
    "shape-arithmetic": """(float[1,6,4] x) => (float[2,12] y) <int64 one = {1}, int64 two = {2}, int64[1] axis = {0}> {
        s = Shape (x)  c = Gather (s, one)  d = Mul (c, two)  e = Unsqueeze (d, axis)  t = Unsqueeze (two, axis)
        n = Concat <axis = 0> (t, e)  i = Identity (x)  y = Reshape (i, n) }""",
    "constants-dead-twice": """(float[1,4] x) => (float[1,4] y, float[1,4] z) <float[4] a, float[4] b,
        float[9] unused> {
        ab = Mul (a, b)  dead = Relu (x)  p = Add (x, ab)  q = Add (x, ab)  k = Constant <value = float {2.0}> ()
        r = Mul (p, k)  y = Dropout (r)  z = Mul (q, k) }""",
    "matmul-attention": """(float[1,6,8] x) => (float[1,6,8] y) <float[8,8] q, float[8,8] k, float[8,8] v,
        float scale = {0.35}> {
        a = MatMul (x, q)  b = MatMul (x, k)  c = MatMul (x, v)  t = Transpose <perm = [0, 2, 1]> (b)
        s = MatMul (a, t)
        m = Mul (s, scale)  p = Softmax <axis = -1> (m)  y = MatMul (p, c) }""",
    "nested": """(float[1,4] x, bool flag) => (float[1,4] y) <float[4] w, float[4] v> {
        a = Mul (x, w)
        y = If (flag) <
            then_branch = t () => (float[1,4] out) { b = Add (a, v)  out = Relu (b) },
            else_branch = e () => (float[1,4] out) { out = Identity (a) }
        > }""",
    "passed-through": "(float[2,3] x) => (float[2,3] x, float[2,3] y) { y = Identity (x) }",
    "half": """(float16[1,4,4,4] x) => (float16[1,4,4,4] y) <float16[4,4,1,1] w, float16[4,1,1] s> {
        a = Conv (x, w)  y = Mul (a, s) }""",
    "quantized": """(float[1,4,4,4] x) => (float[1,4,4,4] y) <float[4,4,1,1] w, float s = {0.1}, uint8 z = {128}> {
        q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  c = Conv (d, w)
        q2 = QuantizeLinear (c, s, z)  y = DequantizeLinear (q2, s, z) }""",
    "foreign": """(float[1,4] x) => (float[1,4] y) <float[4] w> {
        a = Mul (x, w)  b = there.Thing (a)  y = Relu (b) }""",
    "overridable": """(float[1,4] x, float[4] w) => (float[1,4] y) <float[4] w, float[4] v> {
        wv = Mul (w, v)  y = Mul (x, wv) }""",
    "old": """<ir_version: 3, opset_import: ["" : 9]> g (float[1,3,4,4] x, float[4,3,1,1] w) => (float[1,4,8,8] y)
        <float[4,3,1,1] w, float[4] scales = {1., 1., 2., 2.}> {
        a = Conv (x, w)  b = Relu (a)  y = Upsample (b, scales) }""",
}
FILES = sorted(TESTDATA.glob("*.onnx"))
EFFECTS = {"exact", "rounding", "lossy"}

every_pass = pytest.mark.parametrize("name", names(PASSES))
every_graph = pytest.mark.parametrize("source", [*GRAPHS, *(file.name for file in FILES)])


def build(source: str) -> Graph:
    if source not in GRAPHS:
        return load(TESTDATA / source)
    text = GRAPHS[source]
    return parse_graph(text if text.startswith("<") else HEADER + text)


def surroundings(graph: Graph) -> Context:
    inputs, _ = resolve_inputs(graph)
    data = synthetic(inputs, 4)
    fit, holdout = data.split_holdout()
    return Context(TARGET, inputs=inputs, fit=fit, holdout=holdout, synthetic=True)


def with_requirements(step: Pass, graph: Graph, context: Context) -> None:
    """Run the passes that make what a pass requires."""
    for kind in step.requires:
        if not context.has(kind):
            maker = next(p for p in map(load_pass, names(PASSES)) if kind in p.provides)
            with_requirements(maker(), graph, context)
            run_pass(maker(), graph, context, [])


def verified(step: Pass, graph: Graph) -> None:
    """Run a pass under full verification; a refusal skips the test."""
    context = surroundings(graph)
    feeds = [fill_batch(sample.feeds, context.inputs) for sample in synthetic(context.inputs, 2, seed=1)]
    list(changes(step, graph, context, [Verify("full", feeds)], most=1))


def applied(step: Pass, graph: Graph) -> PassRecord:
    """Run a pass once. A refusal skips the test."""
    context = surroundings(graph)
    try:
        with_requirements(step, graph, context)
        return run_pass(step, graph, context, [])
    except UsageError as refusal:
        pytest.skip(f"refused: {refusal}")


def changes(step: Pass, graph: Graph, context: Context, observers: Sequence[Observer], *, most: int) -> Iterator[bool]:
    """Run a pass several times; whether each changed the graph. A refusal skips the test."""
    try:
        with_requirements(step, graph, context)
        for _ in range(most):
            yield run_pass(step, graph, context, observers).changed
    except UsageError as refusal:
        pytest.skip(f"refused: {refusal}")


@every_pass
def test_name(name):
    kind = load_pass(name)
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    assert kind.name == name
    assert kind.__module__.rpartition(".")[2] == name.replace("-", "_")
    assert not kind.__name__.endswith("Pass")


@every_pass
def test_documented(name):
    kind = load_pass(name)
    assert kind.summary().endswith(".")
    assert len(kind.summary()) <= 110
    assert sections(kind) == list(SECTIONS)
    assert re.search(rf"^Effect[^\n]*: {kind.effect}\b", body(kind), re.MULTILINE), (
        "the Effect section names the effect"
    )
    assert inspect.getmodule(kind).__doc__


@every_pass
def test_declared(name):
    kind = load_pass(name)
    assert kind.effect in EFFECTS
    for types in (kind.requires, kind.provides, kind.preserves):
        assert isinstance(types, tuple)
        assert all(isinstance(t, type) for t in types)


@every_pass
def test_options(name):
    kind = load_pass(name)
    step = kind()
    for spec in kind.options():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.name)
        assert spec.help.endswith(".")
        assert getattr(step, spec.name) == spec.default
    entry = Entry(name, step.option_values())
    (again,) = parse(str(entry)).entries
    assert kind.from_options(again.options) == step


@every_pass
def test_refuses_unknown_options(name):
    with pytest.raises(UsageError, match=rf"{name}: unknown option 'no_such_option'"):
        load_pass(name).from_options({"no_such_option": 1})


@every_graph
@every_pass
def test_keeps_its_promise(name, source):
    """Valid model, same interface, honest `changed`, true `preserves`, outputs within `effect`.

    Copies of the graph are left alone; they share its weights, so no array may be written to.
    """
    graph = build(source)
    for constant in graph.initializers():
        constant.values = constant.values.copy()
        constant.values.flags.writeable = False
    original = graph.copy()
    before = serialised(original)
    verified(load_pass(name)(), graph)
    assert serialised(original) == before


@every_graph
@every_pass
def test_deterministic(name, source):
    """What a pass measured stands in its resolved options; with those it gives the same bytes."""
    graphs = [build(source) for _ in range(2)]
    first = applied(load_pass(name)(), graphs[0])
    again = applied(load_pass(name).from_options(first.options), graphs[1])
    assert first.changed == again.changed
    assert serialised(graphs[0]) == serialised(graphs[1])


@every_graph
@pytest.mark.parametrize("name", [n for n in names(PASSES) if load_pass(n).effect != "lossy"])
def test_comes_to_rest(name, source):
    """Run again and again, it stops changing the graph. (A lossy pass may damage more each time; it is run once.)"""
    graph = build(source)
    assert not all(changes(load_pass(name)(), graph, surroundings(graph), [], most=8))


CHOICES = [
    (name, spec.name, value)
    for name in names(PASSES)
    for spec in load_pass(name).options()
    for value in (spec.choices or ((True, False) if spec.type is bool else ()))
    if value != spec.default
]


@pytest.mark.parametrize(("name", "option", "value"), CHOICES)
def test_every_choice_works(name, option, value):
    step = load_pass(name).from_options({option: value})
    for source in ("conv-bn-relu", "residual-silu", "constants-dead-twice"):
        verified(step, build(source))


def test_every_built_in_module_is_an_entry_point():
    """Entry points are written when the package is installed: reinstall after adding a pass."""
    import onnxopt_passes

    modules = {f.stem for f in Path(onnxopt_passes.__file__).parent.glob("*.py") if not f.stem.startswith("_")}
    points = [*entry_points(group=PASSES), *entry_points(group=PIPELINES)]
    assert modules == {e.module.rpartition(".")[2] for e in points if e.module.startswith("onnxopt_passes.")}
