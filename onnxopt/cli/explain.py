"""`onnxopt explain MODEL`: what really runs in int8, and why the rest does not."""

import json
from pathlib import Path

import click

from onnxopt.cli.options import inputs_if_known, json_option, model_argument, shape_option


@click.command()
@model_argument
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose int8 to ask about.")
@shape_option
@json_option
def explain(*, model: Path, target: str, shapes: tuple[str, ...], as_json: bool) -> None:
    """Say which layers really run in int8, and why others do not.

    Reads back what the target's runtime makes of the model, whoever quantized it. For a target that cannot run here
    the graph is checked against the runtime's documented rules.
    """
    from onnxopt.model_io import load
    from onnxopt.registry import load_target
    from onnxopt.report.explain import explain_model, explanation_text
    from onnxopt.runtime.adapter import naming_model

    table = load_target(target)
    graph = load(model)
    inputs, notes = inputs_if_known(graph, shapes)
    with naming_model(model):
        facts = explain_model(graph, table, inputs, notes)
    click.echo(json.dumps(facts.to_dict(), indent=2, ensure_ascii=False) if as_json else explanation_text(facts))
