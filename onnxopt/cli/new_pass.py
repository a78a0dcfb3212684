"""`onnxopt new-pass NAME [DIR]`: a package for a pass of one's own."""

from pathlib import Path

import click


@click.command("new-pass")
@click.argument("name")
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--package", metavar="NAME", help="Name of the package; default: onnxopt-NAME.")
def new_pass(name: str, folder: Path | None, package: str | None) -> None:
    """Make an installable package for a pass of your own.

    It holds the pass NAME, its test before and after, and its page; all of it works as it is. DIR is by default the
    name of the package.
    """
    from onnxopt.new_pass import make_package

    folder = folder or Path(package or f"onnxopt-{name}")
    for file in make_package(name, folder, package):
        click.echo(f"wrote {file}", err=True)
    click.echo(f"install it with `pip install -e {folder}`, test it with `python -m pytest {folder}`", err=True)
