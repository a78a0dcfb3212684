"""`onnxopt compare A B`: the same inputs through two models."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxopt.cli.options import data_options, json_option, shape_option

if TYPE_CHECKING:
    from onnxopt.evaluation.agreement import Agreement


EPILOG = """Exit codes: 0 compared, however far apart they are, 1 an output is not finite or a model fails, 2 bad usage
or input."""


@click.command(epilog=EPILOG)
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@data_options()
@shape_option
@json_option
def compare(
    *,
    reference: Path,
    other: Path,
    data: str | None,
    preprocess: str | None,
    samples: int | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say how far the outputs of two models lie apart.

    The same inputs go through both. Per output: largest absolute error, signal-to-noise ratio (SQNR, in dB) and
    cosine; and how often both prefer the same class, for classifiers, or find the same boxes, for detectors that are
    known.
    """
    from onnxopt.cli.options import chosen_data, sized_inputs
    from onnxopt.evaluation.compare import compare_files, matching_inputs
    from onnxopt.model_io import load

    first = load(reference)
    inputs = sized_inputs(first, shapes)
    matched = matching_inputs(inputs, load(other))
    dataset = chosen_data(first, inputs, data, preprocess, samples)
    agreement = compare_files((reference, other), (inputs, matched), dataset, first.metadata)
    click.echo(json.dumps(_document(agreement), indent=2) if as_json else _text(agreement))
    _refuse_not_finite(agreement)


def _refuse_not_finite(agreement: "Agreement") -> None:
    """End as a comparison that failed, once it is printed.

    Raises:
        OptimizationError: An output is NaN or infinite, in one model or both, so that it has no distance.
    """
    from onnxopt.errors import OptimizationError

    broken = [
        f"'{name}'"
        for name, distance in agreement.outputs.items()
        if not math.isfinite(distance.max_error) and distance.mismatched < agreement.samples
    ]
    if broken:
        outputs = "output" if len(broken) == 1 else "outputs"
        raise OptimizationError(f"{outputs} {', '.join(broken)}: NaN or infinite, so the models cannot be compared")


def _document(agreement: "Agreement") -> dict[str, Any]:
    from dataclasses import asdict

    outputs = {
        name: {key: value if math.isfinite(value) else None for key, value in asdict(distance).items()}
        | {"equal": distance.max_error == 0}
        for name, distance in agreement.outputs.items()
    }
    return {
        "samples": agreement.samples,
        "outputs": outputs,
        "top1_agreement": agreement.top1,
        "detection_agreement": agreement.detections,
        "text_agreement": agreement.texts,
    }


def _text(agreement: "Agreement") -> str:
    from onnxopt.report.table import table

    rows = [
        (
            name,
            f"{d.max_error:.3g}",
            "equal" if d.max_error == 0 else f"{d.sqnr_db:.2f}",
            f"{d.cosine:.6f}",
            f"shape differs on {d.mismatched} of {agreement.samples} samples" if d.mismatched else "",
        )
        for name, d in agreement.outputs.items()
    ]
    lines = [table(rows, ("output", "max error", "SQNR dB", "cosine", ""), right=(1, 2, 3)), ""]
    if agreement.top1 is not None:
        lines.append(f"top-1 agreement: {agreement.top1:.1%}")
    if agreement.detections is not None:
        lines.append(f"detections agreeing: {agreement.detections:.1%}")
    if agreement.texts is not None:
        lines.append(f"texts agreeing: {agreement.texts:.1%}")
    return "\n".join([*lines, f"samples: {agreement.samples}"])
