"""TensorRT graphs: `quantize --target tensorrt` on every model given, checked without a GPU.

Claim: the rule checker of `onnxopt explain --target tensorrt` finds nothing in what onnxopt emits.

Each model is quantized on a few made-up samples. The figures: pairs on activations, share of the MACs that the rules
expect in int8, findings, and SQNR of the worst output on a held-out sample, in ONNX Runtime with all optimizations
off, so that Q and DQ are computed as they are written. Behind a TopK, a comparison or the like two equal scores that
swap places swap whole rows; there, what goes into the choice is compared in place of the output (marked *).

Models run in a process of their own each and are given up after `--limit` seconds.
"""

import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from workbench import number, table_of_models

from onnxopt import Graph, model_io, optimize
from onnxopt.analysis.half.judge import judged
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.collect import expose
from onnxopt.data import InputSpec, infer_preprocess, synthetic
from onnxopt.errors import OnnxoptError
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.evaluation.input_range import guess_range
from onnxopt.evaluation.inputs import resolve_inputs
from onnxopt.registry import load_target
from onnxopt.report.explain import explain_model
from onnxopt.runtime.ort import OrtSession

HELD_OUT_SEED = 7
HEADER = ("model", "pairs", "int8 MACs", "findings", "SQNR, dB", "seconds")


def figures(passes: str, samples: int, file: Path) -> dict[str, Any]:
    """Quantize one model and look at the result."""
    start = time.monotonic()
    try:
        graph = model_io.load(file)
        inputs = resolve_inputs(graph)[0]
        made = optimize(graph, passes, target="tensorrt", samples=samples, verify="structure").graph
        facts = explain_model(made, load_target("tensorrt"), inputs)
        worst, inner = sqnr(graph, made, inputs)
    except OnnxoptError as error:
        return {"model": file.stem, "failed": str(error)}
    return {
        "model": file.stem,
        "pairs": Counter(n.op for n in made.walk())["QuantizeLinear"],
        "int8_share": facts.int8_share,
        "findings": [f"{f.rule}: {f.node}: {f.text}" for f in facts.findings],
        "sqnr_db": worst,
        "before_a_choice": inner,
        "seconds": time.monotonic() - start,
    }


def sqnr(graph: Graph, made: Graph, inputs: tuple[InputSpec, ...], count: int = 1) -> tuple[float, bool]:
    """SQNR in dB of the worst tensor compared, over some held-out samples, and whether that is an inner one."""
    found = infer_preprocess(graph.metadata, inputs) or guess_range(graph, inputs)
    samples = [s.feeds for s in synthetic(inputs, count, HELD_OUT_SEED, found[0] if found else None)]
    there = {t.name for n in made.nodes for t in n.outputs}
    names = [name for name in judged(graph, Shapes(*infer(graph))) if name in there]
    outputs = {t.name for t in graph.outputs}
    names = names or sorted(outputs)
    sessions = [OrtSession(expose(g, names).to_proto(), optimized=False) for g in (graph, made)]
    sums: dict[str, DistanceSums] = {}
    for feeds in samples:
        wanted, got = (session.run(feeds, names) for session in sessions)
        for name in names:
            if wanted[name].dtype.kind == "f":
                sums.setdefault(name, DistanceSums()).update(wanted[name], got[name])
    found_db = [total.result().sqnr_db for total in sums.values()]
    worst = min((-math.inf if math.isnan(db) else db for db in found_db), default=math.inf)
    return worst, not outputs.issuperset(names)


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    if "failed" in found:
        return (found["model"], "-", "-", "-", "-", found["failed"])
    return (
        found["model"],
        str(found["pairs"]),
        number(100 * found["int8_share"], 1, " %"),
        str(len(found["findings"])),
        number(found["sqnr_db"], 1) + ("*" if found["before_a_choice"] else ""),
        number(found["seconds"], 0),
    )


def lines(found: dict[str, Any]) -> tuple[str, ...]:
    """The same line while models run, with what was found under it."""
    *cells, last = row(found)
    return (*cells, "\n  ".join([last, *found.get("findings", ())]))


def main() -> None:
    """Quantize, check, print."""
    parser = workbench.command_line(__doc__, samples=4, files=True)
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    options = parser.parse_args()
    terms = f"passes {options.passes}, {options.samples} made-up samples"
    job = partial(figures, options.passes, options.samples)
    table_of_models(options, "tensorrt_rules", terms, HEADER, job, row, lines)


if __name__ == "__main__":
    main()
