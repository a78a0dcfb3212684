"""`--junit` and `--markdown`: what continuous integration shows of a command."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxopt.cli.places import check_place, check_replaceable

if TYPE_CHECKING:
    from onnxopt.report.ci import Case

F = TypeVar("F", bound=Callable[..., Any])


def ci_options(command: F) -> F:
    """`--junit` and `--markdown`."""
    for decorate in (
        click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE.md", help="Write a summary for CI."),
        click.option(
            "--junit", type=click.Path(path_type=Path), metavar="FILE.xml", help="Write a test report for CI."
        ),
    ):
        command = decorate(command)
    return command


def check_cases(junit: Path | None, markdown: Path | None, others: Sequence[Path] = ()) -> None:
    """Refuse before any work what could not be written after it.

    Args:
        junit: File for JUnit XML, or None.
        markdown: File for Markdown, or None.
        others: What else the command writes.

    Raises:
        UsageError: A file would replace another of this command, a folder, a device, or anything but such a report.
    """
    from onnxopt.errors import UsageError
    from onnxopt.report.ci import is_ours

    taken = {other.resolve() for other in others}
    for file, option in ((junit, "--junit"), (markdown, "--markdown")):
        if file is None:
            continue
        check_place(file, option)
        if file.resolve() in taken:
            raise UsageError(f"{file} is another file of this command; give another place with {option}")
        check_replaceable(file, option, is_ours, force=None)
        taken.add(file.resolve())


def write_cases(title: str, cases: "Sequence[Case]", junit: Path | None, markdown: Path | None) -> None:
    """Write what was asked for.

    Raises:
        UsageError: A file cannot be written.
    """
    from onnxopt.model_io import write_text
    from onnxopt.report import ci

    if junit is not None:
        write_text(junit, ci.junit(title, cases))
    if markdown is not None:
        write_text(markdown, ci.markdown(title, cases))


@contextmanager
def reported(
    title: str,
    name: str,
    junit: Path | None,
    markdown: Path | None,
    figures_of: Callable[[Any], dict[str, str]] = lambda _: {},
) -> "Iterator[dict[str, str]]":
    """Report on what is done within, whether it goes well or not.

    Args:
        title: The command.
        name: What it is done to.
        junit: File for JUnit XML, or None.
        markdown: File for Markdown, or None.
        figures_of: Figures of the report that a missed gate carries.

    Yields:
        The figures, to be filled in.
    """
    from onnxopt.errors import GateMissed, OnnxoptError
    from onnxopt.report.ci import Case

    figures: dict[str, str] = {}
    try:
        yield figures
    except OnnxoptError as error:
        missed = isinstance(error, GateMissed)
        report = getattr(error, "report", None)
        figures.update(figures_of(report) if report is not None else {})
        write_cases(title, [Case(name, figures, str(error), missed=missed)], junit, markdown)
        raise
    write_cases(title, [Case(name, figures)], junit, markdown)
