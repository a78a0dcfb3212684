"""A package of one's own with one pass: made of templates, installable, tested, documented."""

import keyword
import re
import shutil
import sys
import tempfile
from importlib.metadata import distributions
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from onnxopt.errors import UsageError
from onnxopt.registry import PASSES, PIPELINES, names

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# File of the package to its template in `onnxopt/templates/new_pass`.
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "$package/__init__.py": "init.py.txt",
    "$package/$module.py": "pass.py.txt",
    "tests/test_$module.py": "test.py.txt",
}


def make_package(name: str, folder: Path, distribution: str | None = None) -> list[Path]:
    """Write a package with a pass, whole or not at all.

    Args:
        name: Of the pass, in kebab-case.
        folder: Where to; must not be there yet, or be empty.
        distribution: Name of the package; default: `onnxopt-` and the name of the pass.

    Returns:
        The files written.

    Raises:
        UsageError: No name for a pass or a package, one that is taken, or a folder that is or cannot be written.
    """
    distribution = distribution or f"onnxopt-{name}"
    for what, given in (("pass", name), ("package", distribution)):
        _check_name(what, given)
    _check_free(distribution)
    if name in names(PASSES) or name in names(PIPELINES):
        raise UsageError(f"there is a pass or pipeline '{name}' already; see `onnxopt passes list`")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; give another folder")
    words = {
        "name": name,
        "module": name.replace("-", "_"),
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
    }
    try:
        return _write(folder, {_filled(file, words): _filled(_template(t), words) for file, t in _FILES.items()})
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None


def _check_name(what: str, given: str) -> None:
    """Refuse what is no name, or none that Python takes.

    Raises:
        UsageError: Says which.
    """
    if not _NAME.fullmatch(given):
        raise UsageError(f"'{given}' is no name for a {what}: use lower case letters, digits and hyphens")
    if keyword.iskeyword(given) or keyword.iskeyword(given.capitalize()):
        raise UsageError(f"'{given}' is no name for a {what}: Python has that word for itself; take another")


def _check_free(distribution: str) -> None:
    """Refuse a package that would hide, or be hidden by, another.

    Raises:
        UsageError: There is one of this name.
    """
    module = distribution.replace("-", "_")
    if module in sys.stdlib_module_names:
        raise UsageError(f"'{distribution}' is no name for a package: it is a module of Python's own; take another")
    spec = find_spec(module)
    if (spec is not None and spec.origin is not None) or any(distributions(name=distribution)):
        raise UsageError(f"'{distribution}' is no name for a package: one of that name is installed; take another")


def _filled(text: str, words: dict[str, str]) -> str:
    return Template(text).substitute(words)


def _template(name: str) -> str:
    return files("onnxopt").joinpath("templates", "new_pass", name).read_text(encoding="utf-8")


def _write(folder: Path, contents: dict[str, str]) -> list[Path]:
    """All files into a folder beside, which then gets the name."""
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for file, text in contents.items():
            place = made / file
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8")
        made.chmod(0o755)  # mkdtemp is private by default
        made.replace(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return [folder / file for file in contents]
