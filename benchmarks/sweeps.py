"""One calibration each of onnxopt's and of ONNX Runtime's, watched from the side of the data.

`Timed` sees a sweep's time without touching its code: a sweep asks for one array after the other, so the time
between handing one out and being asked for the next is what was done with it.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from peers import Reader, quiet
from workbench import Subject

from onnxopt import Context, Target
from onnxopt.analysis.shapes import RunShapes, Shapes
from onnxopt.calibration.collect import collect
from onnxopt.calibration.derive import plan_statistics
from onnxopt.calibration.methods import Method, Scheme, compute_range, needs_histogram
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.data import Array, Dataset, Sample
from onnxopt.data.dataset import Digest, hash_feeds
from onnxopt.placement import plan
from onnxopt.registry import load_pass, load_target
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession

WARM_UP = 2  # images with which a new session takes its memory and a kernel is loaded
# The library's default for entropy is 128 bins for 128 levels, which leaves nothing to choose: it is min/max. With as
# many bins as onnxopt's histograms have, it searches.
ORT_METHODS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {}),
    "entropy-2048": (CalibrationMethod.Entropy, {"num_bins": 2048, "num_quantized_bins": 128}),
}
Feeds = dict[str, Array]


@dataclass
class Timed:
    """Arrays in memory that a sweep asks for one by one, with a plain run on each in between.

    It serves as a `Source` of samples; one reading is one sweep.

    Attributes:
        feeds: The arrays, one image each.
        session: The plain session.
        sweeps: Seconds that each sweep took for each image.
        plain: Seconds that the plain session took for it.
        last: When the last image of the last sweep was done.
        finish_ms: Milliseconds from there to the end; set by who runs the sweep.
    """

    feeds: Sequence[Feeds]
    session: OrtSession
    sweeps: list[list[float]] = field(default_factory=list)
    plain: list[list[float]] = field(default_factory=list)
    last: float = 0.0
    finish_ms: float = 0.0
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.feeds)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Hand out the images."""
        self.sweeps.append([])
        self.plain.append([])
        for index in range(len(self.feeds)) if indices is None else indices:
            feeds = self.feeds[index]
            handed_out = time.perf_counter()
            yield Sample(feeds)
            self.last = time.perf_counter()
            self.sweeps[-1].append(self.last - handed_out)
            self.session.run(feeds)
            self.plain[-1].append(time.perf_counter() - self.last)
        self.last = time.perf_counter()

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add the arrays."""
        for index in range(len(self.feeds)) if indices is None else indices:
            hash_feeds(digest, self.feeds[index])

    def stop(self) -> None:
        """Say that the calibration has ended."""
        self.finish_ms = 1e3 * (time.perf_counter() - self.last)

    @property
    def ratios(self) -> Any:
        """Sweep over plain inference per image, the warm-up left out; float64[images]."""
        return self._sweep() / self._plain()

    @property
    def sweep_ms(self) -> float:
        """Median of the sweep's time per image."""
        return float(1e3 * np.median(self._sweep()))

    @property
    def plain_ms(self) -> float:
        """Median of plain inference per image."""
        return float(1e3 * np.median(self._plain()))

    def _sweep(self) -> Any:
        """Seconds per image: the sum where the graph was swept in several portions."""
        return np.sum(self.sweeps, axis=0)[WARM_UP:]

    def _plain(self) -> Any:
        return np.mean(self.plain, axis=0)[WARM_UP:]


