"""`onnxopt inspect MODEL`: what a model is, and what could be done with it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxopt.cli.options import inputs_if_known, json_option, model_argument, shape_option

if TYPE_CHECKING:
    from onnxopt.analysis.channels import Group
    from onnxopt.data import InputSpec
    from onnxopt.graph import Graph
    from onnxopt.targets import Target


@click.command()
@model_argument
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose int8 to ask about.")
@shape_option
@click.option("--groups", is_flag=True, help="List the groups of channels that can only be removed together.")
@json_option
def inspect(*, model: Path, target: str, shapes: tuple[str, ...], groups: bool, as_json: bool) -> None:
    """Show what a model is and what could be done to it.

    Inputs, outputs, size, parameters, MACs and operators; what is prunable and quantizable, and why the rest is
    not. The model is taken as it stands; `run` simplifies it before it quantizes, which may reach more.

    With --groups: each group of channels, how many, the MACs that go with them, whether they are free or fixed and
    by which operator, and what is cut with them.
    """
    from onnxopt.analysis.channels import groups_facts, groups_text
    from onnxopt.model_io import load
    from onnxopt.registry import load_target
    from onnxopt.report.inspect import facts_text, inspect_model

    table = load_target(target)
    graph = load(model)
    inputs, notes = inputs_if_known(graph, shapes)
    if groups:
        found = find_groups(graph, table, inputs)
        click.echo(json.dumps(groups_facts(found), indent=2) if as_json else groups_text(found))
        return
    facts = inspect_model(graph, model.stat().st_size, table, inputs, notes)
    click.echo(json.dumps(facts.to_dict(), indent=2, ensure_ascii=False) if as_json else facts_text(facts))


def find_groups(graph: "Graph", target: "Target", inputs: "tuple[InputSpec, ...] | None") -> "tuple[Group, ...]":
    """Groups of channels, with MACs at the sizes that the model is run at, where these are known."""
    from onnxopt.analysis.channels import ChannelGroups
    from onnxopt.pass_api import Context
    from onnxopt.report.record import PassRecord

    context = Context(target, inputs=inputs or ())
    context.bind(graph, PassRecord("inspect"))
    return context.get(ChannelGroups).groups
