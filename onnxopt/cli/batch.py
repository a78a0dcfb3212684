"""`onnxopt batch 'models/*.onnx' --recipe R`: one recipe over many models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxopt.cli.ci import check_cases, ci_options, write_cases
from onnxopt.cli.options import chosen_target, device_options

if TYPE_CHECKING:
    from onnxopt.batch import Entry
    from onnxopt.lock import Lock


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="'MODELS/*.onnx'...")
@click.option("--recipe", required=True, type=click.Path(path_type=Path), help="TOML recipe to run on each.")
@click.option(
    "-o", "--output", default="optimized", show_default=True, type=click.Path(path_type=Path), help="Folder of results."
)
@click.option("--ending", default=".onnx", show_default=True, help="Of the results: .onnx, .xml, .ort or .engine.")
@click.option("--target", metavar="NAME", help="What to tune for; default: the recipe's.")
@click.option("--update-lock", is_flag=True, help="Write recipe.lock anew where it no longer fits.")
@device_options
@ci_options
def batch(models: tuple[str, ...], **options: Any) -> None:
    """Run one recipe over many models.

    It goes on where one fails, and exits with 1 then. What was done before, with the same model, recipe, data and
    packages, is not done again. Beside the recipe a lock is kept (`recipe.lock`) that names packages and data; where
    they are others than it says, nothing is run.
    """
    from onnxopt.batch import find_models, lock_of, plan, run_jobs
    from onnxopt.model_io import write_text
    from onnxopt.recipe import load_recipe

    check_cases(options["junit"], options["markdown"])
    recipe = load_recipe(options["recipe"])
    target = chosen_target(options["target"] or recipe.target or "ort", options["device"], options["ssh_options"])
    jobs = plan(find_models(models), recipe, target, options["output"], options["ending"])
    file = options["recipe"].with_suffix(".lock")
    lock = _checked(file, lock_of(jobs, recipe, target), update=options["update_lock"])
    write_text(file, str(lock))
    entries = run_jobs(jobs, recipe, target, options["output"], tell=_tell)
    click.echo(_table(entries))
    write_cases("onnxopt batch", [entry.case for entry in entries], options["junit"], options["markdown"])
    failed = sum(bool(entry.case.problem) for entry in entries)
    if failed:
        click.echo(f"{failed} of {len(entries)} models failed", err=True)
        raise SystemExit(1)


def _checked(file: Path, now: "Lock", *, update: bool) -> "Lock":
    """The lock to write.

    Raises:
        UsageError: The one that is there says something else, and shall not be written anew.
    """
    from onnxopt.errors import UsageError
    from onnxopt.lock import load_lock

    if update:
        return now
    before = load_lock(file)
    if before is None:
        return now
    differences = before.differences(now)
    if differences:
        raise UsageError(f"{file} no longer fits: {'; '.join(differences)}; restore that or give --update-lock")
    return now.with_data_of(before)


def _tell(entry: "Entry") -> None:
    state = entry.case.problem or ("done before" if entry.cached else "done")
    click.echo(f"{entry.case.name}: {state}", err=True)


def _table(entries: "list[Entry]") -> str:
    from onnxopt.report.table import table

    columns = list(dict.fromkeys(name for entry in entries for name in entry.case.figures))
    rows = [
        (
            entry.case.name,
            "failed" if entry.case.problem else "done before" if entry.cached else "done",
            *(entry.case.figures.get(column, "") for column in columns),
        )
        for entry in entries
    ]
    return table(rows, ("model", "", *columns))
