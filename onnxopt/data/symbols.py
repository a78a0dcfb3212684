"""Finds what `module:function` names, for data and metrics that a user wrote."""

import importlib
import re
import sys
from functools import reduce
from pathlib import Path
from typing import Any

from onnxopt.errors import UsageError, nearest

PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_symbol(text: str) -> bool:
    """Tell whether a text is of the form `module:function`."""
    return PATTERN.fullmatch(text) is not None


def load_symbol(text: str) -> Any:
    """Return what `module:name` stands for, the module being looked for as Python does and in the current folder.

    The current folder stays at the end of the search path, as what is found may import its neighbours later.

    Raises:
        UsageError: The module cannot be imported, or has no such name.
    """
    module_name, _, attribute = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise UsageError(f"'{text}': importing {module_name} failed: {error}") from error
        raise UsageError(f"'{text}': there is no module {module_name} here ({here}) or installed") from None
    except (Exception, SystemExit) as error:  # a script without a guard may leave when it is imported
        raise UsageError(f"'{text}': importing {module_name} failed: {error!r}") from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        hint = nearest(attribute, (name for name in vars(module) if not name.startswith("_")))
        raise UsageError(f"'{text}': {module_name} has no '{attribute}'{hint}") from None
