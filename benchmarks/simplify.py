"""What `simplify` does to whole models: same answers, fewer nodes.

Claim: the checker accepts the result; with ONNX Runtime's optimizations off on both sides its outputs are those of the
original within max(1e-5, 3 d) of the largest value, d being the runtime's own difference between optimizations off and
on for the original; and it has no more nodes than onnxslim leaves (`pip install onnxslim`; optional).

Inputs are two pictures and one of random numbers. `error` is the largest difference of any output, as a share of what
is allowed: 1 is the limit. `pictures apart` is how far the outputs of the two pictures lie from each other, as a share
of the largest value; where that is near 0, equal outputs prove nothing. `--zoo` takes any folder of ONNX files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import workbench
from peers import quiet
from workbench import Subject, markdown, number, say

from onnxopt import optimize
from onnxopt.data import Array
from onnxopt.errors import OnnxoptError
from onnxopt.runtime.ort import OrtSession

MODELS = tuple(workbench.SUBJECTS)
LEAST_TOLERANCE, OWN_DIFFERENCES = 1e-5, 3
LEAST_APART = 1e-3
HEADER = ("model", "nodes", "onnxopt", "onnxslim", "error", "pictures apart", "faster by", "checker", "ok")
Outputs = dict[str, Array]


@dataclass(frozen=True)
class Distance:
    """How far two models' outputs lie apart.

    Attributes:
        error: Largest difference over what is allowed, of the worst output.
        apart: Difference between two pictures' outputs over the largest value, of the output that differs least.
    """

    error: float
    apart: float


def inputs_of(subject: Subject) -> list[Outputs]:
    """Two pictures and one input of random numbers."""
    pictures = [sample.feeds for sample in subject.samples(2)]
    generator = np.random.default_rng(0)
    spread = {name: (array.min(), array.max()) for name, array in pictures[0].items()}
    noise = {
        name: generator.uniform(*spread[name], array.shape).astype(array.dtype) for name, array in pictures[0].items()
    }
    return [*pictures, noise]


def distance(original: onnx.ModelProto, simplified: onnx.ModelProto, feeds: Sequence[Outputs]) -> Distance:
    """Compare the two as they are written, the runtime's optimizations off."""
    sessions = OrtSession(original, optimized=False), OrtSession(original), OrtSession(simplified, optimized=False)
    wanted, own, got = ([session.run(feed) for feed in feeds] for session in sessions)
    errors, aparts = [], []
    for name in wanted[0]:
        reference = _joined(wanted, name)
        size = np.abs(reference).max() or 1.0
        allowed = max(LEAST_TOLERANCE, OWN_DIFFERENCES * np.abs(reference - _joined(own, name)).max() / size)
        errors.append(np.abs(reference - _joined(got, name)).max() / size / allowed)
        first, second = wanted[0][name], wanted[1][name]
        aparts.append(np.abs(first - second).max() / size if first.shape == second.shape else np.inf)
    return Distance(float(max(errors)), float(min(aparts)))


def _joined(outputs: Sequence[Outputs], name: str) -> Array:
    return np.concatenate([np.asarray(out[name], np.float64).ravel() for out in outputs])


def slim_nodes(file: Path) -> int | None:
    """How many nodes onnxslim leaves; None where it is not installed or fails."""
    try:
        import onnxslim  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        with quiet():
            slimmed = onnxslim.slim(onnx.load(file))
    except Exception as error:  # noqa: BLE001 - that a peer fails is a result
        say(f"{file.name}: onnxslim failed: {type(error).__name__}: {error}")
        return None
    return len(slimmed.graph.node)


def check(model: onnx.ModelProto) -> str:
    """`passes`, or what the checker has to say."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().splitlines()[0]
    return "passes"


def measure(subject: Subject, passes: str) -> dict[str, Any]:
    """Simplify one model and compare."""
    result = optimize(subject.file, passes, data=subject.samples(3), keep_anyway=True)
    original, simplified = subject.graph.to_proto(), result.model
    found = distance(original, simplified, inputs_of(subject))
    return {
        "model": subject.name,
        "nodes": len(original.graph.node),
        "onnxopt": len(simplified.graph.node),
        "onnxslim": slim_nodes(subject.file),
        "error": found.error,
        "apart": found.apart,
        "speedup": result.report.speedup,
        "checker": check(simplified),
    }


def holds(record: dict[str, Any]) -> bool:
    """Whether the claim holds for one model."""
    no_more = record["onnxslim"] is None or record["onnxopt"] <= record["onnxslim"]
    same = record["error"] <= 1 and record["apart"] >= LEAST_APART
    return bool(no_more and same and record["checker"] == "passes")


def row(record: dict[str, Any]) -> tuple[str, ...]:
    """One model for people."""
    slim, speedup = record["onnxslim"], record["speedup"]
    return (
        record["model"],
        str(record["nodes"]),
        str(record["onnxopt"]),
        "-" if slim is None else str(slim),
        number(record["error"], 3),
        number(record["apart"], 3),
        f"{speedup['median']:.2f} ± {speedup['spread']:.2f}" if speedup else "-",
        record["checker"],
        "yes" if holds(record) else "no",
    )


def main() -> None:
    """Simplify all, and print."""
    parser = workbench.command_line(__doc__)
    parser.add_argument("--zoo", type=Path, metavar="DIR", help="a folder of further ONNX files")
    parser.add_argument("--passes", default="simplify", help="default %(default)s")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; passes {options.passes}\n")
    subjects = workbench.find_subjects(options, MODELS)
    if options.zoo is not None:
        subjects += [Subject(file.stem, file) for file in sorted(options.zoo.glob("*.onnx"))]
    records = []
    for subject in subjects:
        say(subject.name)
        try:
            records.append(measure(subject, options.passes))
        except OnnxoptError as error:
            say(f"{subject.name}: onnxopt failed: {error}")
    print(markdown(HEADER, [row(record) for record in records]))
    workbench.write_results(options.json, "simplify", facts, records)


if __name__ == "__main__":
    main()
