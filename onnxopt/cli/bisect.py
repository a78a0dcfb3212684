"""`onnxopt bisect MODEL`: which pass broke it?"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxopt.cli.options import data_options, model_argument, shape_option

if TYPE_CHECKING:
    from onnxopt.data import Dataset
    from onnxopt.graph import Graph
    from onnxopt.observers.bisect import Snapshot
    from onnxopt.pass_api import Context


@click.command()
@model_argument
@click.option("--passes", required=True, metavar="TEXT", help="Pipeline, as for `run`. Quote it.")
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="What the pipeline tunes for.")
@click.option("--check", metavar="MODULE:FUNCTION", help="Takes the path of a model; returns whether it is good.")
@click.option("--min-sqnr", metavar="DB", type=float, help="Good: every output has at least this SQNR to MODEL's.")
@data_options()
@shape_option
def bisect(
    *,
    model: Path,
    passes: str,
    target: str,
    check: str | None,
    min_sqnr: float | None,
    data: str | None,
    preprocess: str | None,
    samples: int | None,
    shapes: tuple[str, ...],
) -> None:
    """Find the pass after which MODEL fails a check.

    The pipeline runs once, unverified and with nothing undone; then the check is asked about the graphs in between,
    by halves. Prints the pass.
    """
    from onnxopt.cli.options import chosen_data, sized_inputs
    from onnxopt.evaluation.batches import fill_dataset
    from onnxopt.model_io import load
    from onnxopt.observers.bisect import first_bad

    if (check is None) == (min_sqnr is None):
        raise click.UsageError("give either --check or --min-sqnr")
    graph = load(model)
    inputs = sized_inputs(graph, shapes)
    dataset = fill_dataset(chosen_data(graph, inputs, data, preprocess, samples), inputs)
    fit, holdout = dataset.split_holdout()
    good = _function(check) if check is not None else _sqnr(graph.copy(), holdout if len(holdout) else fit, min_sqnr)
    context = _context(target, inputs=inputs, fit=fit, holdout=holdout, synthetic=data is None)
    snapshots = _run(passes, graph, context)
    culprit = first_bad(snapshots, good)
    _report(model, culprit, snapshots)


def _context(target: str, **surroundings: object) -> "Context":
    from dataclasses import replace

    from onnxopt.pass_api import Context
    from onnxopt.registry import load_target
    from onnxopt.runtime import host

    table = load_target(target)
    if not table.alignment:
        table = replace(table, alignment=host.channel_block())
    return Context(table, **surroundings)  # type: ignore[arg-type]


def _run(passes: str, graph: "Graph", context: "Context") -> "list[Snapshot]":
    """Graphs after each pass. A pass that fails ends it: what broke it may have come before."""
    from onnxopt.errors import OptimizationError
    from onnxopt.manager import check_requirements, run_step
    from onnxopt.observers.bisect import Snapshots
    from onnxopt.pipeline import resolve

    stages = resolve(passes)
    check_requirements(stages, context)
    snapshots = Snapshots()
    try:
        for step in (step for stage in stages for step in stage.steps):
            run_step(step, graph, context, [snapshots])
    except OptimizationError as error:
        click.echo(f"the pipeline stopped: {error}", err=True)
    return snapshots.kept


def _function(check: str) -> "Callable[[Graph], bool]":
    from onnxopt.data import load_symbol
    from onnxopt.model_io import save

    function = load_symbol(check)

    def good(graph: "Graph") -> bool:
        with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
            file = Path(folder) / "model.onnx"
            save(graph, file)
            try:
                return bool(function(str(file)))
            except AssertionError:
                return False

    return good


def _sqnr(original: "Graph", samples: "Dataset", least: float | None) -> "Callable[[Graph], bool]":
    from onnxopt.errors import OptimizationError
    from onnxopt.evaluation.measure import quality
    from onnxopt.runtime.adapter import naming_model
    from onnxopt.runtime.ort import OrtSession

    with naming_model(original.source):
        reference = OrtSession(original.to_proto())

    def good(graph: "Graph") -> bool:
        try:
            worst = quality(reference, OrtSession(graph.to_proto()), samples, original.metadata, strict=False)[
                "worst_sqnr_db"
            ]
        except OptimizationError as error:  # it does not load or does not run
            click.echo(str(error), err=True)
            return False
        return least is not None and bool(worst >= least)

    return good


def _report(model: Path, culprit: "Snapshot | None", snapshots: "list[Snapshot]") -> None:
    from onnxopt.errors import UsageError

    if culprit is None:
        click.echo(f"all {len(snapshots)} graphs are good", err=True)
        return
    if not culprit.number:
        raise UsageError(f"{model}: fails the check before any pass has run")
    click.echo(f"the graph is good before and bad after change {culprit.number} of {len(snapshots) - 1}:", err=True)
    click.echo(culprit.after)
