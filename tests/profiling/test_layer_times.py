"""Time per layer on a real runtime."""

from pathlib import Path

import pytest

from onnxopt import load, optimize
from onnxopt.errors import UsageError
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.profiling import profile_model
from onnxopt.profiling.peaks import Peaks
from onnxopt.profiling.profile import LayerTime, _bound, _without_toll
from onnxopt.profiling.text import profile_text
from onnxopt.registry import load_target
from onnxopt.runtime.kernel_time import KernelTime, undisturbed

TESTDATA = Path(__file__).parents[2] / "testdata"
PEAKS = Peaks(floating=1e9, int8=4e9, near=1e9, far=1e8)


@pytest.fixture(scope="module")
def detector():
    return load(TESTDATA / "shapes_detector.onnx")


def layers_of(graph, target="ort", **options):
    inputs, _ = resolve_inputs(graph, {})
    return profile_model(graph, load_target(target), inputs, runs=4, **options)


@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_every_convolution_of_the_original_is_found_again(detector, target):
    if target == "openvino":
        pytest.importorskip("openvino")
    quantized = optimize(detector, "quantize").graph
    found = layers_of(quantized, target, original=detector)
    named = {layer.name: layer for layer in found.layers}
    missing = [n.name for n in detector.nodes_of("Conv") if n.name not in named]
    assert missing == []
    convolutions = [named[n.name] for n in detector.nodes_of("Conv")]
    assert all(layer.macs > 0 for layer in convolutions)
    assert sum(layer.precision == "int8" for layer in convolutions) > len(convolutions) / 2
    assert any(layer.conversions_ms > 0 for layer in found.layers)
    assert not any(layer.op in {"QuantizeLinear", "DequantizeLinear", "BatchNormalization"} for layer in found.layers)


def test_shares_are_of_one_whole(detector):
    found = layers_of(detector)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert sum(found.shares().values()) == pytest.approx(1)
    assert found.kernels_ms == pytest.approx(sum(layer.total_ms for layer in found.layers))
    assert found.to_dict()["layers"][0]["name"] == found.layers[0].name


def test_the_text_names_the_slowest_layer(detector):
    found = layers_of(detector)
    slowest = max(found.layers, key=lambda layer: layer.total_ms)
    lines = profile_text(found, most=3).splitlines()
    assert lines[2].startswith(slowest.name)
    assert f"and {len(found.layers) - 3} more" in lines[5]
    assert f"'{slowest.name}'" in lines[-1]


def test_a_target_that_cannot_run_here_is_refused(detector):
    with pytest.raises(UsageError, match="'tensorrt' cannot run on this machine"):
        layers_of(detector, "tensorrt")


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (LayerTime("a", "Conv", precision="int8", milliseconds=2.0, macs=4_000_000, moved=100), "compute"),
        (LayerTime("a", "Conv", precision="int8", milliseconds=2.0, macs=4_000, moved=1_000_000), "memory"),
        (LayerTime("a", "Add", precision="int8", milliseconds=2.0, macs=0, moved=100), "overhead"),
        (LayerTime("a", "Add", milliseconds=2.0, conversions_ms=3.0, moved=1_000_000), "conversions"),
    ],
)
def test_what_bounds_a_layer(layer, bound):
    _bound(layer, PEAKS)
    assert layer.bound == bound


def test_roofs_are_those_of_the_types():
    assert PEAKS.compute_ms(4_000_000, "int8") == pytest.approx(1)
    assert PEAKS.compute_ms(4_000_000, "float32") == pytest.approx(4)
    assert PEAKS.memory_ms(10**6) == pytest.approx(1)
    assert PEAKS.memory_ms(10**8) == pytest.approx(1000)


@pytest.mark.parametrize(("latency", "left"), [(3.0, [1.0, 2.0]), (10.0, [2.0, 3.0]), (0.0, [0.0, 1.0])])
def test_the_profilers_own_time_is_taken_off_evenly(latency, left):
    kernels = [KernelTime(name, "Conv", ms, "", (), (), 0) for name, ms in (("a", 2.0), ("b", 3.0))]
    assert [k.milliseconds for k in _without_toll(kernels, latency)[0]] == left


def test_the_fastest_quarter_is_what_counts():
    assert undisturbed([100.0, 1.0, 3.0, 2.0, 9.0, 9.0, 9.0, 9.0]) == 1.5
    assert undisturbed([5.0, 6.0]) == 5.0
