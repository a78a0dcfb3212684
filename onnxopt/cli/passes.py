"""`onnxopt passes`: what there is to run, and what each pass does."""

import click


@click.group()
def passes() -> None:
    """List passes and named pipelines, or show one."""


@passes.command("list")
def list_() -> None:
    """One line for each pass and each named pipeline."""
    from onnxopt.cli.describe import pass_row, pipeline_row
    from onnxopt.registry import PASSES, PIPELINES, listing
    from onnxopt.report.table import table

    rows = [*map(pass_row, listing(PASSES, "pass")), *map(pipeline_row, listing(PIPELINES, "pipeline"))]
    click.echo(table(rows, ("name", "effect", "summary")))


@passes.command()
@click.argument("name")
def show(name: str) -> None:
    """What a pass or named pipeline does, when to use it, and its options."""
    from onnxopt.cli.describe import pass_text, pipeline_text
    from onnxopt.registry import PASSES, PIPELINES, is_pipeline, listing, load_pass, load_pipeline

    named = is_pipeline(name)
    owners = {e.name: e.owner for e in (listing(PIPELINES, "pipeline") if named else listing(PASSES, "pass"))}
    if named:
        click.echo(pipeline_text(load_pipeline(name), owners[name]))
    else:
        click.echo(pass_text(load_pass(name), owners[name]))
