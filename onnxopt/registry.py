"""Finding passes, named pipelines and targets through entry points: built-ins and third parties alike.

Nothing is imported before it is asked for. A plug-in that cannot be imported is reported when it is used, and does
not keep the others from being listed. Two owners of one name are refused, naming both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from onnxopt.errors import OptimizationError, UsageError, nearest
from onnxopt.pass_api import Pass
from onnxopt.runtime import host
from onnxopt.targets import Target, TargetFamily

PASSES, PIPELINES, TARGETS = "onnxopt.passes", "onnxopt.pipelines", "onnxopt.targets"


@dataclass(frozen=True)
class NamedPipeline:
    """A recipe with a name.

    Attributes:
        name: Kebab-case name, equal to the entry point's.
        summary: One line.
        text: The pipeline in text form; it may name other named pipelines.
        options: Option of this pipeline to the option it stands for, e.g. `{"method": "calibrate.method"}`, or to
            several that take the same value: `"upgrade-opset.precision, convert-fp16.precision"`.
        repeat: Run the passes again, at most so often, until none changes the graph.
    """

    name: str
    summary: str
    text: str
    options: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1


@dataclass(frozen=True)
class Listed:
    """One entry of a listing: the object, or what went wrong when it was loaded."""

    name: str
    owner: str
    value: Any
    problem: str = ""


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _entries(group: str) -> dict[str, list[EntryPoint]]:
    """Entry points by name. The same target listed twice (an editable install seen twice) is one owner."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: list(values.values()) for name, values in sorted(found.items())}


def _load(group: str, name: str, kind: str) -> Any:
    entries = _entries(group)
    if name not in entries:
        raise UsageError(f"unknown {kind} '{name}'{nearest(name, entries)}")
    owners = entries[name]
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
    return list(_entries(group))


def listing(group: str, kind: str) -> list[Listed]:
    """Everything in a group; what cannot be loaded is listed with its problem."""
    out = []
    for name, entries in _entries(group).items():
        try:
            out.append(Listed(name, _owner(entries[0]), _load(group, name, kind)))
        except (UsageError, OptimizationError) as error:
            out.append(Listed(name, _owner(entries[0]), None, str(error)))
    return out


def load_pass(name: str) -> type[Pass]:
    """The pass of this name.

    Raises:
        UsageError: Unknown (the nearest is suggested), or offered twice.
        OptimizationError: It cannot be imported, or is no pass.
    """
    value = _load(PASSES, name, "pass")
    if not (isinstance(value, type) and issubclass(value, Pass)) or value.name != name:
        raise OptimizationError(f"entry point '{name}' in group {PASSES} is no Pass with name = '{name}'")
    return value


def load_target(name: str) -> Target:
    """The target of this name, of a family the one for this machine; same errors as `load_pass`."""
    value = _load(TARGETS, name, "target")
    if isinstance(value, TargetFamily):
        return value.on(host.architecture(), host.features())
    if not isinstance(value, Target):
        raise OptimizationError(f"entry point '{name}' in group {TARGETS} is no Target")
    return value


def load_pipeline(name: str) -> NamedPipeline:
    """The named pipeline of this name; same errors as `load_pass`."""
    value = _load(PIPELINES, name, "pipeline")
    if not isinstance(value, NamedPipeline):
        raise OptimizationError(f"entry point '{name}' in group {PIPELINES} is no NamedPipeline")
    return value


def is_pipeline(name: str) -> bool:
    """Whether a name in pipeline text is a named pipeline. A pass of the same name is refused.

    Raises:
        UsageError: Neither, with the nearest name; or both.
    """
    pipelines, passes = _entries(PIPELINES), _entries(PASSES)
    if name in pipelines and name in passes:
        raise UsageError(f"'{name}' is both a pass and a pipeline; uninstall one of its owners")
    if name not in pipelines and name not in passes:
        raise UsageError(f"unknown pass '{name}'{nearest(name, [*passes, *pipelines])}")
    return name in pipelines
