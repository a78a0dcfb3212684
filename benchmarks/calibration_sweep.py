"""Calibration: time against plain inference, and memory against the number of images.

Claims: the sweep with minima and maxima costs at most 1.3 times plain inference of the same graph, with histograms at
most 2.5 times; its peak memory does not grow with the number of images; and its search for the least entropy is several
times faster than ONNX Runtime's in a fraction of the memory.

Time. The arrays lie in memory, the kernels are compiled, and all sessions have the same number of threads. The arrays
are handed out one by one; between two of them the plain session runs on the same array, so that both are measured in
turns on the same machine state. The time between handing out an array and being asked for the next is what the sweep
takes for it; the first ones, with which a session warms up, do not count. What follows after the last array, from
statistics to ranges, is given apart, and the two together as time per image.

Memory. Each figure comes from a fresh process that reads pictures, or makes them up, and calibrates a prepared model.

ONNX Runtime's own calibrators run beside, on the same graph and for the types of operators that `quantize_static`
would ask for. Its entropy calibrator keeps every activation of every image, so it gets few (`--ort-images`). Few images
also mean few that are timed: its ratios are rough.

Entropy (with `--ort-entropy`, since it takes minutes). Both tools calibrate the model as given on the same few images,
each in a fresh process that does nothing else, from the files to the ranges; that process is timed and weighed as a
whole. ONNX Runtime's runs twice: with its default of 128 bins for 128 levels, which leaves its search nothing to
choose, and with 2048 bins, as onnxopt has.
"""

import multiprocessing
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sweeps
import workbench
from workbench import Subject, markdown, number, say

from onnxopt import optimize
from onnxopt.calibration.methods import Method

MODELS = ("shapes_detector", "yolo11n_random_640")
METHODS: tuple[Method, ...] = ("minmax", "mean-minmax", "percentile", "entropy")
ORT_METHODS = ("minmax", "entropy")
BARS = {"minmax": 1.3, "mean-minmax": 1.3, "percentile": 2.5, "entropy": 2.5}
MEMORY_BAR = 5.0  # percent
# How many times faster and smaller than ONNX Runtime's entropy calibrator onnxopt's has to be.
ENTROPY_MODEL = "yolo11n_random_640"
ENTROPY_BARS = {"time": 5.0, "memory": 10.0}
TIME_HEADER = (
    "calibrator",
    "plain, ms",
    "sweep, ms per image",
    "ratio",
    "spread",
    "bar",
    "then, ms",
    "all, ms per image",
)
MEMORY_HEADER = ("calibrator", "images", "peak, MB", "images", "peak, MB", "growth", "bar")
ENTROPY_HEADER = (
    "calibrator",
    "images",
    "s",
    "onnxopt is faster by",
    "bar",
    "peak, MB",
    "onnxopt is smaller by",
    "bar",
)


def prepare(subject: Subject, passes: str, folder: Path) -> Subject:
    """Return the model as it is when the pipeline `quantize` comes to `calibrate`."""
    file = folder / "prepared.onnx"
    optimize(subject.file, passes, data=subject.samples(2), keep_anyway=True).save(file)
    return replace(subject, file=file)


def time_all(subject: Subject, images: int, ort_images: int, threads: int) -> list[dict[str, Any]]:
    """Time each calibrator; one record each."""
    feeds = [sample.feeds for sample in subject.samples(images)]
    figures = []
    for method in METHODS:
        say(f"{subject.name}: time of onnxopt {method}, {images} images")
        timed = sweeps.time_onnxopt(subject, feeds, method, threads)
        figures.append(_time_record(subject, f"onnxopt {method}", timed, BARS[method]))
    for peer in ORT_METHODS:
        say(f"{subject.name}: time of onnxruntime {peer}, {ort_images} images")
        timed = sweeps.time_ort(subject, feeds[:ort_images], peer, threads)
        figures.append(_time_record(subject, f"onnxruntime {peer}", timed, None))
    return figures


def _time_record(subject: Subject, name: str, timed: sweeps.Timed, bar: float | None) -> dict[str, Any]:
    low, middle, high = np.percentile(timed.ratios, (25, 50, 75))
    return {
        "model": subject.name,
        "calibrator": name,
        "images": len(timed),
        "plain_ms": timed.plain_ms,
        "sweep_ms": timed.sweep_ms,
        "ratio": float(middle),
        "spread": float(high - low) / 2,
        "bar": bar,
        "finish_ms": timed.finish_ms,
    }


def time_table(figures: Sequence[dict[str, Any]]) -> str:
    """Times of one model for people."""
    return markdown(
        TIME_HEADER,
        [
            (
                f["calibrator"],
                number(f["plain_ms"]),
                number(f["sweep_ms"]),
                number(f["ratio"]),
                number(f["spread"]),
                number(f["bar"], 1),
                number(f["finish_ms"], 0),
                number(f["sweep_ms"] + f["finish_ms"] / f["images"]),
            )
            for f in figures
        ],
    )