def time_onnxopt(subject: Subject, feeds: Sequence[Feeds], method: Method, threads: int) -> Timed:
    """Sweep with onnxopt, as `calibrate` does, and work the ranges out.

    Args:
        subject: The graph to calibrate.
        feeds: The images; the first `WARM_UP` are not counted.
        method: Of `onnxopt.calibration.methods`.
        threads: Of the sweep's and of the plain session.
    """
    context = Context(load_target("ort"), inputs=subject.inputs)
    context.bind(subject.graph, PassRecord("calibrate"))
    wanted = plan(subject.graph, context.target, context.get(Shapes)).tensors
    timed = Timed(feeds, OrtSession(subject.file, threads=threads))
    for source in (Timed(feeds[:1], timed.session), timed):  # the first one compiles the kernels
        statistics = collect(
            subject.graph,
            plan_statistics(subject.graph, list(wanted)),
            Dataset(source, "arrays"),
            context.get(RunShapes),
            histogram=needs_histogram(method),
            threads=threads,
        )
        _work_out_ranges(statistics.values(), method, context.target)
        source.stop()
    return timed


def _work_out_ranges(statistics: Iterable[TensorStatistics], method: Method, target: Target) -> None:
    scheme = Scheme(target.activation.dtype, target.activation.symmetric)
    for entry in statistics:
        compute_range(entry, method, scheme=scheme)


class TimedReader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime carries no types
    """The same for ONNX Runtime's calibrators."""

    def __init__(self, timed: Timed) -> None:
        self._samples = timed.read(None)

    def get_next(self) -> Feeds | None:
        """Return the next image, or None after the last."""
        sample = next(self._samples, None)
        return sample.feeds if sample is not None else None


def time_ort(subject: Subject, feeds: Sequence[Feeds], method: str, threads: int) -> Timed:
    """Sweep with one of ONNX Runtime's calibrators; arguments as in `time_onnxopt`."""
    timed = Timed(feeds, OrtSession(subject.file, threads=threads))
    with quiet():
        calibrator = _ort_calibrator(subject.file, method, threads)
        calibrator.collect_data(TimedReader(timed))
        calibrator.compute_data()
    timed.stop()
    return timed


def _ort_calibrator(model: Path, method: str, threads: int | None) -> Any:
    """An ONNX Runtime calibrator; it offers no way to set the number of threads but to replace its session."""
    kind, options = ORT_METHODS[method]
    operators = sorted({*QLinearOpsRegistry, *QDQRegistry})
    augmented = model.with_suffix(f".{method}.augmented.onnx")
    calibrator = create_calibrator(model, operators, str(augmented), kind, extra_options=options)
    if threads is not None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # as the calibrator's
        calibrator.infer_session = onnxruntime.InferenceSession(augmented, settings, providers=["CPUExecutionProvider"])
    return calibrator


@dataclass(frozen=True)
class Weight:
    """What a calibration took.

    Attributes:
        images: How many were read.
        seconds: From the files of model and pictures to the ranges.
        peak_mb: Most memory that the process held, in MB.
    """

    images: int
    seconds: float
    peak_mb: float


def calibrate_and_weigh(subject: Subject, calibrator: str, images: int, *, to_the_end: bool = True) -> Weight:
    """Calibrate once, reading pictures as they come, and weigh this process.

    Args:
        subject: The graph to calibrate.
        calibrator: Tool and method, e.g. `onnxopt entropy`.
        images: How many to read, where there are so many.
        to_the_end: Also let ONNX Runtime's calibrators search, which takes time but no more memory.
    """
    tool, method = calibrator.split()
    began = time.perf_counter()
    samples = subject.samples(images)
    if tool == "onnxopt":
        context = Context(load_target("ort"), inputs=subject.inputs, fit=samples)
        context.bind(subject.graph, PassRecord("calibrate"))
        load_pass("calibrate").from_options({"method": method}).run(subject.graph, context)
    else:
        with quiet():
            ort = _ort_calibrator(subject.file, method, None)
            ort.collect_data(Reader(samples))
            if to_the_end:
                ort.compute_data()
    return Weight(len(samples), time.perf_counter() - began, peak_memory() / 1e6)


def peak_memory() -> int:
    """Most bytes of memory that this process ever held.

    Linux keeps the peak of the process that started this one in `ru_maxrss`; `VmHWM` is of this one alone.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
