"""What an HTML report shows beyond the figures of a run: memory, cold start, energy, layers, tensors, pictures.

A part that cannot be measured is left out, and why is among the notes.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import onnx

from onnxopt.data import Dataset, InputSpec
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation import measure
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.frames import compare_frames
from onnxopt.evaluation.layer_noise import measure_noise, worst_spectra
from onnxopt.graph import Graph
from onnxopt.profiling import Profile, profile_model
from onnxopt.profiling.layer_table import Known, layer_table
from onnxopt.profiling.peaks import Peaks
from onnxopt.profiling.text import profile_summary
from onnxopt.report.document import Picture
from onnxopt.report.findings import Findings, Resources
from onnxopt.runtime.adapter import Feeds, Runtime, Session
from onnxopt.runtime.energy import EnergyMeter
from onnxopt.runtime.footprint import measure_footprint
from onnxopt.runtime.kernel_time import Profiler
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets import Target

NOISE_SAMPLES, SPECTRUM_SAMPLES, FRAMES = 4, 8, 64
T = TypeVar("T")


@dataclass
class Pair:
    """Two models, and what they run on.

    Attributes:
        before: The model as given.
        after: The optimized one.
        target: What it is for.
        runtime: The target's; None where it cannot run here.
        inputs: Sizes to run at.
        samples: Held-out ones, to measure on.
        shown: Those whose pictures are shown.
        only_after: Whether the target runs the second model alone.
        decode: Decoder that the user named; None: found.
        notes: What could not be measured, and why; grows.
    """

    before: Graph
    after: Graph
    target: Target
    runtime: Runtime | None
    inputs: Sequence[InputSpec]
    samples: Dataset
    shown: Dataset
    only_after: bool = False
    decode: str | None = None
    notes: list[str] = field(default_factory=list)

    def measure(self) -> Findings:
        """Measure everything that can be."""
        feeds = next(iter(self.samples)).feeds
        meter = EnergyMeter()
        before = self._resources(self.before, None if self.only_after else self.runtime, feeds, meter)
        after = self._resources(self.after, self.runtime, feeds, meter)
        noise = self._try(
            "error of layers",
            lambda: measure_noise(self.before, self.after, self.inputs, self.samples.take(NOISE_SAMPLES)),
        )
        few = self.samples.take(SPECTRUM_SAMPLES)
        spectra = (
            self._try("spread of tensors", lambda: worst_spectra(self.before, noise, self.inputs, few))
            if noise is not None
            else None
        )
        profiles = self._profiles(feeds)
        runtime = self.runtime
        kernels = (
            self._try("kernels", lambda: measure.read_kernels(self.after, runtime)) if runtime is not None else None
        )
        costs = measure.cost(self.after, self.target, self.inputs)
        known = Known(
            kernels=kernels,
            noise=noise,
            profile=profiles[1],
            before=profiles[0],
            macs=measure.macs_by_name(self.after, costs),
        )
        return Findings(
            before=before,
            after=after,
            layers=layer_table(self.after, self.target, known),
            layers_text=profile_summary(profiles[1]) if profiles[1] is not None else "",
            spectra=spectra or (),
            pictures=self._try("pictures", self._pictures) or (),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _try(self, what: str, measured: Callable[[], T]) -> T | None:
        try:
            return measured()
        except OnnxoptError as error:
            self.notes.append(f"{what}: not measured ({error})")
            return None

    def _resources(self, graph: Graph, runtime: Runtime | None, feeds: Feeds, meter: EnergyMeter) -> Resources:
        proto = graph.to_proto()
        size = len(zlib.compress(proto.SerializeToString(), 9))
        if runtime is None or self.target.runtime is not None:  # of another machine: a process here tells nothing
            return Resources(size)
        footprint = self._try("memory and cold start", lambda: measure_footprint(self.target.adapter, proto, feeds))
        energy = _energy(proto, runtime, feeds, meter) if meter.readable else None
        if footprint is None:
            return Resources(size, energy_mj=energy)
        return Resources(size, footprint.cold_start_ms, footprint.peak_bytes, energy)

    def _profiles(self, feeds: Feeds) -> tuple[Profile | None, Profile | None]:
        """Times of layers before and after."""
        if not isinstance(self.runtime, Profiler):
            return None, None

        def timed(graph: Graph, peaks: Peaks | None) -> Profile | None:
            def measured() -> Profile:
                return profile_model(graph, self.target, self.inputs, original=self.before, feeds=feeds, peaks=peaks)

            return self._try("time of layers", measured)

        after = timed(self.after, None)
        before = timed(self.before, after.peaks) if after is not None and not self.only_after else None
        return before, after

    def _pictures(self) -> tuple[Picture, ...]:
        before = self._session(self.before, as_written=self.only_after)
        return compare_frames(
            before, self._session(self.after), self.shown.take(FRAMES), Reader(self.before.metadata, self.decode)
        )

    def _session(self, graph: Graph, *, as_written: bool = False) -> Session:
        """On the target, else on ONNX Runtime, which does what the graph says."""
        proto = graph.to_proto()
        if self.runtime is None or as_written:
            return OrtSession(proto, optimized=False)
        return self.runtime.open(proto)


def _energy(model: onnx.ModelProto, runtime: Runtime, feeds: Feeds, meter: EnergyMeter) -> float | None:
    session = runtime.open(model)
    return meter.millijoules(lambda: session.run(feeds))
