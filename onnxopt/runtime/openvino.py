"""OpenVINO on the CPU, as an adapter. Importing this module needs the extra `onnxopt[openvino]`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import onnx
import openvino

from onnxopt.errors import OptimizationError
from onnxopt.graph import Array
from onnxopt.runtime.adapter import Feeds, Kernels, Model
from onnxopt.runtime.kernel_time import KernelTime

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SPLIT_BIAS = "/WithoutBiases"  # what the ONNX frontend appends to a Conv whose bias becomes an Add
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
        OptimizationError: OpenVINO cannot load the model; carries its own words.
    """

    def __init__(self, model: Model, *, threads: int = 1, precision: str | None = None, counted: bool = False) -> None:
        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if precision is not None:
            config["INFERENCE_PRECISION_HINT"] = precision
        if counted:
            config["PERF_COUNT"] = True
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        try:
            core = openvino.Core()
            read = core.read_model(source)
            names = [o.get_names() for o in read.outputs]  # compiling may add the names of what is computed on the way
            self.compiled = core.compile_model(read, "CPU", config)
            self._request = self.compiled.create_infer_request()
        except RuntimeError as error:
            raise OptimizationError(f"OpenVINO cannot load the model: {_last_line(error)}") from error
        self.output_names = [min(found) for found in names]

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; all outputs by name, or those asked for."""
        try:
            self._request.infer(dict(feeds))
        except RuntimeError as error:
            raise OptimizationError(f"OpenVINO cannot run the model: {_last_line(error)}") from error
        values = {n: self._request.get_output_tensor(i).data.copy() for i, n in enumerate(self.output_names)}
        return values if outputs is None else {name: values[name] for name in outputs}

    def counters(self) -> "list[openvino.ProfilingInfo]":
        """Performance counters of the last run, for a session that was opened `counted`."""
        return list(self._request.get_profiling_info())


class OpenVinoRuntime:
    """OpenVINO on the CPU with the plug-in's own choice of float precision, as its users have it."""

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision

    @property
    def version(self) -> str:
        """Name and version."""
        return f"openvino {openvino.__version__.split('-')[0]}"

    def open(self, model: Model, *, threads: int = 1) -> OpenVinoSession:
        """Compile a model."""
        return OpenVinoSession(model, threads=threads, precision=self.precision)

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read the runtime model: each executed layer says its kernel and the layers it was fused from."""
        names = {key: n.name for n in model.graph.node if n.op_type in WEIGHTED for key in (n.name, n.output[0])}
        int8: set[str] = set()
        left: Counter[str] = Counter()
        for layer in self.open(model).compiled.get_runtime_model().get_ordered_ops():
            info = layer.get_rt_info()
            kind, kernel = (str(info[key].astype(str)) for key in ("layerType", "primitiveType"))
            if kind in CONVERSIONS:
                left[kind] += 1
            if kernel.upper().endswith("_I8") and "originalLayersNames" in info:
                origins = str(info["originalLayersNames"].astype(str)).split(",")
                int8 |= {names[o] for o in (origin.removesuffix(SPLIT_BIAS) for origin in origins) if o in names}
        return Kernels(frozenset(int8), frozenset(set(names.values()) - int8), dict(sorted(left.items())))

    def kernel_times(self, model: onnx.ModelProto, feeds: Feeds, *, runs: int, threads: int = 1) -> list[KernelTime]:
        """Time of each kernel, from OpenVINO's performance counters."""
        from onnxopt.runtime.openvino_profile import kernel_times  # noqa: PLC0415  (it opens sessions of this module)

        return kernel_times(model, feeds, runs=runs, threads=threads, precision=self.precision)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
