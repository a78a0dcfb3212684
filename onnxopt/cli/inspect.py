"""`onnxopt inspect MODEL`: what a model is, and what could be done with it."""

import json
from pathlib import Path

import click

from onnxopt.cli.options import inputs_if_known, json_option, model_argument, shape_option


@click.command()
@model_argument
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose int8 to ask about.")
@shape_option
@json_option
def inspect(*, model: Path, target: str, shapes: tuple[str, ...], as_json: bool) -> None:
    """Show what a model is and what could be done to it.

    Inputs, outputs, size, parameters, MACs and operators; what is prunable and quantizable, and why the rest is
    not. The model is taken as it stands; `run` simplifies it before it quantizes, which may reach more.
    """
    from onnxopt.model_io import load
    from onnxopt.registry import load_target
    from onnxopt.report.inspect import facts_text, inspect_model

    table = load_target(target)
    graph = load(model)
    inputs, notes = inputs_if_known(graph, shapes)
    facts = inspect_model(graph, model.stat().st_size, table, inputs, notes)
    click.echo(json.dumps(facts.to_dict(), indent=2, ensure_ascii=False) if as_json else facts_text(facts))