def weigh(subject: Subject, calibrator: str, images: int, *, to_the_end: bool = False) -> sweeps.Weight:
    """Calibrate in a fresh process and see how much memory it held; arguments as in `calibrate_and_weigh`."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        # The copy leaves behind what the subject has cached: the process loads the model itself.
        job = partial(sweeps.calibrate_and_weigh, replace(subject), calibrator, images, to_the_end=to_the_end)
        return pool.submit(job).result()


def weigh_all(subject: Subject, counts: Sequence[int], ort_counts: Sequence[int]) -> list[dict[str, Any]]:
    """Peak memory of each calibrator with few and with many images; one record each."""
    plan = {f"onnxopt {method}": counts for method in METHODS}
    plan |= {f"onnxruntime {method}": ort_counts for method in ORT_METHODS}
    figures = []
    for calibrator, asked in plan.items():
        say(f"{subject.name}: memory of {calibrator}, {asked[0]} and {asked[1]} images")
        weights = [weigh(subject, calibrator, count) for count in asked]
        peaks = [weight.peak_mb for weight in weights]
        figures.append(
            {
                "model": subject.name,
                "calibrator": calibrator,
                "images": [weight.images for weight in weights],  # fewer than asked for where there are no more
                "peak_mb": peaks,
                "growth_percent": 100 * (peaks[1] / peaks[0] - 1),
                "bar": MEMORY_BAR if calibrator.startswith("onnxopt") else None,
            }
        )
    return figures


def memory_table(figures: Sequence[dict[str, Any]]) -> str:
    """Peaks of one model for people."""
    return markdown(
        MEMORY_HEADER,
        [
            (
                f["calibrator"],
                str(f["images"][0]),
                number(f["peak_mb"][0], 0),
                str(f["images"][1]),
                number(f["peak_mb"][1], 0),
                number(f["growth_percent"], 1, " %"),
                number(f["bar"], 0, " %"),
            )
            for f in figures
        ],
    )


def compare_entropy(subject: Subject, images: int) -> list[dict[str, Any]]:
    """Time and memory of the entropy calibrators, onnxopt's first; one record each."""
    weights = {}
    for calibrator in ("onnxopt entropy", "onnxruntime entropy", "onnxruntime entropy-2048"):
        say(f"{subject.name}: {calibrator} from start to end, {images} images")
        weights[calibrator] = weigh(subject, calibrator, images, to_the_end=True)
    ours = weights["onnxopt entropy"]
    return [
        {
            "model": subject.name,
            "calibrator": calibrator,
            "images": weight.images,
            "seconds": weight.seconds,
            "time_ratio": weight.seconds / ours.seconds,
            "peak_mb": weight.peak_mb,
            "memory_ratio": weight.peak_mb / ours.peak_mb,
            "bars": ENTROPY_BARS if subject.name == ENTROPY_MODEL and weight is not ours else {},
        }
        for calibrator, weight in weights.items()
    ]


def entropy_table(figures: Sequence[dict[str, Any]]) -> str:
    """The entropy calibrators on one model for people."""
    return markdown(
        ENTROPY_HEADER,
        [
            (
                f["calibrator"],
                str(f["images"]),
                number(f["seconds"]),
                number(f["time_ratio"], 1),
                number(f["bars"].get("time"), 1),
                number(f["peak_mb"], 0),
                number(f["memory_ratio"], 1),
                number(f["bars"].get("memory"), 1),
            )
            for f in figures
        ],
    )


def main() -> None:
    """Prepare, time, weigh, print."""
    parser = workbench.command_line(__doc__)
    parser.add_argument(
        "--images", type=int, default=24, help="in memory, for the times of onnxopt; default %(default)s"
    )
    counts = {"type": int, "nargs": 2, "metavar": ("FEW", "MANY")}
    parser.add_argument("--memory-images", **counts, default=(16, 128), help="for onnxopt's memory; default 16 128")
    parser.add_argument("--ort-images", **counts, default=(4, 8), help="for ONNX Runtime; FEW also timed; default 4 8")
    parser.add_argument(
        "--ort-entropy",
        type=int,
        metavar="N",
        help="compare with ONNX Runtime's entropy calibrator, on N images",
    )
    parser.add_argument("--threads", type=int, default=1, help="of every session, for the times; default %(default)s")
    parser.add_argument("--passes", default="simplify,lower", help="before calibration; default %(default)s")
    parser.add_argument(
        "--skip", action="append", choices=("time", "memory"), default=[], help="leave this out; may be repeated"
    )
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; {options.threads} thread(s)\n")
    everything = []
    for subject in workbench.find_subjects(options, MODELS):
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(subject, options.passes, Path(folder))
            if "time" not in options.skip:
                figures = time_all(prepared, options.images, options.ort_images[0], options.threads)
                print(f"**{subject.name}**, time of the sweep\n\n{time_table(figures)}\n", flush=True)
                everything += figures
            if "memory" not in options.skip:
                figures = weigh_all(prepared, options.memory_images, options.ort_images)
                print(f"**{subject.name}**, peak memory\n\n{memory_table(figures)}\n", flush=True)
                everything += figures
            if options.ort_entropy:
                given = replace(subject, file=Path(shutil.copy(subject.file, folder)))  # tools write beside it
                figures = compare_entropy(given, options.ort_entropy)
                print(f"**{subject.name}**, entropy\n\n{entropy_table(figures)}\n", flush=True)
                everything += figures
    workbench.write_results(options.json, "calibration_sweep", facts, everything)


if __name__ == "__main__":
    main()
