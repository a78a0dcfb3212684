"""Verification catches each way in which a pass can break its promise."""

import numpy as np
import pytest

from onnxopt import Analysis, Context, Graph, OptimizationError, Pass, option
from onnxopt.data import Sample
from onnxopt.manager import run_pass
from onnxopt.observers.verify import Verify
from onnxopt.testing import parse_graph, plain_context, random_feeds

MODEL = """(float[1,4] x) => (float[1,4] y) <float[4] w = {1.0, 2.0, 3.0, 4.0}> {
    a = Mul (x, w)
    y = Relu (a)
}"""


class Scale(Pass):
    """Multiply the weight, as an exact pass must not."""

    name = "scale"
    factor: float = option(default=1.0, help="By how much.")

    def run(self, graph: Graph, context: Context) -> bool:
        node = next(graph.nodes_of("Mul"))
        weight = graph.own_constant(node, 1)
        weight.values = (weight.values * self.factor).astype(np.float32)
        return True


class ScaleRounding(Scale):
    """The same, promising rounding."""

    name = "scale-rounding"
    effect = "rounding"

    def run(self, graph: Graph, context: Context) -> bool:
        return Scale.run(self, graph, context)


class ScaleLossy(Scale):
    """The same, promising nothing but a wrong reference."""

    name = "scale-lossy"
    effect = "lossy"

    def run(self, graph: Graph, context: Context) -> bool:
        return Scale.run(self, graph, context)

    def reference(self, before: Graph, after: Graph) -> Graph | None:
        return after.copy() if self.factor == 2 else before.copy()


class Silent(Pass):
    """Change the graph and deny it, or claim a change and make none."""

    name = "silent"
    claim: bool = option(default=False, help="What to claim.")

    def run(self, graph: Graph, context: Context) -> bool:
        if not self.claim:
            graph.set_metadata("key", "value")
        return self.claim


class Damage(Pass):
    """Leave something that is no valid model."""

    name = "damage"
    how: str = option(default="", help="Which way.")

    def run(self, graph: Graph, context: Context) -> bool:
        relu = next(graph.nodes_of("Relu"))
        if self.how == "op":
            relu.op = "NoSuchOperator"
        if self.how == "shape":
            next(graph.nodes_of("Mul")).inputs[1] = graph.add_constant("w", np.ones(3, np.float32))
        if self.how == "interface":
            graph.outputs[0].name = "z"
        return True


def run(step: Pass, level: str, text: str = MODEL, context: Context | None = None) -> Context:
    graph = parse_graph(text)
    surroundings = context or plain_context()
    run_pass(step, graph, surroundings, [Verify(level, [random_feeds(graph)])])
    return surroundings


def test_an_exact_pass_that_changes_outputs_is_caught():
    with pytest.raises(OptimizationError, match=r"pass scale promises equal outputs, but output 'y' differs by 1"):
        run(Scale(factor=2), "outputs")


def test_the_last_bit_counts_for_an_exact_pass():
    with pytest.raises(OptimizationError, match=r"output 'y' differs by 1\.\d+e-07"):
        run(Scale(factor=1.0000001), "outputs")


def test_equal_outputs_are_recorded():
    context = run(Scale(), "outputs")
    assert context.record.checks == {"outputs": "equal"}


def test_lower_levels_do_not_compare():
    assert run(Scale(factor=2), "off").record.checks == {}
    assert run(Scale(factor=2), "structure").record.checks == {}


def test_rounding_allows_rounding():
    checks = run(ScaleRounding(factor=1.000001), "outputs").record.checks
    assert checks["outputs"].startswith("within rounding of the graph before")


def test_rounding_allows_no_more():
    with pytest.raises(OptimizationError, match=r"pass scale-rounding: output 'y' differs by .*; 1e-05 is allowed"):
        run(ScaleRounding(factor=1.0001), "outputs")


def test_lossy_records_the_noise():
    checks = run(ScaleLossy(factor=1.1), "outputs").record.checks
    assert checks["outputs"] == "finite"
    assert checks["sqnr_db"]["y"] == pytest.approx(20, abs=0.1)  # an error of a tenth is 20 dB below


def test_lossy_must_stay_finite():
    with pytest.raises(OptimizationError, match="output 'y' is not finite any more"):
        run(ScaleLossy(factor=float("inf")), "outputs")


