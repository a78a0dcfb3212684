"""OpenVINO on the CPU, as an adapter; running anything with it here needs the extra `onnxopt[openvino]`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import onnx

from onnxopt.errors import OptimizationError, Unloadable
from onnxopt.graph import Array
from onnxopt.runtime.adapter import Feeds, InputFacts, Kernels, Model
from onnxopt.runtime.kernel_time import WARM_UP, KernelTime
from onnxopt.runtime.openvino_profile import SPLIT_BIAS, kernels_of
from onnxopt.runtime.runner import OpenVinoModel

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
CONVERSIONS = frozenset({"Reorder", "Convert", "FakeQuantize", "Quantize"})


class OpenVinoSession:
    """A compiled model.

    Args:
        model: Protobuf, serialised bytes, or a file.
        threads: Threads of inference.
        precision: `INFERENCE_PRECISION_HINT`, e.g. `f32`; default: the plug-in's own choice, which is bf16 on CPUs
            with AMX or AVX512-BF16.
        counted: Whether performance counters are kept; see `counters`.

    Raises:
        Unloadable: OpenVINO cannot load the model; carries its own words.
    """

    def __init__(self, model: Model, *, threads: int = 1, precision: str | None = None, counted: bool = False) -> None:
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        try:
            self._model = OpenVinoModel(
                source if isinstance(source, bytes) else str(source), threads, precision=precision, counted=counted
            )
        except RuntimeError as error:
            raise Unloadable(f"OpenVINO cannot load the model: {_point(error)}") from error
        self.compiled = self._model.compiled
        self.output_names = self._model.output_names
        self.inputs: Sequence[InputFacts] = self._model.inputs

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; all outputs by name, or those asked for."""
        try:
            return self._model.run(feeds, outputs)
        except RuntimeError as error:
            raise OptimizationError(f"OpenVINO cannot run the model: {_point(error)}") from error

    def counters(self) -> list[Any]:
        """Performance counters of the last run, for a session that was opened `counted`."""
        return self._model.counters()

    def layers(self) -> list[list[str]]:
        """What is executed; see `OpenVinoModel.layers`."""
        return self._model.layers()


class OpenVinoRuntime:
    """OpenVINO on the CPU with the plug-in's own choice of float precision, as its users have it.

    Raises:
        ImportError: It is not installed.
    """

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision
        self._package = import_module("openvino")

    @property
    def version(self) -> str:
        """Name and version."""
        return f"openvino {self._package.__version__.split('-')[0]}"

    def open(self, model: Model, *, threads: int = 1) -> OpenVinoSession:
        """Compile a model."""
        return OpenVinoSession(model, threads=threads, precision=self.precision)

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read the runtime model: each executed layer says its kernel and the layers it was fused from."""
        return kernels_among(model, self.open(model).layers())

    def kernel_times(self, model: onnx.ModelProto, feeds: Feeds, *, runs: int, threads: int = 1) -> list[KernelTime]:
        """Time of each kernel, from OpenVINO's performance counters; see `kernel_time.Profiler`.

        Raises:
            Unloadable: OpenVINO cannot load the model.
            OptimizationError: It cannot run it.
        """
        session = OpenVinoSession(model, threads=threads, precision=self.precision, counted=True)
        durations: dict[str, list[float]] = defaultdict(list)
        for run in range(WARM_UP + runs):
            session.run(feeds)
            for entry in session.counters():
                if run >= WARM_UP and entry.status == entry.Status.EXECUTED:
                    durations[entry.node_name].append(entry.real_time.total_seconds() * 1000)
        return kernels_of(session.compiled.get_runtime_model().get_ordered_ops(), durations)


def kernels_among(model: onnx.ModelProto, layers: Iterable[Sequence[str]]) -> Kernels:
    """Which of a model's nodes run in int8.

    Args:
        model: With unique node names.
        layers: Type, kernel and origins of each layer that OpenVINO executes for it.
    """
    names = {key: n.name for n in model.graph.node if n.op_type in WEIGHTED for key in (n.name, n.output[0])}
    int8: set[str] = set()
    left: Counter[str] = Counter()
    for kind, kernel, fused in layers:
        if kind in CONVERSIONS:
            left[kind] += 1
        if kernel.upper().endswith("_I8"):
            origins = (origin.removesuffix(SPLIT_BIAS) for origin in fused.split(","))
            int8 |= {names[origin] for origin in origins if origin in names}
    return Kernels(frozenset(int8), frozenset(set(names.values()) - int8), dict(sorted(left.items())))


def _point(error: Exception) -> str:
    """What it says of the model: which operators it does not have, where that is it; else its last line."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    missing = [line for line in lines if line.startswith("No conversion rule found")]
    return (missing or lines)[-1][:400] if lines else type(error).__name__
