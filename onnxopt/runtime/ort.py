"""ONNX Runtime sessions on the CPU."""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from onnxopt.errors import OptimizationError
from onnxopt.graph import Array
from onnxopt.runtime.adapter import Feeds, Kernels, Model
from onnxopt.runtime.kernel_time import KernelTime

INT8_OPS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulNBits", "ConvInteger"})
FLOAT_OPS = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose")


class OrtSession:
    """A model loaded by ONNX Runtime's CPU execution provider.

    Args:
        model: Protobuf, serialised bytes, or a file (needed above 2 GB).
        threads: Threads inside an operator; one by default, so that timings mean something.
        optimized: False runs the graph as it is written, all graph optimizations off.
        config: Session configuration entries.
        trace: Folder into which ORT writes the graph that it runs, as `OPTIMIZED`, and its profile; see `end_trace`.

    Raises:
        OptimizationError: ORT cannot load the model; carries ORT's own words.
    """

    OPTIMIZED = "optimized.onnx"

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        optimized: bool = True,
        config: Mapping[str, str] | None = None,
        trace: Path | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters is raised; the rest is noise in a report
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        if trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(trace / "profile")
            options.optimized_model_filepath = str(trace / self.OPTIMIZED)
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        try:
            self._session = onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ORT's exceptions share no base class
            raise OptimizationError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        self.input_names: list[str] = [i.name for i in self._session.get_inputs()]
        self._half = {i.name for i in self._session.get_inputs() if i.type == "tensor(float16)"}
        self.output_names: list[str] = [o.name for o in self._session.get_outputs()]

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: Input name to array; float32 ones are rounded for inputs that are float16.
            outputs: Names of the outputs wanted; default all.

        Raises:
            OptimizationError: ORT failed; carries its own words.
        """
        names = list(outputs) if outputs is not None else self.output_names
        fitting = {name: values.astype(np.float16) if name in self._half else values for name, values in feeds.items()}
        try:
            values: list[Any] = self._session.run(names, fitting)
        except Exception as error:
            raise OptimizationError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def end_trace(self) -> Path:
        """Stop profiling and return the file with the profile, for a session that was opened with `trace`."""
        return Path(self._session.end_profiling())


def first_line(error: Exception) -> str:
    """ORT's message without its code, the place in its source, and its stack."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"^/onnxruntime_src/\S+ .*\) ", "", text)  # "file:line signature(…) "
    return text.split("\n", 1)[0][:400]


class OrtRuntime:
    """ONNX Runtime on the CPU, as an adapter."""

    @property
    def version(self) -> str:
        """Name and version."""
        return f"onnxruntime {onnxruntime.__version__}"

    def open(self, model: Model, *, threads: int = 1) -> OrtSession:
        """Load a model with all optimizations on."""
        return OrtSession(model, threads=threads)

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read the optimized graph back. Fusion keeps the name of the node that it fuses into."""
        weighted = {n.name for n in model.graph.node if n.op_type in FLOAT_OPS}
        with tempfile.TemporaryDirectory() as folder:
            # The extended level holds every int8 fusion; the layout level above it renames nodes.
            extended = _optimized(model, Path(folder) / "extended.onnx", "ORT_ENABLE_EXTENDED")
            everything = _optimized(model, Path(folder) / "all.onnx", "ORT_ENABLE_ALL")
        int8 = {n.name for n in extended.graph.node if n.op_type in INT8_OPS}
        left = Counter(n.op_type for n in everything.graph.node if n.op_type in CONVERSIONS)
        return Kernels(frozenset(int8 & weighted), frozenset(weighted - int8), dict(sorted(left.items())))

    def kernel_times(self, model: onnx.ModelProto, feeds: Feeds, *, runs: int, threads: int = 1) -> list[KernelTime]:
        """Time of each kernel, from ORT's profiler."""
        from onnxopt.runtime.ort_profile import kernel_times  # noqa: PLC0415  (it opens sessions of this module)

        return kernel_times(model, feeds, runs=runs, threads=threads)


def _optimized(model: onnx.ModelProto, file: Path, level: str) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(file)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OptimizationError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
    return onnx.load(file)