def test_full_compares_with_the_reference():
    assert run(ScaleLossy(factor=2), "full").record.checks["outputs"] == "equal to its reference"
    with pytest.raises(OptimizationError, match=r"output 'y' differs by .* from its reference"):
        run(ScaleLossy(factor=3), "full")


def test_full_looks_at_data():
    """A difference that the given feeds do not show."""
    graph = parse_graph(MODEL)
    blind = [{"x": np.zeros((1, 4), np.float32)}]
    run_pass(Scale(factor=2), graph.copy(), plain_context(), [Verify("outputs", blind)])
    context = plain_context()
    context.holdout = [Sample({"x": np.ones((1, 4), np.float32)})]
    with pytest.raises(OptimizationError, match="promises equal outputs"):
        run_pass(Scale(factor=2), graph, context, [Verify("full", blind)])


@pytest.mark.parametrize(("claim", "problem"), [(True, "but it did not"), (False, "says that it did not")])
def test_full_sees_through_a_false_claim(claim, problem):
    run(Silent(claim=claim), "outputs")
    with pytest.raises(OptimizationError, match=problem):
        run(Silent(claim=claim), "full")


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("op", "pass damage left an invalid model: .*NoSuchOperator"),
        ("shape", "pass damage left an invalid model: .*[Ii]ncompatible dimensions"),
        ("interface", "pass damage changed the model's outputs from y to z"),
    ],
)
def test_structure(how, problem):
    with pytest.raises(OptimizationError, match=problem):
        run(Damage(how=how), "structure")


def test_a_fault_from_before_is_not_the_pass_s():
    text = MODEL.replace("y = Relu (a)", "b = Relu <wrong = 1> (a)  y = Relu (b)")
    checks = run(Damage(), "structure", text).record.checks
    assert "had a fault before this pass" in checks["structure"]


def test_operators_of_other_domains_are_tolerated():
    text = """<ir_version: 8, opset_import: ["" : 17, "there" : 1]> g (float[1,4] x) => (float[1,4] y) {
        a = there.Unknown (x)
        y = Relu (a)
    }"""
    checks = run(Damage(), "outputs", text).record.checks
    assert checks["outputs"].startswith("not compared: ONNX Runtime cannot load the model")


class Kinds(Analysis):
    """Op types of the graph."""

    def __init__(self, ops: list[str]) -> None:
        self.ops = ops

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> "Kinds":  # noqa: ARG003
        return cls([n.op for n in graph.nodes])


class Rename(Pass):
    """Change an op and declare the list of ops preserved."""

    name = "rename"
    effect = "lossy"
    preserves = (Kinds,)
    op: str = option(default="Relu", help="New op.")

    def run(self, graph: Graph, context: Context) -> bool:
        context.get(Kinds)
        next(graph.nodes_of("Relu")).op = self.op
        graph.set_metadata("key", "value")
        return True


def test_preserved_analyses_are_recomputed():
    run(Rename(), "full")
    run(Rename(op="Sigmoid"), "outputs")
    with pytest.raises(OptimizationError, match="declares Kinds preserved, but it changed"):
        run(Rename(op="Sigmoid"), "full")


def test_each_graph_runs_once(monkeypatch):
    from onnxopt.observers import verify

    runs = []
    real = verify.run
    monkeypatch.setattr(verify, "run", lambda *a, **k: runs.append(1) or real(*a, **k))
    graph, context = parse_graph(MODEL), plain_context()
    observer = Verify("outputs", [random_feeds(graph)])
    for _ in range(3):
        run_pass(ScaleLossy(factor=1.5), graph, context, [observer])
    assert len(runs) == 4


def test_outputs_need_feeds():
    with pytest.raises(ValueError, match="give feeds"):
        Verify("outputs")


class Read(Pass):
    """Look at a weight and change nothing."""

    name = "read"

    def run(self, graph: Graph, context: Context) -> bool:
        assert graph.initializers()[0].values.size == 4
        return False


def test_reading_a_weight_is_no_change():
    """A weight that has been read is written in another encoding."""
    graph = parse_graph(MODEL)
    assert not graph.to_proto().graph.initializer[0].HasField("raw_data")
    run_pass(Read(), graph, plain_context(), [Verify("full", [random_feeds(graph)])])
    assert graph.to_proto().graph.initializer[0].HasField("raw_data")
