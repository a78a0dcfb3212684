"""The tables of ONNX Runtime: what they differ in, and which of them a machine gets."""

from dataclasses import fields

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.data import InputSpec, synthetic
from onnxopt.placement.plan import plan
from onnxopt.registry import load_target
from onnxopt.runtime import host
from onnxopt.runtime.adapter import load_runtime
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target
from onnxopt.targets.ort import ORT, ORT_ARM, ORT_AVX2, ORT_HERE
from onnxopt.testing import outputs_of, parse_graph

TEXT = """(float[1,8,8,8] x) => (float[1,5] y) <
    float[8,8,3,3] w1, float[8] b1, float[8,8,1,1] w2, float[8,8,3,3] w3, float[8,5] w4, float[5] b4,
    float zero = {0.0}, float six = {6.0}
> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu (a)
    c = Conv (b, w2)  d = Sigmoid (c)  e = Mul (c, d)
    f = Add (b, e)
    g = Conv <pads = [1, 1, 1, 1]> (f, w3)  h = Clip (g, zero, six)
    i = GlobalAveragePool (h)  j = Flatten (i)  y = Gemm (j, w4, b4)
}"""
FEEDS = {"x": np.random.default_rng(0).random((1, 8, 8, 8), np.float32)}
VNNI, ALDER = frozenset({"avx2", "avx512f", "avx512_vnni"}), frozenset({"avx2", "avx_vnni"})
HASWELL, SKYLAKE_X, NEOVERSE = frozenset({"avx2"}), frozenset({"avx2", "avx512f"}), frozenset({"asimd", "i8mm"})


@pytest.fixture
def machine(monkeypatch):
    def pretend(architecture: str, features: frozenset[str]) -> None:
        monkeypatch.setattr(host, "architecture", lambda: architecture)
        monkeypatch.setattr(host, "features", lambda: features)

    return pretend


def quantized(target: Target | str):
    graph = parse_graph(TEXT)
    data = synthetic((InputSpec("x", (1, 8, 8, 8), np.dtype(np.float32)),), 4)
    return optimize(graph, "quantize{silu=sigmoid}", target=target, data=data, keep_anyway=True)


def weights(graph):
    return [
        values
        for node in graph.nodes_of("DequantizeLinear")
        if (values := graph.constant(node.inputs[0])) is not None and values.dtype == np.int8
    ]


def zero_points(graph):
    return {q.inputs[0].name: graph.constant(q.inputs[2]) for q in graph.nodes_of("QuantizeLinear")}


@pytest.mark.parametrize(("variant", "changed"), [(ORT_AVX2, {"weight"}), (ORT_ARM, {"activation", "slow_subnormals"})])
def test_only_differences_are_written(variant, changed):
    differing = {f.name for f in fields(Target) if getattr(variant, f.name) != getattr(ORT, f.name)}
    assert differing == changed | {"name", "summary", "machine"}


@pytest.mark.parametrize("variant", [ORT_AVX2, ORT_ARM])
def test_pairs_are_placed_alike(variant):
    graph = parse_graph(TEXT)
    shapes = Shapes(*infer(graph))
    assert plan(graph, variant, shapes).tensors == plan(graph, ORT, shapes).tensors
    assert plan(graph, variant, shapes).weights == plan(graph, ORT, shapes).weights


def test_weights_leave_room_for_sums_of_16_bits():
    reduced, whole = (weights(quantized(target).graph) for target in (ORT_AVX2, ORT))
    assert len(reduced) == len(whole) == 4
    assert {np.abs(w.astype(int)).max() for w in reduced} == {64}
    assert {np.abs(w.astype(int)).max() for w in whole} == {127}
    assert 2 * 255 * ORT_AVX2.weight.limit <= np.iinfo(np.int16).max < 2 * 255 * ORT.weight.limit


def test_arm_gets_int8_whose_zero_point_makes_a_relu_redundant():
    zeros = zero_points(quantized(ORT_ARM).graph)
    assert {z.dtype for z in zeros.values()} == {np.dtype(np.int8)}
    relu = next(z for name, z in zeros.items() if name == "b")
    clip = next(z for name, z in zeros.items() if name == "h")
    assert (relu, clip) == (-128, -128)


def test_arm_computes_the_same_numbers_as_vnni():
    models = [quantized(target).graph for target in (ORT, ORT_ARM)]
    vnni, arm = (outputs_of(graph, FEEDS)["y"] for graph in models)
    np.testing.assert_allclose(arm, vnni, rtol=0, atol=1e-5 * np.abs(vnni).max())
    zeros = [zero_points(graph) for graph in models]
    assert {n: int(z) - 128 for n, z in zeros[0].items()} == {n: int(z) for n, z in zeros[1].items()}


@pytest.mark.parametrize("variant", [ORT, ORT_AVX2, ORT_ARM])
def test_outputs_stay_close_to_float(variant):
    wanted = outputs_of(parse_graph(TEXT), FEEDS)["y"]
    got = OrtSession(quantized(variant).model).run(FEEDS)["y"]
    assert np.square(wanted - got).sum() < 1e-2 * np.square(wanted).sum()


@pytest.mark.parametrize(
    ("architecture", "features", "name"),
    [
        ("x86_64", VNNI, "ort-vnni"),
        ("x86_64", ALDER, "ort-vnni"),
        ("x86_64", HASWELL, "ort-avx2"),
        ("x86_64", SKYLAKE_X, "ort-avx2"),
        ("x86_64", frozenset(), "ort-avx2"),  # not known: what is right everywhere
        ("aarch64", NEOVERSE, "ort-arm"),
        ("aarch64", frozenset(), "ort-arm"),
        ("riscv64", frozenset(), "ort-vnni"),
    ],
)
def test_ort_is_what_the_machine_has(machine, architecture, features, name):
    machine(architecture, features)
    assert load_target("ort").name == name
    measured = [t.name for t in ORT_HERE.tables if load_runtime(t) is not None]
    assert measured == ([] if architecture == "riscv64" else [name])


def test_names_of_architectures(monkeypatch):
    for given, name in (("AMD64", "x86_64"), ("arm64", "aarch64"), ("x86_64", "x86_64"), ("riscv64", "riscv64")):
        monkeypatch.setattr("platform.machine", lambda given=given: given)
        assert host.architecture() == name


def test_the_choice_is_written_down_and_runs_alike_elsewhere(machine):
    machine("x86_64", HASWELL)
    first = quantized("ort")
    assert first.report.target["name"] == first.recipe.target == "ort-avx2"
    assert first.graph.metadata["onnxopt.target"] == "ort-avx2"
    machine("x86_64", VNNI)
    data = synthetic((InputSpec("x", (1, 8, 8, 8), np.dtype(np.float32)),), 4)
    again = optimize(parse_graph(TEXT), recipe=first.recipe, data=data)
    assert again.graph.digest() == first.graph.digest()


def test_another_machines_variant_is_not_measured(machine):
    machine("x86_64", VNNI)
    report = quantized("ort-arm").report
    assert report.target["runtime"] == ""
    assert report.target["why_not_measured"] == "the target cannot run here"
    assert report.after.latency_ms is None
    assert report.speedup is None
