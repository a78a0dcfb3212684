"""Latency of pruned models in ONNX Runtime: what of the multiply-accumulates removed shows on the clock.

Claim: with channels aligned to what the processor likes, every pruned model is faster than its original, by at least
half of the share of MACs removed, and at least 0.7 of the MACs asked for go.

A cut that onnxopt itself hands back because it did not pay counts as a miss. Original and cuts of one model are open in
one process and run in rounds, in turns, with one thread. Weights of the `random` models are random, so they are cut by
the norm of their weights and nothing is said about accuracy; the others are cut as with `--data`. onnxsim's cuts, where
an environment with it is given, have the sparsity that would leave the same MACs if every channel could go.
"""

import subprocess
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from workbench import Subject, markdown, number, say

from onnxopt import Graph, UsageError, model_io, optimize
from onnxopt.analysis.cost import Cost
from onnxopt.pass_api import Context
from onnxopt.registry import load_target
from onnxopt.report.record import PassRecord
from onnxopt.runtime.latency import compare
from onnxopt.runtime.ort import OrtSession

MODELS = {
    "mobilenet_v2": (0.1, 0.2, 0.3, 0.4),
    "yolo11n_random_640": (0.1, 0.2, 0.3),
    "yolo26n_random_640": (0.1, 0.2, 0.3),
}
FILE_SHARES = (0.1, 0.2, 0.3)
ENOUGH_SPEED, ENOUGH_MACS = 0.5, 0.7
HEADER = ("model", "asked", "MACs removed", "ms", "time of original", "held", "onnxsim: MACs removed", "its time")


def macs_of(subject: Subject, graph: Graph) -> int:
    """Multiply-accumulates of one run."""
    context = Context(load_target("ort"), inputs=subject.inputs)
    context.bind(graph, PassRecord("cost"))
    return context.get(Cost).total_macs


def cut(subject: Subject, asked: float, options: Namespace, file: Path) -> None:
    """Prune by onnxopt, its guard on; what it hands back goes to `file`."""
    data = subject.samples(options.samples) if subject.metric else None
    optimize(subject.file, f"prune{{macs={1 - asked:.4g}}}", data=data, verify="structure").save(file)


def cut_by_onnxsim(subject: Subject, asked: float, python: Path, file: Path) -> bool:
    """Prune by onnxsim to the sparsity s of (1 - s)² = 1 - asked; whether that went well."""
    script = Path(__file__).parent / "foreign" / "prune_onnxsim.py"
    sparsity = 1 - (1 - asked) ** 0.5
    command = [str(python), str(script), str(subject.file), str(file), f"{sparsity:.4f}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{subject.name}: onnxsim failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return done.returncode == 0


def measure(subject: Subject, shares: Sequence[float], options: Namespace, folder: Path) -> list[dict[str, Any]]:
    """Cut one model to every share, time all cuts together."""
    files = {"original": subject.file}
    for asked in shares:
        files[f"onnxopt {asked:g}"] = folder / f"ours_{asked:g}.onnx"
        cut(subject, asked, options, files[f"onnxopt {asked:g}"])
        theirs = folder / f"theirs_{asked:g}.onnx"
        if options.peers_python is not None and cut_by_onnxsim(subject, asked, options.peers_python, theirs):
            files[f"onnxsim {asked:g}"] = theirs
    feeds = next(iter(subject.samples(1))).feeds
    sessions = {name: OrtSession(file) for name, file in files.items()}
    latencies = compare({n: partial(s.run, feeds) for n, s in sessions.items()}, rounds=options.rounds)
    whole = macs_of(subject, subject.graph)
    removed = {name: 1 - macs_of(subject, model_io.load(file)) / whole for name, file in files.items()}
    return [
        {
            "model": subject.name,
            "asked": asked,
            "removed": removed[ours],
            "ms": latencies[ours].milliseconds.median,
            "time": 1 / latencies[ours].speedup.median,
            "held": held(asked, removed[ours], 1 / latencies[ours].speedup.median),
            "onnxsim_removed": removed.get(theirs_),
            "onnxsim_time": 1 / latencies[theirs_].speedup.median if theirs_ in files else None,
        }
        for asked in shares
        for ours, theirs_ in [(f"onnxopt {asked:g}", f"onnxsim {asked:g}")]
    ]


def held(asked: float, removed: float, time: float) -> bool:
    """Whether a cut is what was asked for, and pays."""
    return removed >= ENOUGH_MACS * asked and 1 - time >= ENOUGH_SPEED * removed > 0


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    theirs = found["onnxsim_removed"]
    return (
        found["model"],
        f"{100 * found['asked']:.0f} %",
        f"{100 * found['removed']:.1f} %",
        number(found["ms"]),
        number(found["time"], 3, " x"),
        "yes" if found["held"] else "no",
        f"{100 * theirs:.1f} %" if theirs is not None else "-",
        number(found["onnxsim_time"], 3, " x"),
    )


def main() -> None:
    """Cut, measure, print."""
    parser = workbench.command_line(__doc__, rounds=40, samples=128)
    parser.add_argument("files", nargs="*", type=Path, metavar="MODEL", help="further models, cut without data")
    parser.add_argument("--share", type=float, action="append", help="of the MACs to remove; may be repeated")
    parser.add_argument("--peers-python", type=Path, metavar="FILE", help="interpreter of an environment with onnxsim")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; 1 thread\n")
    jobs = [(s, MODELS[s.name]) for s in workbench.find_subjects(options, MODELS) if options.only or not options.files]
    jobs += [(Subject(file.stem, file), FILE_SHARES) for file in options.files]
    everything: list[dict[str, Any]] = []
    for subject, shares in jobs:
        with tempfile.TemporaryDirectory() as folder:
            try:
                everything += measure(subject, options.share or shares, options, Path(folder))
            except UsageError as error:
                say(f"not measured: {subject.name}: {error}")
    print(markdown(HEADER, map(row, everything)))
    workbench.write_results(options.json, "prune_latency", facts, everything)


if __name__ == "__main__":
    main()
