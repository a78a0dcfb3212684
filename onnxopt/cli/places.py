"""Where commands write: refused before any work where it could not be done after it."""

import os
from collections.abc import Callable
from pathlib import Path


def check_place(file: Path, option: str) -> None:
    """See whether a file can be written.

    Args:
        file: The file.
        option: With which it was given.

    Raises:
        UsageError: It is a folder, a device or a pipe, or its folder is missing or not writable.
    """
    from onnxopt.errors import UsageError

    if file.is_dir():
        raise UsageError(f"{file} is a folder; give a file with {option}")
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is a device or a pipe; give a file with {option}")
    folder = file.resolve().parent if file.is_symlink() else file.parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; make it or give another place with {option}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"the folder {folder} is not writable; give another place with {option}")


def check_replaceable(file: Path, option: str, ours: Callable[[Path], bool], *, force: bool | None) -> None:
    """See whether a report may stand where something is already.

    Args:
        file: The file.
        option: With which it was given.
        ours: Whether a file is such a report.
        force: Replace anything; None: the command has no option for that.

    Raises:
        UsageError: It is somebody else's.
    """
    from onnxopt.errors import UsageError

    if file.exists() and not force and not ours(file):
        way = "" if force is None else "--force or "
        raise UsageError(f"{file} is there already and is no report of onnxopt; give {way}another place with {option}")
