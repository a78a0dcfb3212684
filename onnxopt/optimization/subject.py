"""The model as it came: its inputs and cost, and what can run it.

What is broken already is no pass's fault, so the model is run once before anything is done to it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnxopt import model_io, registry
from onnxopt.data import InputSpec
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation import health, measure
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.graph import Array, Graph
from onnxopt.placement.retarget import is_quantized
from onnxopt.runtime import host
from onnxopt.runtime.adapter import Feeds, Runtime, Session, install_hint, load_runtime
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

UNLIKE = 3.0  # dB, half of the signal is noise; float arithmetic of two runtimes lies far above


class Subject:
    """The model that is optimized. Its graph is never changed.

    Args:
        model: File, protobuf or graph.
        target: What it is tuned for.
        shapes: Input name to shape, for dynamic inputs.
        batch: How many of these are run at once; what is said of the sizes chosen says so.

    Attributes:
        graph: The model.
        digest: SHA-256 of the file, if it came as one.
        target: What it is tuned for.
        runtime: The target's, or None where it cannot run here.
        inputs: The inputs with numbers for all dimensions.
        costs: MACs and parameters at these sizes.
        figures: Size, parameters and MACs; what is measured later is added.
        small: Whether it fits into one protobuf message, as sessions from memory need.
        cannot_run: Why it cannot be run at all; empty where it can.
        only_after: Whether the target runs what comes out, but not what came in.
        warnings: What a reader of the report must know.

    Raises:
        UsageError: The file cannot be read, or the shapes do not fit.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto | Graph,
        target: Target,
        shapes: Mapping[str, Sequence[int]] | None = None,
        batch: int = 1,
    ) -> None:
        file = Path(model) if isinstance(model, str | Path) else None
        self.graph = _graph_of(model)
        self.digest = _digest(file) if file is not None else None
        self.target = target
        self.small = measure.runnable(self.graph)
        self.cannot_run = "" if self.small else "the model is larger than 2 GB"
        self.only_after = False
        self.runtime: Runtime | None = load_runtime(target) if self.small else None
        self.inputs: tuple[InputSpec, ...]
        self.inputs, notes = resolve_inputs(self.graph, dict(shapes) if shapes else None, batch=batch)
        self.warnings = [*health.check_weights(self.graph), *notes]
        self.costs = measure.cost(self.graph, target, self.inputs)
        self.figures = measure.figures(self.graph, self.costs, file.stat().st_size if file is not None else None)

    @property
    def timed_on(self) -> Runtime | None:
        """The runtime on which it can be timed against what comes out."""
        return None if self.only_after else self.runtime

    @property
    def why_not_measured(self) -> str:
        """Why there is no latency; empty where there is."""
        if self.only_after:
            return "the target does not run the model as given"
        return self.why_not_run

    @property
    def why_not_run(self) -> str:
        """Why outputs are not compared and nothing is scored; empty where they are."""
        if self.runtime is not None:
            return ""
        return self.cannot_run or f"the target cannot run here{install_hint(self.target)}"

    def macs(self, graph: Graph) -> int:
        """MACs of another graph at the same sizes."""
        return measure.cost(graph, self.target, self.inputs).total_macs

    def open(self, runtime: Runtime) -> Session:
        """A session of the model, on ONNX Runtime as it is written where the target does not take it."""
        proto = self.graph.to_proto()
        return OrtSession(proto, optimized=False) if self.only_after else runtime.open(proto)

    def try_once(self, feeds: Feeds) -> None:
        """Run it, and find out what can run it.

        Raises:
            UsageError: It does not run, and that is not for operators or types that ONNX Runtime does not have.
        """
        if not self.small:
            return
        try:
            wanted = OrtSession(self.graph.to_proto(), optimized=False).run(feeds)
        except OptimizationError as error:
            custom = health.custom_operators(self.graph)
            if not custom and "find an implementation" not in str(error):
                advice = "export it again, or give --input-shape where sizes are open"
                raise UsageError(f"{self.graph.source}: {error}; {advice}") from None
            self.cannot_run = f"ONNX Runtime has no {', '.join(custom)}" if custom else str(error)
            self.warnings.append(f"{self.cannot_run}: outputs are not compared and latency is not measured")
            self.runtime = None
            return
        if self.runtime is not None:
            self._try_on_target(self.runtime, feeds, wanted)

    def _try_on_target(self, runtime: Runtime, feeds: Feeds, wanted: dict[str, Array]) -> None:
        """See whether the target runs it as it came, and with the outputs that ONNX defines."""
        try:
            got = runtime.open(self.graph.to_proto()).run(feeds)
            likeness = worst_sqnr([wanted], [got]) if is_quantized(self.graph) else UNLIKE
            if likeness < UNLIKE:
                self.warnings.append(
                    f"{self.target.name} gives other outputs for the model as given than ONNX Runtime "
                    f"({likeness:.1f} dB): what is compared with them says little"
                )
        except OptimizationError as error:
            self.only_after = True
            self.warnings.append(
                f"the model as given does not run on {self.target.name} ({error}): "
                "latency is not measured, and outputs are compared with what ONNX Runtime makes of it"
            )


def table_of(target: str | Target) -> Target:
    """A target's table, with the block of channels that this machine likes where it does not say.

    Raises:
        UsageError: No target has the name.
    """
    table = registry.load_target(target) if isinstance(target, str) else target
    return table if table.alignment else replace(table, alignment=host.channel_block())


def _graph_of(model: str | Path | onnx.ModelProto | Graph) -> Graph:
    if isinstance(model, Graph):
        return model.copy()
    if isinstance(model, onnx.ModelProto):
        own = onnx.ModelProto()
        own.CopyFrom(model)
        return Graph.from_proto(own)
    return model_io.load(model)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
