"""How much of a model channel pruning reaches, and how long it takes to find and cut it.

Claim: at `prune{ratio=0.5, align=1}` most of the multiply-accumulates go, on any exporter's graph as it is; analysis
and cut take seconds; the result is valid and computes what the original computes with the same channels masked.

Half of the channels of each free group are removed, by the norm of their weights. MACs are those of onnxopt's cost
model at the size that the model is run at. `--verify` runs the cut model and the masked original on the same noise,
ONNX Runtime's optimizations off, and prints the largest difference as a share of the largest output. Models whose
outputs are chosen by a TopK may differ there by order alone.

`--peers-python` names an environment with `onnxsim==0.8.1`; its `apply_structured_pruning(0.5)` gets the same file
after its own simplification, limit 10 minutes. Torch-Pruning works on modules of torch and not on files: no column.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import workbench
from workbench import each_alone, markdown, number

from onnxopt import Context, Graph, load
from onnxopt.analysis.channels import ChannelGroups, Policy, cut, masked
from onnxopt.analysis.channels.scoring import score_groups
from onnxopt.analysis.channels.selection import best, nearest_count
from onnxopt.analysis.cost import Cost
from onnxopt.data import InputSpec
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.registry import load_target
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession

RATIO = 0.5
LIMIT = 600.0  # seconds that a peer may take
PEER = Path(__file__).parent / "foreign" / "prune_onnxsim.py"
HEADER = ("model", "MACs", "removed", "with normalised width", "groups free", "CPU, s", "difference", "onnxsim")


def half(found: ChannelGroups, graph: Graph) -> dict[str, list[int]]:
    """What stays of each free group: the better half by the norm of the weights."""
    counts = {g.name: nearest_count(g, g.size * (1 - RATIO), 1) for g in found.free}
    return best(score_groups(graph, found, "l2"), counts)


def macs_of(graph: Graph, inputs: tuple[InputSpec, ...]) -> int:
    """MACs of one run."""
    context = Context(load_target("ort"), inputs=inputs)
    context.bind(graph, PassRecord("coverage"))
    return context.get(Cost).total_macs


def pruned(graph: Graph, policy: Policy) -> tuple[Graph, Graph, ChannelGroups, float]:
    """The cut graph, the masked one, the groups, and the CPU seconds that finding, scoring and cutting took."""
    start = time.process_time()
    found = ChannelGroups.of(graph, policy=policy)
    kept = found.kept(half(found, graph))
    after = graph.copy()
    cut(after, found.relations, kept)
    seconds = time.process_time() - start
    return after, masked(graph, found.relations, kept), found, seconds


def difference(after: Graph, reference: Graph, inputs: Sequence[InputSpec]) -> float:
    """Largest difference between the outputs, as a share of the largest value, over two noisy inputs."""
    generator = np.random.default_rng(0)
    sessions = [OrtSession(g.to_proto(), optimized=False) for g in (after, reference)]
    worst = 0.0
    for _ in range(2):
        feeds = {i.name: generator.standard_normal(i.shape).astype(i.dtype) for i in inputs}
        got, wanted = (session.run(feeds) for session in sessions)
        for name, value in wanted.items():
            apart = np.abs(got[name].astype(np.float64) - value.astype(np.float64)).max(initial=0)
            worst = max(worst, float(apart / max(np.abs(value).max(initial=0), 1e-30)))
    return worst


def by_onnxsim(python: Path | None, file: Path, inputs: tuple[InputSpec, ...], macs: int) -> tuple[float | None, str]:
    """Share of the MACs that onnxsim removes, or why there is none."""
    if python is None:
        return None, ""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pruned.onnx")
        command = [str(python), str(PEER), str(file), str(output), str(RATIO)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return None, f"not done in {LIMIT:g} s"
        except subprocess.CalledProcessError as error:
            return None, (error.stderr.strip().splitlines() or ["failed"])[-1][:60]
        return 1 - macs_of(load(output), inputs) / macs, ""


def figures(verify: bool, python: Path | None, file: Path) -> dict[str, Any]:
    """One model: what goes, how fast, and whether the rest is right."""
    graph = load(file)
    try:
        inputs = resolve_inputs(graph)[0]
    except OnnxoptError as error:
        return {"model": file.stem, "failed": str(error)}
    before = macs_of(graph, inputs)
    after, reference, found, seconds = pruned(graph, Policy())
    wide, wide_reference, _, _ = pruned(graph, Policy(normalized_width=True))
    for model in (after, wide):
        onnx.checker.check_model(model.to_proto(), full_check=True)
    pairs = ((after, reference), (wide, wide_reference)) if verify else ()
    share, problem = by_onnxsim(python, file, inputs, before)
    return {
        "model": file.stem,
        "macs": before,
        "removed": 1 - macs_of(after, inputs) / before,
        "removed_with_normalized_width": 1 - macs_of(wide, inputs) / before,
        "groups": len(found.groups),
        "free": len(found.free),
        "seconds": seconds,
        "difference": max((difference(a, b, inputs) for a, b in pairs), default=None),
        "onnxsim": share,
        "onnxsim_problem": problem,
    }


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    if "failed" in found:
        return (found["model"], *["-"] * (len(HEADER) - 2), found["failed"])
    apart = found["difference"]
    peer = found["onnxsim"]
    return (
        found["model"],
        number(found["macs"] / 1e6, 0, " M"),
        number(100 * found["removed"], 1, " %"),
        number(100 * found["removed_with_normalized_width"], 1, " %"),
        f"{found['free']} of {found['groups']}",
        number(found["seconds"], 2),
        "-" if apart is None else f"{apart:.0e}",
        found["onnxsim_problem"] or ("-" if peer is None else number(100 * peer, 1, " %")),
    )


def main() -> None:
    """Prune all, print the table."""
    parser = workbench.command_line(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="MODEL", help="further models")
    parser.add_argument("--verify", action="store_true", help="run what came out")
    parser.add_argument("--peers-python", type=Path, metavar="FILE", help="interpreter of an environment with onnxsim")
    parser.add_argument("--limit", type=float, default=1200, help="seconds per model; default %(default)s")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}\n")
    subjects = workbench.find_subjects(options, workbench.SUBJECTS) if options.only or not options.files else []
    everything = []
    job = partial(figures, options.verify, options.peers_python)
    for found in each_alone(job, [*(s.file for s in subjects), *options.files], options.limit):
        everything.append(found)
        workbench.say(" | ".join(row(found)))
    print(markdown(HEADER, map(row, everything)))
    workbench.write_results(options.json, "prune_coverage", facts, everything)


if __name__ == "__main__":
    main()
