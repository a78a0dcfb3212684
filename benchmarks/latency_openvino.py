"""Latency in OpenVINO on the CPU: the float model, onnxopt's, and the models of NNCF's two backends.

Claim: int8 from onnxopt is faster than float and faster than what NNCF's ONNX and OpenVINO backends make with their
mixed preset, both where float runs in 32 bits and at the precision that OpenVINO chooses by itself, which is bfloat16
on CPUs with AMX or AVX512-BF16: there that is what int8 has to beat.

All candidates of a model are open in one process and run in rounds, each round every candidate once in rotating
order, with one thread. Printed are medians over the rounds, half the distance between the quartiles as spread, the
ratio between each candidate's time and onnxopt's within a round (above 1: onnxopt is faster), and the share of MACs
that run in int8, read back from OpenVINO for graphs in ONNX's format.

NNCF runs in an environment of its own: `pip install -r benchmarks/requirements-peers.txt` there, then
`--peers-python`. Without it the other candidates are compared.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from latency_ort import ratio
from peers import NNCF_ONNX_NAME, NNCF_OPENVINO_NAME, Maker, foreign_makers, make_all, onnxopt_candidate
from workbench import Subject, markdown, number, say

from onnxopt import model_io
from onnxopt.errors import OnnxoptError, OptimizationError
from onnxopt.evaluation import measure
from onnxopt.registry import load_target
from onnxopt.runtime import latency

try:
    from onnxopt.runtime.openvino import OpenVinoRuntime, OpenVinoSession
except ImportError:  # an extra of onnxopt
    OpenVinoRuntime = OpenVinoSession = None  # type: ignore[assignment,misc]

OURS = "onnxopt"
NNCF_NAMES = (NNCF_ONNX_NAME, NNCF_OPENVINO_NAME)
MODELS = ("patches_classifier", "shapes_detector", "mobilenet_v2", "yolo11n_random_640", "yolo26n_random_640")
# What has to be reached over float, by the precision that float runs in.
BARS = {"yolo11n_random_640": {"f32": 2.0, "bf16": 1.15}, "yolo26n_random_640": {"f32": 1.95, "bf16": 1.15}}
HEADER = ("candidate", "MB", "int8 MACs", "ms", "spread", "onnxopt is faster by", "bar")


def build(subject: Subject, options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Make the candidates: name to file, onnxopt's first, since all are compared with the first."""
    ours = partial(onnxopt_candidate, subject, options.passes, options.samples, target="openvino")
    peers = foreign_makers(subject, options.peers_python, options.samples, NNCF_NAMES)
    return {**make_all(subject, [Maker(OURS, ours), *peers], folder), "float": subject.file}


def compare(
    subject: Subject, files: dict[str, Path], precision: str | None, rounds: int, threads: int
) -> tuple[latency.Comparison, str]:
    """Time the candidates against each other on one picture.

    Args:
        subject: The model.
        files: Of the candidates.
        precision: That OpenVINO is asked to run float in; None: its own choice.
        rounds: How many.
        threads: Of every candidate.

    Returns:
        The comparison, and the precision that the float model did run in. A candidate of another tool that OpenVINO
        cannot load is left out, which is said.

    Raises:
        OptimizationError: OpenVINO cannot load the float model or onnxopt's.
    """
    feeds = next(iter(subject.samples(1))).feeds
    sessions = {}
    for name, file in files.items():
        try:
            sessions[name] = OpenVinoSession(file, threads=threads, precision=precision)
        except OptimizationError as error:
            if name in {OURS, "float"}:
                raise
            say(f"{subject.name}: {name} failed at {precision or 'the default'} precision: {error}")
    chosen = sessions["float"].compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    runs = {name: partial(session.run, feeds) for name, session in sessions.items()}
    return latency.compare(runs, rounds=rounds), chosen


def int8_share(subject: Subject, file: Path, precision: str | None) -> float | None:
    """Share of MACs in int8 by OpenVINO's own account; None for graphs in its own format."""
    if file.suffix != ".onnx":
        return None
    graph = model_io.load(file)
    macs = measure.macs_by_name(graph, measure.cost(graph, load_target("openvino"), subject.inputs))
    return measure.int8_share(measure.read_kernels(graph, OpenVinoRuntime(precision)), macs)


def figures_of(
    subject: Subject,
    files: dict[str, Path],
    shares: dict[str, float | None],
    comparison: latency.Comparison,
    precision: str,
) -> list[dict[str, Any]]:
    """One record per candidate, float first."""
    bars = {"float": BARS.get(subject.name, {}).get(precision), **dict.fromkeys(NNCF_NAMES, 1.0)}
    ordered = [comparison["float"], *(each for each in comparison.latencies if each.name != "float")]
    return [
        {
            "model": subject.name,
            "precision": precision,
            "candidate": each.name,
            "bytes": size(files[each.name]),
            "int8_share": shares[each.name],
            "ms": each.milliseconds.median,
            "spread_ms": each.milliseconds.spread,
            **ratio(each),
            "bar": bars.get(each.name),
            "rounds": comparison.rounds,
        }
        for each in ordered
    ]


def size(file: Path) -> int:
    """Bytes of a model; OpenVINO keeps the weights in a file beside."""
    weights = file.with_suffix(".bin")
    return file.stat().st_size + (weights.stat().st_size if file.suffix == ".xml" else 0)


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The figures of one model at one precision for people."""
    return markdown(
        HEADER,
        [
            (
                f["candidate"],
                number(f["bytes"] / 1e6),
                number(100 * f["int8_share"], 1, " %") if f["int8_share"] is not None else "-",
                number(f["ms"]),
                number(100 * f["spread_ms"] / f["ms"], 1, " %"),
                f"{f['ratio']:.2f} ± {f['ratio_spread']:.2f}" if f["candidate"] != OURS else "-",
                number(f["bar"]),
            )
            for f in figures
        ],
    )


def compare_all(subject: Subject, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Build the candidates of a model, measure them at both precisions, print the tables."""
    everything = []
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        files = build(subject, options, folder)
        for asked in ("f32", None):
            comparison, precision = compare(subject, files, asked, options.rounds, options.threads)
            shares = {each.name: int8_share(subject, files[each.name], asked) for each in comparison.latencies}
            figures = figures_of(subject, files, shares, comparison, precision)
            chosen = f"{precision}, OpenVINO's choice" if asked is None else f"{asked} asked for"
            print(f"**{subject.name}**, {chosen}, {comparison.rounds} rounds\n\n{table(figures)}\n", flush=True)
            everything += [{**record, "default": asked is None} for record in figures]
    return everything


def main() -> None:
    """Build, measure, print."""
    parser = workbench.command_line(__doc__, rounds=50, samples=24)
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of every session; default %(default)s")
    parser.add_argument("--peers-python", type=Path, metavar="FILE", help="Python of the peers' environment")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the candidates here, use those that are there")
    options = parser.parse_args()
    if OpenVinoSession is None:
        say("not measured: OpenVINO is not installed (pip install 'onnxopt[openvino]')")
        return
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; {options.threads} thread(s), passes {options.passes}\n")
    everything = []
    for subject in workbench.find_subjects(options, MODELS):
        try:
            everything += compare_all(subject, options)
        except OnnxoptError as error:
            say(f"not measured: {subject.name}; {error}")
    workbench.write_results(options.json, "latency_openvino", facts, everything)


if __name__ == "__main__":
    main()
