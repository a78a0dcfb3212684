"""`--report FILE`, repeatable: what a command found, as JSON for programs or as an HTML page for people."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxopt.cli.places import check_place, check_replaceable

if TYPE_CHECKING:
    from onnxopt.report.document import Document

F = TypeVar("F", bound=Callable[..., Any])
JSON, PAGE = frozenset({".json"}), frozenset({".html", ".htm"})


def report_option(command: F) -> F:
    """`--report`, as `reports: tuple[Path, ...]`."""
    return click.option(
        "--report",
        "reports",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.html|FILE.json",
        help="Write a page for people or a report for programs; may be repeated.",
    )(command)


def wants_page(reports: Sequence[Path]) -> bool:
    """Whether one of the files is a page."""
    return any(file.suffix.lower() in PAGE for file in reports)


def check_reports(reports: Sequence[Path], models: Sequence[Path], *, force: bool) -> None:
    """Refuse before any work what could not be written after it.

    Args:
        reports: What is to be written.
        models: Files that are never replaced by a report.
        force: Replace files that are no reports.

    Raises:
        UsageError: An ending is not known, a package is missing, or a file would replace a model, a folder, another
            report of this command, or somebody else's file.
    """
    from onnxopt.errors import UsageError
    from onnxopt.report.html import check_packages, is_html_report
    from onnxopt.report.run import is_report

    for file in reports:
        if file.suffix.lower() not in JSON | PAGE:
            raise UsageError(
                f"a report is a .html page or .json, and {file} is neither; give another file with --report"
            )
        check_place(file, "--report")
        for model in models:
            if file == model or (file.exists() and model.exists() and file.samefile(model)):
                raise UsageError(f"{file} is the model; give another place with --report")
        check_replaceable(file, "--report", lambda place: is_report(place) or is_html_report(place), force=force)
    if len({file.resolve() for file in reports}) < len(reports):
        raise UsageError("one file is given twice with --report; give each report a place of its own")
    if wants_page(reports):
        check_packages()


def write_reports(reports: Sequence[Path], json_text: Callable[[], str], page: "Callable[[], Document]") -> None:
    """Write what was asked for, each file whole or not at all.

    Args:
        reports: The files, as `check_reports` let them pass.
        json_text: Makes the text of a JSON report.
        page: Makes what a page shows.

    Raises:
        UsageError: A file cannot be written.
    """
    from onnxopt.model_io import write_text
    from onnxopt.report.html import write_html

    for file in reports:
        if file.suffix.lower() in PAGE:
            write_html(file, page())
        else:
            write_text(file, json_text())
        click.echo(f"wrote {file}", err=True)
