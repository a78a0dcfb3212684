"""`onnxopt profile MODEL`: how long each layer takes."""

import json
from pathlib import Path

import click

from onnxopt.cli.options import json_option, model_argument, shape_option, sized_inputs

SHOWN = 25


@click.command()
@model_argument
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose runtime to ask.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="ORIGINAL.onnx",
    help="The model that MODEL was made from; its layers are shown.",
)
@click.option("--runs", default=50, show_default=True, type=click.IntRange(min=4), help="How often to run it.")
@click.option("--all", "every", is_flag=True, help=f"Show all layers, not the {SHOWN} slowest.")
@shape_option
@json_option
def profile(
    *,
    model: Path,
    target: str,
    reference: Path | None,
    runs: int,
    every: bool,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time the layers of MODEL, and say what bounds them.

    It asks the runtime's own profiler. Kernels are mapped back to the layers of the model, or with --reference to
    those of the one that it was made from. What a layer causes in changes of type and layout is shown beside it. A
    layer is bound by compute or by memory, whichever takes longer at the best this machine can do; by conversions
    where these take longer than the layer; by overhead where it takes more than ten times what the machine allows.
    """
    from onnxopt.errors import UsageError
    from onnxopt.model_io import load
    from onnxopt.profiling import profile_model
    from onnxopt.profiling.mapping import shares_layers
    from onnxopt.profiling.text import profile_text
    from onnxopt.registry import load_target
    from onnxopt.runtime.adapter import naming_model

    table = load_target(target)
    graph = load(model)
    original = load(reference) if reference is not None else None
    if original is not None and not shares_layers(graph, original):
        raise UsageError(f"{reference}: the reference shares no layer with the model; give what {model} was made from")
    inputs = sized_inputs(graph, shapes)
    with naming_model(model):
        found = profile_model(graph, table, inputs, original=original, runs=runs)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        click.echo(profile_text(found, most=None if every else SHOWN))
