"""`onnxopt auto MODEL`: what to do with this model, without knowing what a pass is."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxopt.cli.options import device_options, model_argument, shape_option
from onnxopt.cli.reports import check_reports, report_option, wants_page, write_reports

if TYPE_CHECKING:
    from onnxopt.auto import Findings
    from onnxopt.targets import Target

EPILOG = """Exit codes: 0 done, 1 no candidate keeps the budget, 2 bad usage or input, 3 no candidate keeps all gates,
130 interrupted: what was done is written, and the same command goes on from there. Tables go to stderr."""


@click.command(epilog=EPILOG)
@model_argument
@click.option(
    "--target", default="ort", show_default=True, metavar="NAME", help="What to tune for; auto: every runtime here."
)
@click.option("--data", required=True, metavar="PATH", help="Pictures to calibrate on, as for `run`.")
@click.option(
    "--eval-data", metavar="PATH", help="Pictures to judge on; default: the val split, or held-out calibration data."
)
@click.option("--metric", metavar="NAME", help="Default: what suits the labels; without any, agreement.")
@click.option("--max-drop", default="1%", show_default=True, metavar="1%|1.0", help="What may be lost of the score.")
@click.option("--require", metavar="GATES", help="What the result has to keep, as for `run`; exit 3 if nothing does.")
@click.option("--preprocess", metavar="SPEC", help="imagenet, yolo, yolox, or spelled out; default: from metadata.")
@click.option("--samples", type=click.IntRange(min=1), help="Use at most so many calibration samples; default 128.")
@shape_option
@device_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: MODEL.auto beside the model."
)
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="What was tried; default: DIR/cache.")
@click.option(
    "--minutes", default=20.0, show_default=True, type=click.FloatRange(min=0), help="Start nothing that ends later."
)
@report_option
@click.option("--force", is_flag=True, help="Replace files that onnxopt did not write.")
def auto(model: Path, **options: Any) -> None:
    """Find out how to make MODEL fast and small.

    Writes three models: safe, balanced and small. Tries int8, and pruning by more and more before it; measures each
    for accuracy and latency; says which to take and why. Interrupted, the same command goes on where it was.
    """
    from onnxopt.auto import Question
    from onnxopt.auto import auto as search
    from onnxopt.auto.words import summary
    from onnxopt.evaluation.inputs import parse_input_shapes
    from onnxopt.model_io import load
    from onnxopt.observers.progress import Progress

    folder = options["output"] or _folder(model)
    _check_places(model, folder, options["reports"], force=options["force"])
    question = Question(
        model=model,
        data=options["data"],
        eval_data=options["eval_data"],
        metric=options["metric"],
        max_drop=options["max_drop"],
        preprocess=options["preprocess"],
        samples=options["samples"],
        input_shapes=parse_input_shapes(options["shapes"], load(model)) if options["shapes"] else None,
    )
    with _naming_what_stays(model, folder):
        found = search(
            question,
            options["cache"] or folder / "cache",
            target=_target(options["target"], options["device"], options["ssh_options"]),
            require=options["require"],
            minutes=options["minutes"],
            tell=lambda line: click.echo(line, err=True),
            observers=(Progress(sys.stderr),),
            findings=wants_page(options["reports"]),
        )
    click.echo(f"\n{summary(found)}", err=True)
    _write(found, folder, options["reports"])
    _end(found)


def _folder(model: Path) -> Path:
    """Beside the model, or here where that folder cannot be written."""
    name = f"{model.stem}.auto"
    return model.parent / name if os.access(model.parent, os.W_OK) else Path(name)


def _target(name: str, device: str | None, ssh_options: tuple[str, ...]) -> "str | Target":
    from onnxopt.auto.run import EVERY
    from onnxopt.cli.options import chosen_target

    if name == EVERY and device is None:
        return name
    if name == EVERY:
        raise click.UsageError("--device takes one target; name it with --target")
    return chosen_target(name, device, ssh_options)


def _check_places(model: Path, folder: Path, reports: tuple[Path, ...], *, force: bool) -> None:
    """Refuse before any work what could not be written after it.

    Raises:
        UsageError: A file is in the way, is the model, or a package that draws reports is missing.
    """
    from onnxopt.auto.writing import PICKS, PLOT, SHEET, is_front, place
    from onnxopt.errors import UsageError
    from onnxopt.formats import is_ours

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder with -o")
    picks = [place(model.stem, pick, folder) for pick in PICKS]
    for file in picks:
        if file.exists() and model.exists() and file.samefile(model):
            raise UsageError(f"{file} is the input model, which is never changed; give another folder with -o")
        if file.exists() and not force and not is_ours(file):
            raise UsageError(f"{file} is there already and onnxopt did not write it; give --force or another -o")
    for file in (folder / SHEET, folder / PLOT):
        if file.is_dir() or (file.exists() and not force and not is_front(file)):
            raise UsageError(f"{file} is there already and onnxopt did not write it; give --force or another -o")
    with _standing(folder):
        check_reports(reports, [model, *picks], force=force)


@contextmanager
def _standing(folder: Path) -> Iterator[None]:
    """Reports may stand in the folder, so it is there while they are checked; what was made for that goes again.

    Raises:
        UsageError: It cannot be made.
    """
    from onnxopt.errors import UsageError

    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); give another folder with -o") from None
    try:
        yield
    finally:
        for place in missing:
            place.rmdir()


@contextmanager
def _naming_what_stays(model: Path, folder: Path) -> Iterator[None]:
    """Say of an earlier search's models that they are that, where this one hands back none.

    Raises:
        OnnxoptError: The search's own, with more to say.
    """
    from onnxopt.errors import GateMissed, OptimizationError

    try:
        yield
    except (GateMissed, OptimizationError) as error:
        error.args = (f"{error}{_earlier(model.stem, folder)}",)
        raise


def _earlier(name: str, folder: Path) -> str:
    from onnxopt.auto.writing import PICKS, place

    there = [str(file) for pick in PICKS if (file := place(name, pick, folder)).exists()]
    return f"; of an earlier search, and still there: {', '.join(there)}" if there else ""


def _write(found: "Findings", folder: Path, reports: tuple[Path, ...]) -> None:
    from onnxopt.auto.page import document
    from onnxopt.auto.writing import as_json, write_front, write_models

    folder.mkdir(parents=True, exist_ok=True)
    if found.picks is None:
        click.echo(f"no model is written{_earlier(found.model, folder)}", err=True)
    files = write_models(found, found.picks, folder) if found.picks is not None else []
    files += write_front(found, folder)
    click.echo(f"wrote {', '.join(map(str, files))}", err=True)
    write_reports(reports, lambda: as_json(found), lambda: document(found))


def _end(found: "Findings") -> None:
    """Say how to go on where the search ended early."""
    from onnxopt.auto.seeking import INTERRUPTED

    if not found.stopped:
        return
    how = "" if found.stopped == INTERRUPTED else " with more --minutes"
    click.echo(f"{found.stopped}: run the same command again{how} to go on from here", err=True)
    if found.stopped == INTERRUPTED:
        raise click.exceptions.Exit(130)
