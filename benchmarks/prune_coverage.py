"""How much of a model channel pruning reaches, and how long it takes to find and cut it.

Claim: at `prune{ratio=0.5, align=1}` most of the multiply-accumulates go, on any exporter's graph as it is; analysis
and cut take seconds; the result is valid and computes what the original computes with the same channels masked.

Half of the channels of each free group are removed, by the norm of their weights. MACs are those of onnxopt's cost
model at the size that the model is run at. `--verify` runs the cut model and the masked original on the same noise,
ONNX Runtime's optimizations off, and prints the largest difference as a share of the largest output. Behind a TopK two
equal scores that swap places swap whole rows; there, what goes into the choice is compared in place of the output
(marked *). A Sigmoid's values near 0 are rounded to multiples of 1e-7: its input is compared beside its output, whose
size is 1.

`--peers-python` names an environment of `requirements-peers.txt`. onnxsim's `apply_structured_pruning(0.5)` gets the
same file after its own simplification. Torch-Pruning works on modules of torch and not on files, so it gets the module
that has the file's name; it cuts class outputs, too, and counts for itself.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import workbench
from workbench import number, table_of_models

from onnxopt import Context, Graph, load
from onnxopt.analysis.channels import ChannelGroups, Policy, cut, masked
from onnxopt.analysis.channels.scoring import score_groups
from onnxopt.analysis.channels.selection import best, nearest_count
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.half.judge import judged
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.collect import expose
from onnxopt.data import InputSpec
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.registry import load_target
from onnxopt.report.record import PassRecord
from onnxopt.runtime.ort import OrtSession

RATIO = 0.5
ARRANGING = frozenset({"Concat", "Split", "Slice", "Gather", "Reshape", "Flatten", "Transpose", "ReduceMax"})
TINY = 1e-30
FOREIGN = Path(__file__).parent / "foreign"
HEADER = (
    "model",
    "MACs",
    "removed",
    "with normalised width",
    "groups free",
    "CPU, s",
    "difference",
    "onnxsim",
    "Torch-Pruning",
)


@dataclass(frozen=True)
class Peer:
    """Tools of another environment.

    Attributes:
        python: Its interpreter.
        limit: Seconds that one of them may take.
    """

    python: Path
    limit: float

    def run(self, script: str, *arguments: str) -> tuple[str, str]:
        """What a script prints last, and why it does not."""
        command = [str(self.python), str(FOREIGN / script), *arguments]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=self.limit)
        except subprocess.TimeoutExpired:
            return "", f"not done in {self.limit:g} s"
        except subprocess.CalledProcessError as error:
            return "", (error.stderr.strip().splitlines() or ["failed"])[-1][:60]
        return (done.stdout.strip().splitlines() or [""])[-1], ""


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


def compared(graph: Graph) -> dict[str, float]:
    """Tensors to compare, and the least size that a difference is a share of.

    Outputs, or what goes into a choice that makes them. A Sigmoid's values have size 1, and its input is compared too.
    """
    written = {t.name: n for n in graph.nodes for t in n.outputs}

    @cache
    def logits(name: str) -> list[str]:
        node = written.get(name)
        if node is not None and node.op == "Sigmoid":
            return [node.inputs[0].name]
        return [s for t in node.inputs for s in logits(t.name)] if node is not None and node.op in ARRANGING else []

    found: dict[str, float] = {}
    for name in judged(graph, Shapes(*infer(graph))):
        squashed = logits(name)
        found |= {name: 1.0 if squashed else TINY, **dict.fromkeys(squashed, TINY)}
    return found


def difference(after: Graph, reference: Graph, inputs: Sequence[InputSpec]) -> tuple[float, bool]:
    """Largest difference as a share of the largest value, over two noisy inputs, and whether a choice is left out."""
    generator = np.random.default_rng(0)
    least = compared(reference)
    sessions = [OrtSession(expose(g, list(least)).to_proto(), optimized=False) for g in (after, reference)]
    worst = 0.0
    for _ in range(2):
        feeds = {i.name: generator.standard_normal(i.shape).astype(i.dtype) for i in inputs}
        got, wanted = (session.run(feeds, list(least)) for session in sessions)
        inner = {*least} - {t.name for t in reference.outputs}  # of these, some were cut themselves
        same = [name for name in least if name not in inner or got[name].shape == wanted[name].shape]
        if not same:
            raise OnnxoptError("nothing left to compare")
        for name in same:
            apart = np.abs(got[name].astype(np.float64) - wanted[name].astype(np.float64)).max(initial=0)
            worst = max(worst, float(apart / max(np.abs(wanted[name]).max(initial=0), least[name])))
    return worst, not {t.name for t in reference.outputs} <= {*least}


def by_onnxsim(peer: Peer, file: Path, inputs: tuple[InputSpec, ...], macs: int) -> float | str:
    """Share of the MACs that onnxsim removes, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pruned.onnx")
        _, problem = peer.run("prune_onnxsim.py", str(file), str(output), str(RATIO))
        return problem or 1 - macs_of(load(output), inputs) / macs


def by_torch_pruning(peer: Peer, file: Path) -> float | str:
    """Share of the MACs of the module of this name that Torch-Pruning removes, or why there is none."""
    printed, problem = peer.run("prune_torch.py", file.stem, str(RATIO))
    return problem or float(printed)


def figures(verify: bool, peer: Peer | None, file: Path) -> dict[str, Any]:
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
    differences = [difference(a, b, inputs) for a, b in pairs]
    return {
        "model": file.stem,
        "macs": before,
        "removed": 1 - macs_of(after, inputs) / before,
        "removed_with_normalized_width": 1 - macs_of(wide, inputs) / before,
        "groups": len(found.groups),
        "free": len(found.free),
        "seconds": seconds,
        "difference": max((apart for apart, _ in differences), default=None),
        "before_a_choice": any(inner for _, inner in differences),
        "onnxsim": by_onnxsim(peer, file, inputs, before) if peer else None,
        "torch_pruning": by_torch_pruning(peer, file) if peer else None,
    }


def share(value: float | None) -> str:
    """Of the MACs, in percent."""
    return "-" if value is None else number(100 * value, 1, " %")


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    if "failed" in found:
        return (found["model"], *["-"] * (len(HEADER) - 2), found["failed"])
    apart = found["difference"]
    return (
        found["model"],
        number(found["macs"] / 1e6, 0, " M"),
        share(found["removed"]),
        share(found["removed_with_normalized_width"]),
        f"{found['free']} of {found['groups']}",
        number(found["seconds"], 2),
        "-" if apart is None else f"{apart:.0e}" + ("*" if found["before_a_choice"] else ""),
        *(v if isinstance(v, str) else share(v) for v in (found["onnxsim"], found["torch_pruning"])),
    )


def main() -> None:
    """Prune all, print the table."""
    parser = workbench.command_line(__doc__, files=True)
    parser.add_argument("--verify", action="store_true", help="run what came out")
    parser.add_argument("--peers-python", type=Path, metavar="FILE", help="interpreter of requirements-peers.txt")
    parser.add_argument("--peer-limit", type=float, default=600, help="seconds for each peer; default %(default)s")
    parser.set_defaults(limit=1500.0)
    options = parser.parse_args()
    peer = Peer(options.peers_python, options.peer_limit) if options.peers_python else None
    table_of_models(options, "prune_coverage", "", HEADER, partial(figures, options.verify, peer), row)


if __name__ == "__main__":
    main()
