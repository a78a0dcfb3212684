"""Time the calibration kernels against numpy and against onnxruntime's entropy calibrator, on one thread.

Run: `python benchmarks/calibration_kernels.py`. Prints medians over interleaved rounds and the spread between the
quartiles. Synthetic activations of three kinds: two-sided (normal), one-sided with half zeros (its Relu), and SiLU.
"""

import argparse
import contextlib
import io
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization.calibrate import HistogramCollector

from onnxopt.calibration.methods import METHODS, compute_range, entropy
from onnxopt.calibration.statistics import TensorStatistics
from onnxopt.kernels import Histogram, minmax, quantize_linear

Float32Array = npt.NDArray[np.float32]

ENTROPY_TENSORS = 300
BINS, LEVELS = 2048, 128


def activations(size: int, seed: int = 0) -> dict[str, Float32Array]:
    """Return float32 arrays of shape [size] by kind."""
    normal = np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 3
    return {"normal": normal, "relu": np.maximum(normal, 0), "silu": normal / (1 + np.exp(-normal))}


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the seconds that each task took in each round, after one round to warm up."""
    for task in tasks.values():
        task()
    seconds = {name: np.empty(rounds) for name in tasks}
    for i in range(rounds):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            seconds[name][i] = time.perf_counter() - begin
    return seconds


def show(title: str, seconds: npt.NDArray[np.float64], scale: float, unit: str) -> None:
    """Print one line: median and quartiles."""
    low, middle, high = np.percentile(seconds * scale, [25, 50, 75])
    print(f"  {title:<34} {middle:9.3f} {unit}  ({low:.3f} to {high:.3f})")


def per_element(size: int, rounds: int) -> None:
    """Kernels that pass over whole activations."""
    print(f"per element, arrays of {size:,} float32")
    for kind, x in activations(size).items():
        low, high, _ = minmax(x)
        histogram = Histogram()
        edges = (low, high)
        tasks: dict[str, Callable[[], object]] = {
            f"{kind}: min and max": lambda x=x: minmax(x),  # type: ignore[misc]
            f"{kind}: numpy min and max": lambda x=x: (x.min(), x.max()),  # type: ignore[misc]
            f"{kind}: histogram": lambda h=histogram, x=x, e=edges: h.add(x, *e),  # type: ignore[misc]
            f"{kind}: numpy.histogram": lambda x=x, e=edges: np.histogram(x, BINS, e),  # type: ignore[misc]
            f"{kind}: quantize": lambda x=x: quantize_linear(x, 0.05, 128, qmin=0, qmax=255),  # type: ignore[misc]
        }
        for title, seconds in interleaved(tasks, rounds).items():
            show(title, seconds, 1e9 / size, "ns")


def statistics_of(arrays: list[Float32Array]) -> TensorStatistics:
    """Accumulate one tensor over several images."""
    statistics = TensorStatistics("x", histogram=True)
    for array in arrays:
        statistics.update(array[None])
    return statistics


def searches(rounds: int) -> None:
    """Every method on 300 tensors whose histograms are there."""
    print(f"from histograms to ranges, {ENTROPY_TENSORS} tensors")
    kinds = [statistics_of([x]) for x in activations(200_000).values()]
    tasks: dict[str, Callable[[], object]] = {
        method: lambda m=method: [compute_range(kinds[i % 3], m) for i in range(ENTROPY_TENSORS)]  # type: ignore[misc]
        for method in METHODS
    }
    for title, seconds in interleaved(tasks, max(rounds // 10, 3)).items():
        show(title, seconds, 1e3, "ms")


def onnxruntime_entropy(arrays: list[Float32Array]) -> float:
    """Return the threshold of onnxruntime's entropy calibrator with TensorRT's settings."""
    collector = HistogramCollector("entropy", True, BINS, LEVELS, 99.99, "same")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        collector.collect({"x": arrays})
        return float(collector.compute_collection_result()["x"][1])


def peak_megabytes(task: Callable[[], object]) -> float:
    """Return the largest amount of memory that Python and numpy held during the task."""
    tracemalloc.start()
    task()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def against_onnxruntime(images: int, rounds: int) -> None:
    """Collecting and searching one tensor of several images."""
    size = 64 * 80 * 80
    print(f"entropy of one tensor [64, 80, 80], {images} images: collect and search")
    for kind in activations(1):
        arrays = [activations(size, seed)[kind] for seed in range(images)]
        tasks: dict[str, Callable[[], object]] = {
            f"{kind}: onnxopt": lambda a=arrays: entropy(statistics_of(a)),  # type: ignore[misc]
            f"{kind}: onnxruntime": lambda a=arrays: onnxruntime_entropy(a),  # type: ignore[misc]
        }
        for title, seconds in interleaved(tasks, max(rounds // 10, 3)).items():
            show(title, seconds, 1e3, "ms")
        for title, task in tasks.items():
            print(f"  {title + ', peak memory':<34} {peak_megabytes(task):9.3f} MB")
        ours = entropy(statistics_of(arrays))
        reach = max(float(np.abs(array).max()) for array in arrays)
        theirs = onnxruntime_entropy(arrays)
        print(f"  {kind}: thresholds {max(-ours.low, ours.high):.3f} and {theirs:.3f} of {reach:.3f}")


def cpu_name() -> str:
    """Return what the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64 * 80 * 80, help="elements per array")
    parser.add_argument("--images", type=int, default=16, help="images for the comparison with onnxruntime")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    print(cpu_name())
    per_element(options.size, options.rounds)
    searches(options.rounds)
    against_onnxruntime(options.images, options.rounds)


if __name__ == "__main__":
    main()
