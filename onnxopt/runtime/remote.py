"""A runtime on another machine: models are opened, run and timed there, by the runner that `ssh` starts."""

import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import onnx

from onnxopt import model_io
from onnxopt.errors import OptimizationError, Unloadable, UsageError
from onnxopt.graph import Array
from onnxopt.runtime.adapter import Feeds, InputFacts, Kernels, Model
from onnxopt.runtime.openvino import kernels_among as openvino_kernels
from onnxopt.runtime.ort import LEVELS
from onnxopt.runtime.ort import kernels_among as ort_kernels
from onnxopt.runtime.runner import pack_arrays, unpack_arrays
from onnxopt.runtime.ssh import Address, Connection, RunnerError, missing

PIECE = 8 << 20  # bytes of a file that are sent at a time
# What the runner calls the runtime of an adapter.
ENGINES = {"onnxopt.runtime.ort:OrtRuntime": "onnxruntime", "onnxopt.runtime.openvino:OpenVinoRuntime": "openvino"}


class RemoteRuntime:
    """A runtime on a device, as an adapter. Also a context manager that ends the connection.

    Args:
        device: Its address, see `Address.parse`.
        adapter: Of the target, `module:class`.
        options: Of `ssh -o`.

    Attributes:
        address: The device's.
        version: Name and version of its runtime.
        processor: Name of its processor.
        architecture: `x86_64`, `aarch64`.
        features: Its instruction set extensions.
        folder: Where it keeps models while it loads them.

    Raises:
        UsageError: No address, no way to it, or no such runtime there; or this target cannot run on a device.
    """

    def __init__(self, device: str, adapter: str, options: Sequence[str] = ()) -> None:
        self.address = Address.parse(device)
        engine = ENGINES.get(adapter)
        if engine is None:
            raise UsageError(
                f"nothing can be timed on {self.address} with this target: only ort and openvino run there"
            )
        self._connection = Connection(self.address, options)
        self._gone: list[int] = []
        try:
            facts, _ = self._connection.ask({"do": "start", "engine": engine})
        except RunnerError as error:
            self.close()
            if error.kind in {"ImportError", "ModuleNotFoundError"}:
                raise UsageError(missing(self.address, engine)) from None
            raise OptimizationError(f"{self.address}: {error}") from None
        self.version: str = facts["version"]
        self.processor: str = facts["processor"]
        self.architecture: str = facts["architecture"]
        self.features = frozenset(facts["features"])
        self.folder: str = facts["folder"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runner; nothing is left on the device."""
        self._connection.close()

    def open(self, model: Model, *, threads: int = 1) -> "RemoteSession":
        """Send a model and load it there, all optimizations on.

        Raises:
            OptimizationError: The runtime cannot load it; carries its own words.
        """
        name = self._put(model)
        found, _ = self.ask({"do": "open", "name": name, "threads": threads, "options": {}}, doing="load")
        return RemoteSession(self, found["number"], found["inputs"], found["outputs"])

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read back which kernels the runtime there chose."""
        if self.version.startswith("openvino"):
            session = self.open(model)
            found, _ = self.ask({"do": "layers", "number": session.number}, doing="read")
            return openvino_kernels(model, found["layers"])
        _, contents = self.ask({"do": "optimized", "name": self._put(model), "levels": LEVELS}, doing="load")
        return ort_kernels(model, *map(onnx.load_model_from_string, contents))

    def ask(
        self, request: dict[str, Any], parts: Sequence[bytes] = (), *, doing: str
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request, and with it which sessions are no longer needed.

        Raises:
            OptimizationError: The runtime could not do it: `doing` says what.
        """
        forget, self._gone = self._gone, []
        try:
            return self._connection.ask({**request, "forget": forget}, parts)
        except RunnerError as error:
            words = str(error).split("\n", 1)[0][:400]
            kind = Unloadable if doing == "load" else OptimizationError
            raise kind(f"{self.version} on {self.address.host} cannot {doing} the model: {words}") from None

    def forget(self, number: int) -> None:
        """Let go of a session or its inputs with the next request."""
        self._gone.append(number)

    def _put(self, model: Model) -> str:
        """Send a model with the files that belong to it; returns its name there."""
        if isinstance(model, str | Path):
            file = Path(model).resolve()
            for part in (file, *_beside(file)):
                with part.open("rb") as stream:
                    self._send(part.relative_to(file.parent).as_posix(), iter(partial(stream.read, PIECE), b""))
            return file.name
        content = model if isinstance(model, bytes) else model.SerializeToString()
        self._send("model.onnx", (content[at : at + PIECE] for at in range(0, len(content), PIECE)))
        return "model.onnx"

    def _send(self, name: str, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.ask({"do": "put", "name": name}, [piece], doing="store")


class RemoteSession:
    """A model loaded on a device.

    Attributes:
        number: What the runner calls it.
        inputs: Name, NumPy type and sizes of each.
        output_names: Of the model.
        seconds: What the last run took there, without the way.
    """

    def __init__(
        self, runtime: RemoteRuntime, number: int, inputs: Sequence[InputFacts], output_names: list[str]
    ) -> None:
        self.runtime = runtime
        self.number = number
        self.inputs = inputs
        self.output_names = output_names
        self.seconds = 0.0
        weakref.finalize(self, runtime.forget, number)

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once, there; all outputs by name, or those asked for."""
        names, contents = pack_arrays(feeds)
        wanted = list(outputs) if outputs is not None else None
        request = {"do": "run", "number": self.number, "names": names, "outputs": wanted}
        found, parts = self.runtime.ask(request, contents, doing="run")
        self.seconds = found["seconds"]
        return unpack_arrays(found["names"], parts)

    def prepare(self, feeds: Feeds) -> "RemoteRun":
        """What `latency.compare` times there."""
        return RemoteRun(self, feeds)


class RemoteRun:
    """A model and its inputs on a device; see `latency.Elsewhere`.

    Attributes:
        session: The model.
        number: What the runner calls the inputs.
    """

    def __init__(self, session: RemoteSession, feeds: Feeds) -> None:
        names, contents = pack_arrays(feeds)
        found, _ = session.runtime.ask({"do": "feed", "names": names}, contents, doing="feed")
        self.session = session
        self.number: int = found["number"]
        weakref.finalize(self, session.runtime.forget, self.number)

    def __call__(self) -> None:
        """Run once, there."""
        self.time_together([self], rounds=1, seconds=None, least=1)

    def time_together(
        self, runs: Sequence[Any], *, rounds: int, seconds: float | None, least: int
    ) -> list[list[float]]:
        """Nanoseconds per run, one list of all per round, as `runner.time_rounds` has them.

        Raises:
            ValueError: Not all of them are on this device.
        """
        runtime = self.session.runtime
        if not all(isinstance(run, RemoteRun) and run.session.runtime is runtime for run in runs):
            raise ValueError("what is timed together has to be on one machine")
        pairs = [(run.session.number, run.number) for run in runs]
        request = {"do": "time", "runs": pairs, "rounds": rounds, "seconds": seconds, "least": least}
        found, _ = runtime.ask(request, doing="run")
        times: list[list[float]] = found["times"]
        return times


def _beside(file: Path) -> list[Path]:
    """Files that a model consists of beside its own."""
    if file.suffix == ".xml":
        return [file.with_suffix(".bin")]
    return model_io.external_files(file) if file.suffix == ".onnx" else []
