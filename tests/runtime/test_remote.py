"""A runtime behind ssh does what the same runtime does here, and leaves nothing behind."""

import gc
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt import load
from onnxopt.device import target_on
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.registry import load_target
from onnxopt.runtime import host, latency
from onnxopt.runtime.adapter import load_runtime, prepared
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.runtime.remote import RemoteRuntime
from onnxopt.testing import parse_graph, random_feeds

ORT = "onnxopt.runtime.ort:OrtRuntime"
TESTDATA = Path(__file__).parents[2] / "testdata"
NOISE = 1.1  # times
ATTEMPTS = 200  # of 10 ms each
NET = """(float[1,3,8,8] x) => (float[1,8,8,8] y) <float[8,3,3,3] w, float[8] b> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    y = Relu (a)
}"""
HALF = "(float16[2,3] x) => (float16[2,3] y) { y = Relu (x) }"


@pytest.fixture(scope="module")
def runtime(device):
    with RemoteRuntime(device.url(), ORT, device.options) as runtime:
        yield runtime


@pytest.mark.parametrize("text", [NET, HALF])
def test_outputs_are_those_of_this_machine(runtime, text):
    graph = parse_graph(text)
    feeds = random_feeds(graph)
    there, here = (r.open(graph.to_proto()).run(feeds) for r in (runtime, OrtRuntime()))
    np.testing.assert_array_equal(there["y"], here["y"], strict=True)


def test_it_is_this_machine(runtime):
    assert runtime.version == OrtRuntime().version
    assert load_target("ort", runtime.architecture, runtime.features) == load_target("ort")


def test_models_are_sent_with_their_weights(runtime, tmp_path):
    graph = parse_graph(NET)
    file = tmp_path / "net.onnx"
    (tmp_path / "weights").mkdir()
    onnx.save_model(graph.to_proto(), file, save_as_external_data=True, location="weights/net.data", size_threshold=0)
    feeds = random_feeds(graph)
    np.testing.assert_array_equal(
        runtime.open(file).run(feeds, ["y"])["y"], OrtRuntime().open(graph.to_proto()).run(feeds)["y"]
    )


def test_kernels_are_those_of_this_machine(runtime):
    graph = load(TESTDATA / "patches_classifier.onnx")
    graph.name_nodes()
    assert runtime.kernels(graph.to_proto()) == OrtRuntime().kernels(graph.to_proto())


def test_candidates_are_timed_there_in_turns(runtime):
    graph = parse_graph(NET)
    session = runtime.open(graph.to_proto())
    runs = {name: prepared(session, random_feeds(graph)) for name in "ab"}
    timed = latency.compare(runs, rounds=7)
    assert timed.rounds == 7
    assert 0 < timed["a"].milliseconds.median < 100
    assert timed["a"].speedup == latency.Spread(1, 0)


def test_a_run_says_what_it_took_there(runtime):
    graph = parse_graph(NET)
    session = runtime.open(graph.to_proto())
    began = time.perf_counter()
    session.run(random_feeds(graph))
    assert 0 < session.seconds < time.perf_counter() - began


@pytest.mark.slow
def test_it_takes_as_long_there_as_here(runtime):
    """Within noise: what else the machine does can only add to a time, so the best of several medians is compared."""
    graph = load(TESTDATA / "patches_classifier.onnx")
    feeds = {"input": np.random.default_rng(0).random((1, 3, 64, 64), np.float32)}
    runs = [prepared(r.open(graph.to_proto()), feeds) for r in (OrtRuntime(), runtime)]
    best = [float("inf")] * 2
    for _ in range(ATTEMPTS):
        medians = [latency.compare({"it": run}, rounds=10)["it"].milliseconds.median for run in runs]
        best = [min(pair) for pair in zip(best, medians, strict=True)]
        if 1 / NOISE < best[1] / best[0] < NOISE:
            return
    pytest.fail(f"here {best[0]:.3f} ms, there {best[1]:.3f} ms")


