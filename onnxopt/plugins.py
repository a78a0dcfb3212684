"""Entry points: built-ins and third parties alike, found by group and name.

Nothing is imported before it is asked for. A plug-in that cannot be imported is reported when it is used, and does
not keep the others from being listed. Two owners of one name are refused, naming both.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from onnxopt.errors import OptimizationError, UsageError, nearest


@dataclass(frozen=True)
class Listed:
    """One entry of a listing: the object, or what went wrong when it was loaded."""

    name: str
    owner: str
    value: Any
    problem: str = ""


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def entries(group: str) -> dict[str, list[EntryPoint]]:
    """Entry points by name. The same target listed twice (an editable install seen twice) is one owner."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: list(values.values()) for name, values in sorted(found.items())}


def load(group: str, name: str, kind: str) -> Any:
    """What an entry point names.

    Args:
        group: Such as `onnxopt.passes`.
        name: Its name.
        kind: What it is, for messages.

    Raises:
        UsageError: Unknown (the nearest is suggested), or offered twice.
        OptimizationError: It cannot be imported.
    """
    known = entries(group)
    if name not in known:
        raise UsageError(f"unknown {kind} '{name}'{nearest(name, known)}")
    return _load(name, known[name], kind)


def load_all(group: str, kind: str) -> dict[str, Any]:
    """What all entry points of a group name; same errors as `load`."""
    return {name: _load(name, owners, kind) for name, owners in entries(group).items()}


def _load(name: str, owners: list[EntryPoint], kind: str) -> Any:
    if len(owners) > 1:
        both = " and ".join(f"{_owner(e)} ({e.value})" for e in owners)
        raise UsageError(f"{kind} '{name}' is offered twice: by {both}; uninstall one of them")
    try:
        return owners[0].load()
    except Exception as error:
        raise OptimizationError(
            f"{kind} '{name}' of {_owner(owners[0])} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def names(group: str) -> list[str]:
    """Names in a group, sorted."""
    return list(entries(group))


def listing(group: str, kind: str) -> list[Listed]:
    """Everything in a group; what cannot be loaded is listed with its problem."""
    out = []
    for name, owners in entries(group).items():
        try:
            out.append(Listed(name, _owner(owners[0]), _load(name, owners, kind)))
        except (UsageError, OptimizationError) as error:
            out.append(Listed(name, _owner(owners[0]), None, str(error)))
    return out
