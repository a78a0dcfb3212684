"""The part of onnxopt that runs on the machine that is measured: opens models, runs them, times them.

One file for Python 3.8 and later that imports numpy and a runtime and nothing else, so that its text can be sent to a
board (`onnxopt.runtime.ssh`). The adapters here and `onnxopt.runtime.latency` use the same functions, so that what is
measured there is measured as it is here.

Started as a program it serves requests from standard input on standard output. A message is the length of a header,
eight bytes; the header, JSON; and the parts whose lengths stand in the header. A request names what to do; a reply
holds `error` where that failed. The runner ends, and removes its folder, when its input ends or it is told to.
"""

from __future__ import annotations

import gc
import io
import json
import os
import platform
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Reply = tuple[dict[str, Any], list[bytes]]

GREETING = b"onnxopt runner 1\n"  # what a login shell prints before it is skipped
SHORTEST = 1_000_000  # ns; what runs for less is timed several times over, or the clock would be measured
WARM_UP = 3  # runs of each candidate before anything counts: memory is mapped, caches and branch predictors fill


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def processor() -> str:
    """Name of the processor."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def architecture() -> str:
    """Instruction set as Linux names it, e.g. `x86_64` or `aarch64`."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def features() -> frozenset[str]:
    """Instruction set extensions as Linux names them, e.g. `avx512f`; empty where not known."""
    info = cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def time_rounds(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int,
    seconds: float | None,
    least: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    before_each: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Time candidates in rounds that run each once, in an order that rotates; see `latency.compare`.

    Args:
        runs: What is timed; calling it runs it once.
        rounds: How many rounds to time.
        seconds: Stop early once so much time has passed since the first round.
        least: Rounds that are timed even if that takes longer than `seconds`.
        clock: Returns nanoseconds.
        before_each: Called between rounds, untimed; what it raises ends the timing.

    Returns:
        Nanoseconds per run: one list of all candidates per round.
    """
    times: list[list[float]] = []
    with _no_garbage_collection():
        repeats = [_warm_up(run, clock) for run in runs]
        began = clock()
        for round_ in range(rounds):
            if seconds is not None and round_ >= least and clock() - began > seconds * 1e9:
                break
            before_each()
            taken = [0.0] * len(runs)
            for place in range(len(runs)):
                index = (place + round_) % len(runs)
                taken[index] = _time(runs[index], repeats[index], clock)
            times.append(taken)
    return times


def _time(run: Callable[[], object], repeats: int, clock: Callable[[], int]) -> float:
    """Nanoseconds of one run, over `repeats` of them."""
    began = clock()
    for _ in range(repeats):
        run()
    return (clock() - began) / repeats


def _warm_up(run: Callable[[], object], clock: Callable[[], int]) -> int:
    """Run a few times and return how many runs a measurement needs to last long enough."""
    quickest = min(_time(run, 1, clock) for _ in range(WARM_UP))
    return ceil(SHORTEST / max(quickest, SHORTEST / 1000))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


CPU = "CPUExecutionProvider"


class OnnxRuntimeModel:
    """A model loaded by ONNX Runtime.

    Attributes:
        inputs: Name, NumPy type and sizes of each input; a size that is open is a name or None.

    Args:
        source: Serialised bytes, or a file.
        threads: Threads inside an operator.
        level: Of graph optimization; `ORT_DISABLE_ALL` runs the graph as it is written.
        config: Session configuration entries.
        trace: Prefix of the file for the profile; None for no profile.
        written: File for the graph that is executed; None for none.
        provider: Execution provider; what it cannot run, the CPU runs.
    """

    def __init__(
        self,
        source: bytes | str,
        threads: int,
        *,
        level: str = "ORT_ENABLE_ALL",
        config: Mapping[str, str] | None = None,
        trace: str | None = None,
        written: str | None = None,
        provider: str = CPU,
    ) -> None:
        import onnxruntime  # noqa: PLC0415  (a device has one of the runtimes)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised; the rest is noise in a report
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        if trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = trace
        if written is not None:
            options.optimized_model_filepath = written
        self._session = onnxruntime.InferenceSession(source, options, providers=list(dict.fromkeys([provider, CPU])))
        if provider not in self._session.get_providers():  # ONNX Runtime falls back without a word
            raise RuntimeError(f"{provider} does not start on this machine")
        self.input_names: list[str] = [i.name for i in self._session.get_inputs()]
        self.output_names: list[str] = [o.name for o in self._session.get_outputs()]
        self._half = {i.name for i in self._session.get_inputs() if i.type == "tensor(float16)"}
        self.inputs = [(i.name, _dtype(i.type), list(i.shape)) for i in self._session.get_inputs()]

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those asked for; float32 feeds are rounded for inputs that are float16."""
        names = list(outputs) if outputs is not None else self.output_names
        fitting = {name: values.astype(np.float16) if name in self._half else values for name, values in feeds.items()}
        return dict(zip(names, self._session.run(names, fitting)))

    def end_trace(self) -> str:
        """Stop profiling; the file with the profile."""
        return str(self._session.end_profiling())


class OpenVinoModel:
    """A model compiled by OpenVINO for the CPU.

    Attributes:
        inputs: Name, NumPy type and sizes of each input; a size that is open is None.

    Args:
        source: Serialised bytes, or a file.
        threads: Threads of inference.
        precision: `INFERENCE_PRECISION_HINT`; default: the plug-in's own choice.
        counted: Whether to count how long each layer takes.
    """

    def __init__(
        self, source: bytes | str, threads: int, *, precision: str | None = None, counted: bool = False
    ) -> None:
        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if precision is not None:
            config["INFERENCE_PRECISION_HINT"] = precision
        if counted:
            config["PERF_COUNT"] = True
        core = _openvino_core()
        read = core.read_model(source)
        names = [o.get_names() for o in read.outputs]  # compiling may add the names of what is computed on the way
        self.compiled = core.compile_model(read, "CPU", config)
        self._request = self.compiled.create_infer_request()
        self.output_names: list[str] = [min(found) for found in names]
        self.inputs = [(min(i.get_names()), i.get_element_type().to_dtype().name, _sizes(i)) for i in read.inputs]

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all or those asked for."""
        self._request.infer(dict(feeds))
        values = {n: self._request.get_output_tensor(i).data.copy() for i, n in enumerate(self.output_names)}
        return values if outputs is None else {name: values[name] for name in outputs}

    def counters(self) -> list[Any]:
        """Performance counters of the last run, where they are counted."""
        return list(self._request.get_profiling_info())

    def layers(self) -> list[list[str]]:
        """Of each executed layer: its type, its kernel, and the layers it was fused from, separated by commas."""
        found = []
        for layer in self.compiled.get_runtime_model().get_ordered_ops():
            info = layer.get_rt_info()
            keys = ("layerType", "primitiveType", "originalLayersNames")
            found.append([str(info[key].astype(str)) if key in info else "" for key in keys])
        return found


@lru_cache(maxsize=None)
def _openvino_core() -> Any:
    """The one core of this process.

    Each further core would bring a CPU plug-in that gives this thread a stack for signals and takes it back when it
    goes. Where they do not go in the opposite order of their coming, the thread is left with one that is unmapped, and
    the next signal that Python handles, such as Ctrl-C, is a segmentation fault (OpenVINO 2026.4.1).
    """
    import openvino  # noqa: PLC0415  (a device has one of the runtimes)

    return openvino.Core()


def _dtype(kind: str) -> str:
    """NumPy's name for what ONNX Runtime calls `tensor(float)` and the like."""
    name = kind[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)


def _sizes(port: Any) -> list[int | None]:
    """Sizes of an input of OpenVINO's; None where open."""
    return [size.get_length() if size.is_static else None for size in port.get_partial_shape()]


ENGINES = {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVinoModel}


def write_message(stream: IO[bytes], header: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Send a message."""
    text = json.dumps({**header, "parts": [len(part) for part in parts]}).encode()
    stream.write(struct.pack(">Q", len(text)) + text)
    stream.writelines(parts)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Receive a message.

    Raises:
        EOFError: The other side is gone.
    """
    (length,) = struct.unpack(">Q", _exactly(stream, 8))
    header = json.loads(_exactly(stream, length))
    return header, [_exactly(stream, size) for size in header.pop("parts")]


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError
    return found


def pack_arrays(arrays: Mapping[str, Any]) -> tuple[list[str], list[bytes]]:
    """Names and contents of arrays, in NumPy's file format."""
    parts = []
    for values in arrays.values():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(values), allow_pickle=False)
        parts.append(buffer.getvalue())
    return list(arrays), parts


def unpack_arrays(names: Sequence[str], parts: Sequence[bytes]) -> dict[str, Any]:
    """The arrays that `pack_arrays` packed."""
    pairs = zip(names, parts)
    return {name: np.lib.format.read_array(io.BytesIO(part), allow_pickle=False) for name, part in pairs}


class Runner:
    """Does what is asked for, with models in a folder of its own.

    Args:
        folder: For models; removed by whoever made it.
        source: Where requests come from.
    """

    def __init__(self, folder: Path, source: IO[bytes]) -> None:
        self._folder = folder
        self._source = source
        self._engine = ""
        self._models: dict[int, Any] = {}
        self._feeds: dict[int, dict[str, Any]] = {}
        self._number = 0

    def answer(self, request: dict[str, Any], parts: list[bytes]) -> Reply:
        """Do what a request says; see the methods `_do_…`."""
        for number in request.pop("forget", ()):
            self._models.pop(number, None)
            self._feeds.pop(number, None)
        name = request.pop("do")
        if parts:
            request["parts"] = parts
        reply: Reply = getattr(self, f"_do_{name}")(**request)
        return reply

    def _do_start(self, engine: str) -> Reply:
        """Import the runtime and say what this machine is."""
        module = __import__(engine)
        self._engine = engine
        version = f"{engine} {module.__version__.split('-')[0]}"
        facts = {"processor": processor(), "architecture": architecture(), "features": sorted(features())}
        return {"version": version, "folder": str(self._folder), **facts}, []

    def _do_put(self, parts: list[bytes], name: str) -> Reply:
        """Append to a file."""
        file = self._folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(parts[0])
        return {}, []

    def _do_open(self, name: str, threads: int, options: dict[str, Any]) -> Reply:
        """Load a model; its files go, for it is in memory."""
        try:
            model = ENGINES[self._engine](str(self._folder / name), threads, **options)
        finally:
            self._clear()
        number = self._keep(self._models, model)
        return {"number": number, "inputs": model.inputs, "outputs": model.output_names}, []

    def _do_run(self, number: int, names: list[str], outputs: list[str] | None, parts: Sequence[bytes] = ()) -> Reply:
        """Run a model once, and say how long it took."""
        feeds = unpack_arrays(names, parts)
        began = time.perf_counter()
        results = self._models[number].run(feeds, outputs)
        seconds = time.perf_counter() - began
        found, contents = pack_arrays(results)
        return {"names": found, "seconds": seconds}, contents

    def _do_feed(self, names: list[str], parts: Sequence[bytes] = ()) -> Reply:
        """Keep inputs to time models on."""
        return {"number": self._keep(self._feeds, unpack_arrays(names, parts))}, []

    def _do_time(self, runs: list[tuple[int, int]], rounds: int, seconds: float | None, least: int) -> Reply:
        """Time models, each on its inputs, against each other."""
        calls = [_Call(self._models[model], self._feeds[feeds]) for model, feeds in runs]
        times = time_rounds(calls, rounds=rounds, seconds=seconds, least=least, before_each=self._end_if_alone)
        return {"times": times}, []

    def _do_optimized(self, name: str, levels: list[str]) -> Reply:
        """What ONNX Runtime makes of a model."""
        try:
            contents = []
            for level in levels:
                written = self._folder / "optimized.onnx"
                OnnxRuntimeModel(str(self._folder / name), 1, level=level, written=str(written))
                contents.append(written.read_bytes())
        finally:
            self._clear()
        return {}, contents

    def _do_layers(self, number: int) -> Reply:
        """What OpenVINO executes."""
        return {"layers": self._models[number].layers()}, []

    def _keep(self, store: dict[int, Any], value: Any) -> int:
        self._number += 1
        store[self._number] = value
        return self._number

    def _clear(self) -> None:
        for entry in self._folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(str(entry))
            else:
                entry.unlink()

    def _end_if_alone(self) -> None:
        """End where nobody waits for the result any more: nothing is sent meanwhile, so the input has ended."""
        if select.select([self._source], [], [], 0)[0]:
            raise EOFError


class _Call:
    def __init__(self, model: Any, feeds: dict[str, Any]) -> None:
        self._model, self._feeds = model, feeds

    def __call__(self) -> Any:
        return self._model.run(self._feeds)


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        runner = Runner(Path(folder), source)
        sink.write(GREETING)
        sink.flush()
        while True:
            request, parts = read_message(source)
            write_message(sink, *_answer(runner, request, parts))


def _answer(runner: Runner, request: dict[str, Any], parts: list[bytes]) -> Reply:
    try:
        return runner.answer(request, parts)
    except EOFError:
        raise
    except Exception as error:  # noqa: BLE001  (what a runtime raises shares no base class)
        return {"error": str(error) or repr(error), "kind": type(error).__name__}, []


def main() -> None:
    """Serve standard input and output; what a library prints goes to standard error."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # ends what removes the folder, too
    try:
        serve(sys.stdin.buffer, sink)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # what is left to flush goes nowhere


if __name__ == "__main__":
    main()