def test_here_and_there_are_not_timed_together(runtime):
    graph = parse_graph(NET)
    there = prepared(runtime.open(graph.to_proto()), random_feeds(graph))
    with pytest.raises(ValueError, match="on one machine"):
        latency.compare({"there": there, "here": lambda: None})


def test_the_runtime_s_own_words_come_back(runtime):
    with pytest.raises(OptimizationError, match=r"onnxruntime .* on 127.0.0.1 cannot load the model: .*Protobuf"):
        runtime.open(b"no model")
    session = runtime.open(parse_graph(NET).to_proto())
    with pytest.raises(OptimizationError, match=r"cannot run the model: .*x"):
        session.run({"z": np.zeros(3, np.float32)})


def test_files_and_sessions_go_when_they_are_not_needed(runtime):
    session = runtime.open(parse_graph(NET).to_proto())
    assert not list(Path(runtime.folder).iterdir())
    number = session.number
    del session
    gc.collect()
    runtime.open(parse_graph(NET).to_proto())
    with pytest.raises(OptimizationError, match=str(number)):
        runtime.ask({"do": "run", "number": number, "names": [], "outputs": None}, doing="run")


def test_threads_may_share_it(runtime):
    graph = parse_graph(NET)
    session = runtime.open(graph.to_proto())
    feeds = [random_feeds(graph, seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        there = list(pool.map(session.run, feeds))
    here = OrtRuntime().open(graph.to_proto())
    for values, fed in zip(there, feeds, strict=True):
        np.testing.assert_array_equal(values["y"], here.run(fed)["y"])


def test_an_interrupted_question_closes_it(device, monkeypatch):
    with RemoteRuntime(device.url(), ORT, device.options) as runtime:
        monkeypatch.setattr("onnxopt.runtime.ssh.read_message", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runtime.open(parse_graph(NET).to_proto())
        with pytest.raises(OptimizationError, match="is closed"):
            runtime.open(parse_graph(NET).to_proto())
        assert not Path(runtime.folder).exists()


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_nothing_is_left_when_it_is_closed(device):
    with RemoteRuntime(device.url(), ORT, device.options) as runtime:
        assert Path(runtime.folder).is_dir()
    assert not Path(runtime.folder).exists()
    with pytest.raises(OptimizationError, match=r"the connection to .* is closed"):
        runtime.open(b"")


PROGRAM = """
import sys
from onnxopt.runtime.latency import compare
from onnxopt.runtime.remote import RemoteRuntime
from onnxopt.testing import parse_graph, random_feeds

runtime = RemoteRuntime(sys.argv[1], sys.argv[2], sys.argv[4:])
print(runtime.folder, flush=True)
graph = parse_graph(sys.argv[3])
compare({"a": runtime.open(graph.to_proto()).prepare(random_feeds(graph))}, rounds=10**6)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_it_is_interrupted(device, how):
    command = [sys.executable, "-c", PROGRAM, device.url(), ORT, NET, *device.options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        time.sleep(0.5)  # let it time
        process.send_signal(how)
    for _ in range(100):
        if not folder.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{folder} is still there")


def test_targets_are_taken_to_the_device(device):
    target = target_on(device.url(), "ort", device.options)
    assert load_runtime(target).version == OrtRuntime().version
    assert replace(target, alignment=0) == load_target("ort")
    assert target.alignment == host.channel_block()


def test_a_target_for_other_machines(device):
    other = "ort-arm" if load_target("ort").machine.architecture == "x86_64" else "ort-vnni"
    with pytest.raises(UsageError, match=f"target '{other}' is for"):
        target_on(device.url(), other, device.options)


def test_a_target_that_runs_nowhere_here(device):
    with pytest.raises(UsageError, match="only ort and openvino run there"):
        target_on(device.url(), "tensorrt", device.options)
