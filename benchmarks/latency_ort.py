"""Latency in ONNX Runtime: the float model, onnxopt's, and the models of ONNX Runtime's own quantization.

Claim: int8 from onnxopt is faster than float, faster than `quant_pre_process` + `quantize_static` with its default
choice of nodes, and as fast as the same after its stem convolution has been excluded by hand.

All candidates of a model are open in one process and run in rounds, each round every candidate once in rotating
order, with one thread. Printed are medians over the rounds, half the distance between the quartiles as spread, and the
ratio between each candidate's time and onnxopt's within a round (above 1: onnxopt is faster).
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from peers import ORT_FLOAT_STEM_NAME, ORT_NAME, Maker, make_all, onnxopt_candidate, quantize_static_candidate
from workbench import Subject, markdown, number, say

from onnxopt.errors import OnnxoptError
from onnxopt.runtime.latency import Comparison, Latency, compare
from onnxopt.runtime.ort import OrtSession

OURS = "onnxopt"
MODELS = (
    "patches_classifier",
    "shapes_detector",
    "mobilenet_v2",
    "yolox_nano",
    "yolo11n_random_640",
    "yolo26n_random_640",
)
# What has to be reached: how many times onnxopt's model is faster than each candidate.
BARS = {
    "mobilenet_v2": {"float": 1.9, ORT_NAME: 1.05, ORT_FLOAT_STEM_NAME: 0.98},
    "yolo11n_random_640": {"float": 1.85, ORT_NAME: 1.1, ORT_FLOAT_STEM_NAME: 0.98},
    "yolo26n_random_640": {"float": 1.65, ORT_NAME: 1.1, ORT_FLOAT_STEM_NAME: 0.98},
}
HEADER = ("candidate", "MB", "ms", "spread", "onnxopt is faster by", "bar")


def build(subject: Subject, passes: str, samples: int, folder: Path) -> dict[str, Path]:
    """Make the candidates; one that cannot be made is left out, and why is said.

    Returns:
        Name to file, onnxopt's first, since all are compared with the first.
    """
    makers = [
        Maker(OURS, partial(onnxopt_candidate, subject, passes, samples)),
        Maker(ORT_NAME, partial(quantize_static_candidate, subject, samples)),
        Maker(ORT_FLOAT_STEM_NAME, partial(quantize_static_candidate, subject, samples, float_stem=True)),
    ]
    return {**make_all(subject, makers, folder), "float": subject.file}


def measure(subject: Subject, files: dict[str, Path], rounds: int, threads: int) -> Comparison:
    """Time the candidates against each other on one picture."""
    feeds = next(iter(subject.samples(1))).feeds
    sessions = {name: OrtSession(file, threads=threads) for name, file in files.items()}
    return compare({name: partial(session.run, feeds) for name, session in sessions.items()}, rounds=rounds)


def figures_of(subject: Subject, files: dict[str, Path], comparison: Comparison) -> list[dict[str, Any]]:
    """One record per candidate, float first."""
    bars = BARS.get(subject.name, {})
    ordered = [comparison["float"], *(latency for latency in comparison.latencies if latency.name != "float")]
    return [
        {
            "model": subject.name,
            "candidate": latency.name,
            "bytes": files[latency.name].stat().st_size,
            "ms": latency.milliseconds.median,
            "spread_ms": latency.milliseconds.spread,
            **ratio(latency),
            "bar": bars.get(latency.name),
            "rounds": comparison.rounds,
        }
        for latency in ordered
    ]


def ratio(latency: Latency) -> dict[str, float]:
    """How many times onnxopt's model is faster than this candidate, and the spread of that.

    `compare` gives r = (time of the first) / (time of this one) per round; what is wanted is 1/r, whose median is that
    of r inverted and whose spread is, to first order, that of r over r².
    """
    median = latency.speedup.median
    return {"ratio": 1 / median, "ratio_spread": latency.speedup.spread / median**2}


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The figures of one model for people."""
    return markdown(
        HEADER,
        [
            (
                f["candidate"],
                number(f["bytes"] / 1e6),
                number(f["ms"]),
                number(100 * f["spread_ms"] / f["ms"], 1, " %"),
                f"{f['ratio']:.2f} ± {f['ratio_spread']:.2f}" if f["candidate"] != OURS else "-",
                number(f["bar"]),
            )
            for f in figures
        ],
    )


def main() -> None:
    """Build, measure, print."""
    parser = workbench.command_line(__doc__, rounds=50, samples=24)
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of every session; default %(default)s")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; {options.threads} thread(s), passes {options.passes}\n")
    everything = []
    for subject in workbench.find_subjects(options, MODELS):
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = build(subject, options.passes, options.samples, Path(folder))
            except OnnxoptError as error:
                say(f"not measured: {subject.name}; onnxopt failed: {error}")
                continue
            comparison = measure(subject, files, options.rounds, options.threads)
            figures = figures_of(subject, files, comparison)
        print(f"**{subject.name}**, {comparison.rounds} rounds\n\n{table(figures)}\n", flush=True)
        everything += figures
    workbench.write_results(options.json, "latency_ort", facts, everything)


if __name__ == "__main__":
    main()
