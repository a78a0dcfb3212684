"""How long each layer of the original model takes on a target's runtime, and what bounds it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onnxopt.analysis.cost import Cost
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.evaluation import measure
from onnxopt.evaluation.inputs import fill_batch
from onnxopt.graph import Graph, Node
from onnxopt.profiling.mapping import Mapping, Place
from onnxopt.profiling.peaks import Peaks, measure_peaks
from onnxopt.runtime.adapter import Feeds, needed_runtime
from onnxopt.runtime.kernel_time import KernelTime, Profiler, undisturbed
from onnxopt.targets import Target

RUNS = 50
WARM_UP = 3
FAR_BELOW = 0.1  # of what the roofs allow: what takes ten times as long is held up by something else


@dataclass
class LayerTime:
    """One layer of the original model.

    Attributes:
        name: Its name there; what the runtime calls it where there is no such layer.
        op: Its operator.
        kernels: What the runtime executes for it, conversions left out.
        precision: What it computes in.
        milliseconds: Of one run, without conversions.
        conversions_ms: Time of changes of type and layout that it causes.
        share: Of the time of all kernels, 0..1, conversions included.
        macs: Multiply-accumulates that are really done for it, after pruning.
        moved: Bytes of activations and weights that its kernels read and write.
        roof_ms: Least time that this machine allows for these; see `peaks`.
        bound: What limits it: `compute`, `memory`, `conversions`, or `overhead` (far below both roofs: small sizes,
            or a kernel that is poor).
        nodes: Names of the nodes of the model that ran.
    """

    name: str
    op: str
    kernels: list[str] = field(default_factory=list)
    precision: str = ""
    milliseconds: float = 0.0
    conversions_ms: float = 0.0
    share: float = 0.0
    macs: int = 0
    moved: int = 0
    roof_ms: float = 0.0
    bound: str = ""
    nodes: list[str] = field(default_factory=list)

    @property
    def total_ms(self) -> float:
        """Time of its kernels and of its conversions."""
        return self.milliseconds + self.conversions_ms


@dataclass(frozen=True)
class Profile:
    """Where the time goes.

    Attributes:
        model: Name of the file.
        original: Name of the file whose layers are shown.
        runtime: Name and version.
        latency_ms: Of a run that nothing else on the machine disturbed, without the profiler.
        layers: In order of execution.
        peaks: The roofs.
        toll_ms: What the profiler itself adds to each kernel; it is taken off.
    """

    model: str
    original: str
    runtime: str
    latency_ms: float
    toll_ms: float
    layers: list[LayerTime]
    peaks: Peaks

    @property
    def kernels_ms(self) -> float:
        """Time of all kernels."""
        return sum(layer.total_ms for layer in self.layers)

    def shares(self) -> dict[str, float]:
        """Share of the kernels' time by what bounds it; conversions of all layers are counted as such."""
        found: dict[str, float] = {}
        for layer in self.layers:
            own = "overhead" if layer.bound == "conversions" else layer.bound
            found[own] = found.get(own, 0.0) + layer.milliseconds
            found["conversions"] = found.get("conversions", 0.0) + layer.conversions_ms
        total = self.kernels_ms or 1.0
        return {kind: time / total for kind, time in sorted(found.items(), key=lambda item: -item[1]) if time > 0}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "model": self.model,
            "original": self.original,
            "runtime": self.runtime,
            "latency_ms": self.latency_ms,
            "kernels_ms": self.kernels_ms,
            "profiler_toll_ms": self.toll_ms,
            "shares": self.shares(),
            "peaks": asdict(self.peaks),
            "layers": [asdict(layer) for layer in self.layers],
        }


