"""Memory and cold start in a process of its own; energy where counters are."""

import sys

import numpy as np
import pytest

from onnxopt.errors import OptimizationError
from onnxopt.runtime.energy import EnergyMeter
from onnxopt.runtime.footprint import measure_footprint
from onnxopt.testing import parse_graph

ORT = "onnxopt.runtime.ort:OrtRuntime"
NET = "(float[1,N] x) => (float[1,M] y) < float[1024,1024] w > { y = MatMul (x, w) }"
FEEDS = {"x": np.ones((1, 1024), np.float32)}


@pytest.mark.slow
def test_a_model_takes_at_least_its_weights():
    found = measure_footprint(ORT, parse_graph(NET).to_proto(), FEEDS, times=1)
    assert found.cold_start_ms > 0
    if sys.platform == "linux":
        assert found.peak_bytes is not None
        assert 4 * 2**20 <= found.peak_bytes < 256 * 2**20


@pytest.mark.slow
def test_a_model_that_does_not_run_is_one_sentence():
    with pytest.raises(OptimizationError, match=r"a process of its own cannot run the model: .*ONNX Runtime"):
        measure_footprint(ORT, parse_graph(NET).to_proto(), {"x": np.ones((1, 7), np.float32)}, times=1)


def counter(folder, name, value, limit=1000):
    package = folder / name
    package.mkdir()
    (package / "energy_uj").write_text(f"{value}\n")
    (package / "max_energy_range_uj").write_text(f"{limit}\n")
    return package / "energy_uj"


def test_no_counters_no_energy(tmp_path):
    meter = EnergyMeter(tmp_path)
    assert not meter.readable
    assert meter.millijoules(lambda: None, seconds=0) is None


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    files = [counter(tmp_path, name, 100) for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")]
    meter = EnergyMeter(tmp_path)
    assert meter.readable

    def run():
        for file in files:
            file.write_text("400")

    assert meter.millijoules(run, seconds=0) == pytest.approx(0.6)


def test_a_counter_that_began_again(tmp_path):
    file = counter(tmp_path, "intel-rapl:0", 900, limit=1000)
    assert EnergyMeter(tmp_path).millijoules(lambda: file.write_text("100"), seconds=0) == pytest.approx(0.2)


def test_a_counter_that_this_user_may_not_read(tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    meter = EnergyMeter(tmp_path)
    assert not meter.readable
    assert meter.millijoules(lambda: None, seconds=0) is None
