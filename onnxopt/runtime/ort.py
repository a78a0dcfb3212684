"""ONNX Runtime sessions on the CPU."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import onnx
import onnxruntime

from onnxopt.errors import OptimizationError, Unloadable, UsageError
from onnxopt.graph import Array
from onnxopt.runtime.adapter import Feeds, InputFacts, Kernels, Model
from onnxopt.runtime.kernel_time import WARM_UP, KernelTime
from onnxopt.runtime.ort_profile import kernels_of
from onnxopt.runtime.runner import CPU, OnnxRuntimeModel

INT8_OPS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulNBits", "ConvInteger"})
FLOAT_OPS = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
SPINNING = "session.intra_op.allow_spinning"
# The extended level holds every int8 fusion; the layout level above it renames nodes.
SUFFIX = "ExecutionProvider"
LEVELS = ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose")


# What it says of a graph that breaks a rule: name, operator, domain and version of the node, its types, and the rule.
_INVALID = re.compile(
    r'This is an invalid model\. In Node, \("(?P<node>.*?)", (?P<op>\w+), "(?P<domain>.*?)", -?\d+\) : .* , '
    r"Error (?P<reason>.+)"
)
_UNKNOWN = re.compile(r"No Op registered for \w+ with domain_version of (?P<opset>\d+)")


class OrtSession:
    """A model loaded by ONNX Runtime, by default on the CPU.

    Args:
        model: Protobuf, serialised bytes, or a file (needed above 2 GB).
        threads: Threads inside an operator; one by default, so that timings mean something.
        optimized: False runs the graph as it is written, all graph optimizations off.
        spin: Whether threads that wait for work keep their cores busy: what fits a model that is run and timed alone.
            What is computed between two runs, by BLAS above all, takes twice as long beside them, and so do the runs.
        config: Session configuration entries.
        trace: Folder into which ORT writes the graph that it runs, as `OPTIMIZED`, and its profile; see `end_trace`.
        provider: Execution provider; what it cannot run, the CPU runs.

    Raises:
        Unloadable: ORT cannot load the model; carries ORT's own words.
    """

    OPTIMIZED = "optimized.onnx"

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        optimized: bool = True,
        spin: bool = False,
        config: Mapping[str, str] | None = None,
        trace: Path | None = None,
        provider: str = CPU,
    ) -> None:
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        try:
            self._model = OnnxRuntimeModel(
                source if isinstance(source, bytes) else str(source),
                threads,
                level="ORT_ENABLE_ALL" if optimized else "ORT_DISABLE_ALL",
                config={SPINNING: str(int(spin)), **(config or {})},
                trace=None if trace is None else str(trace / "profile"),
                written=None if trace is None else str(trace / self.OPTIMIZED),
                provider=provider,
            )
        except Exception as error:  # ORT's exceptions share no base class
            raise Unloadable(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        self.input_names = self._model.input_names
        self.output_names = self._model.output_names
        self.inputs: Sequence[InputFacts] = self._model.inputs

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: Input name to array; float32 ones are rounded for inputs that are float16.
            outputs: Names of the outputs wanted; default all.

        Raises:
            OptimizationError: ORT failed; carries its own words.
        """
        try:
            return self._model.run(feeds, outputs)
        except Exception as error:
            raise OptimizationError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error

    def end_trace(self) -> Path:
        """Stop profiling and return the file with the profile, for a session that was opened with `trace`."""
        return Path(self._model.end_trace())


def first_line(error: Exception) -> str:
    """ORT's message without its code, the place in its source, and its stack; the node first, if it names one."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"/onnxruntime_src/\S+:\d+ [^\n]*?\) ", "", text)  # "file:line signature(…) "
    text = re.sub(r"^Load model from .* failed:(?=This is an invalid model)", "", text)
    line = text.split("\n", 1)[0]
    found = _INVALID.fullmatch(line)
    return shorten(f"{found['op']} '{found['node']}': {_reason(found)}" if found else line, 400, placeholder=" …")


def _reason(invalid: re.Match[str]) -> str:
    unknown = _UNKNOWN.fullmatch(invalid["reason"])
    domain = invalid["domain"] or "ai.onnx"
    return f"{domain} has no such operator in opset {unknown['opset']}" if unknown else invalid["reason"]


class OrtRuntime:
    """ONNX Runtime as an adapter, by default on the CPU.

    Args:
        provider: Execution provider, in full (`CUDAExecutionProvider`) or its first half (`cuda`), in any case.

    Raises:
        UsageError: This build of ONNX Runtime does not have it.
    """

    def __init__(self, provider: str = CPU) -> None:
        available = {name.removesuffix(SUFFIX).lower(): name for name in onnxruntime.get_available_providers()}
        short = provider.lower().removesuffix(SUFFIX.lower())
        if short not in available:
            known = ", ".join(available)
            raise UsageError(f"ONNX Runtime has no execution provider '{provider}' here; give one of {known}")
        self.provider = available[short]

    @property
    def version(self) -> str:
        """Name and version, and the execution provider where it is not the CPU."""
        where = "" if self.provider == CPU else f" ({self.provider.removesuffix(SUFFIX)})"
        return f"onnxruntime {onnxruntime.__version__}{where}"

    def open(self, model: Model, *, threads: int = 1) -> OrtSession:
        """Load a model with all optimizations on."""
        return OrtSession(model, threads=threads, spin=True, provider=self.provider)

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read the optimized graph back."""
        with tempfile.TemporaryDirectory() as folder:
            return kernels_among(model, *(_optimized(model, Path(folder) / f"{level}.onnx", level) for level in LEVELS))

    def kernel_times(self, model: onnx.ModelProto, feeds: Feeds, *, runs: int, threads: int = 1) -> list[KernelTime]:
        """Time of each kernel, from ORT's profiler; see `kernel_time.Profiler`.

        Raises:
            OptimizationError: ORT cannot load or run the model.
        """
        with tempfile.TemporaryDirectory() as folder:
            session = OrtSession(model, threads=threads, spin=True, trace=Path(folder), provider=self.provider)
            for _ in range(WARM_UP + runs):
                session.run(feeds)
            events = json.loads(session.end_trace().read_text(encoding="utf-8"))
            graph = onnx.load(Path(folder) / OrtSession.OPTIMIZED, load_external_data=False).graph
        return kernels_of(events, graph)


def kernels_among(model: onnx.ModelProto, extended: onnx.ModelProto, everything: onnx.ModelProto) -> Kernels:
    """Which of a model's nodes run in int8: that node keeps its name into which others fuse.

    Args:
        model: With unique node names.
        extended: What ORT makes of it at the first of `LEVELS`.
        everything: And at the second.
    """
    weighted = {n.name for n in model.graph.node if n.op_type in FLOAT_OPS}
    int8 = {n.name for n in extended.graph.node if n.op_type in INT8_OPS}
    left = Counter(n.op_type for n in everything.graph.node if n.op_type in CONVERSIONS)
    return Kernels(frozenset(int8 & weighted), frozenset(weighted - int8), dict(sorted(left.items())))


def _optimized(model: onnx.ModelProto, file: Path, level: str) -> onnx.ModelProto:
    try:
        OnnxRuntimeModel(model.SerializeToString(), 1, level=level, written=str(file))
    except Exception as error:
        raise Unloadable(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
    return onnx.load(file)