def profile_model(
    graph: Graph,
    target: Target,
    inputs: Sequence[InputSpec],
    *,
    original: Graph | None = None,
    feeds: Feeds | None = None,
    runs: int = RUNS,
    peaks: Peaks | None = None,
) -> Profile:
    """Time a model's kernels on the target's runtime, one thread, and tell whose they are.

    Args:
        graph: The model to run.
        target: Whose runtime.
        inputs: Sizes to run at.
        original: The model that it was made from; its layers are shown. None: its own.
        feeds: What to run it on; default: a synthetic picture.
        runs: How often.
        peaks: Of this machine and runtime, where they are known; None: measured.

    Raises:
        UsageError: The target cannot run here, or its runtime does not say how long its kernels take.
        OptimizationError: The runtime cannot load or run the model.
    """
    runtime = needed_runtime(target)
    if not isinstance(runtime, Profiler):
        raise UsageError(f"the runtime of target '{target.name}' does not say how long its kernels take")
    named = graph.copy()
    named.name_nodes()
    fed = fill_batch(next(iter(synthetic(tuple(inputs), 1))).feeds, tuple(inputs)) if feeds is None else feeds
    proto = named.to_proto()
    kernels = runtime.kernel_times(proto, fed, runs=runs)
    session = runtime.open(proto)
    plain = _plain_ms(lambda: session.run(fed), runs)
    kernels, toll = _without_toll(kernels, plain)
    roofs = peaks or measure_peaks(runtime)
    costs = measure.cost(named, target, inputs)
    return Profile(
        model=graph.source,
        original=(original or graph).source,
        runtime=runtime.version,
        latency_ms=plain,
        toll_ms=toll,
        layers=_layers(named, original or named, kernels, costs, roofs),
        peaks=roofs,
    )


def _plain_ms(run: Callable[[], object], runs: int) -> float:
    """Milliseconds of one run without the profiler."""
    times = []
    for _ in range(WARM_UP + runs):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return undisturbed(times[WARM_UP:])


def _without_toll(kernels: Sequence[KernelTime], latency_ms: float) -> tuple[list[KernelTime], float]:
    """Take off what a profiler adds: the same for each kernel, so that all together take as long as a plain run.

    Writing an event down takes a few microseconds, which small kernels would be blamed for.
    """
    excess = sum(k.milliseconds for k in kernels) - latency_ms
    toll = max(0.0, min([excess / len(kernels), *(k.milliseconds for k in kernels)])) if kernels else 0.0
    return [replace(k, milliseconds=k.milliseconds - toll) for k in kernels], toll


def _layers(graph: Graph, original: Graph, kernels: Sequence[KernelTime], costs: Cost, peaks: Peaks) -> list[LayerTime]:
    mapping = Mapping(graph, original, kernels)
    layers: dict[str, LayerTime] = {}
    for kernel in kernels:
        place = mapping.place(kernel)
        known = place.layer if place.layer is not None else place.node
        name = _title(known) if known is not None else kernel.name
        layer = layers.setdefault(name, LayerTime(name, known.op if known is not None else kernel.op))
        if place.conversion:
            layer.conversions_ms += kernel.milliseconds
        else:
            _add(layer, graph, kernel, place, costs)
    total = sum(layer.total_ms for layer in layers.values()) or 1.0
    for layer in layers.values():
        layer.share = layer.total_ms / total
        _bound(layer, peaks)
    return list(layers.values())


def _add(layer: LayerTime, graph: Graph, kernel: KernelTime, place: Place, costs: Cost) -> None:
    """Count one kernel that does a layer's work."""
    layer.kernels.append(kernel.op)
    layer.milliseconds += kernel.milliseconds
    layer.moved += kernel.moved
    node = place.node
    if node is None or node.name in layer.nodes:
        layer.precision = layer.precision or kernel.precision
        return
    layer.nodes.append(node.name)
    macs = costs.macs.get(node.outputs[0].name, 0) if node.outputs else 0
    if macs or not layer.precision:
        layer.precision = kernel.precision
    layer.macs += macs
    layer.moved += sum(_stored(graph, tensor) for tensor in node.inputs)


def _stored(graph: Graph, tensor: Any) -> int:
    """Bytes of a constant as it is stored, seen through the DequantizeLinear of quantized weights."""
    values = graph.constant(tensor)
    if values is not None:
        return int(values.nbytes)
    maker = graph.producer(tensor)
    if maker is None or maker.op != "DequantizeLinear":
        return 0
    values = graph.constant(maker.inputs[0])
    return int(values.nbytes) if values is not None else 0


def _bound(layer: LayerTime, peaks: Peaks) -> None:
    compute, memory = peaks.compute_ms(layer.macs, layer.precision), peaks.memory_ms(layer.moved)
    layer.roof_ms = max(compute, memory)
    if layer.conversions_ms > layer.milliseconds:
        layer.bound = "conversions"
    elif layer.roof_ms < FAR_BELOW * layer.milliseconds:
        layer.bound = "overhead"
    else:
        layer.bound = "compute" if compute >= memory else "memory"


def _title(node: Node) -> str:
    return node.name or next((t.name for t in node.outputs), node.op)
