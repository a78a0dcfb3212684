"""Finding passes, named pipelines and targets through entry points: built-ins and third parties alike."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from onnxopt.errors import OptimizationError, UsageError, nearest
from onnxopt.pass_api import Pass
from onnxopt.plugins import Listed, entries, listing, load, names
from onnxopt.runtime import host
from onnxopt.targets import Target, TargetFamily

__all__ = [
    "PASSES",
    "PIPELINES",
    "TARGETS",
    "Listed",
    "NamedPipeline",
    "is_pipeline",
    "listing",
    "load_pass",
    "load_pipeline",
    "load_target",
    "names",
]

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


def load_pass(name: str) -> type[Pass]:
    """The pass of this name.

    Raises:
        UsageError: Unknown (the nearest is suggested), or offered twice.
        OptimizationError: It cannot be imported, or is no pass.
    """
    value = load(PASSES, name, "pass")
    if not (isinstance(value, type) and issubclass(value, Pass)) or value.name != name:
        raise OptimizationError(f"entry point '{name}' in group {PASSES} is no Pass with name = '{name}'")
    return value


def load_target(name: str, architecture: str | None = None, features: Collection[str] = ()) -> Target:
    """The target of this name; same errors as `load_pass`.

    Args:
        name: Of the target, or of a family, of which the table for the machine is taken.
        architecture: Of the machine, `x86_64` or `aarch64`; default: this machine.
        features: Its instruction set extensions.
    """
    value = load(TARGETS, name, "target")
    if isinstance(value, TargetFamily):
        machine = (host.architecture(), host.features()) if architecture is None else (architecture, features)
        return value.on(*machine)
    if not isinstance(value, Target):
        raise OptimizationError(f"entry point '{name}' in group {TARGETS} is no Target")
    return value


def load_pipeline(name: str) -> NamedPipeline:
    """The named pipeline of this name; same errors as `load_pass`."""
    value = load(PIPELINES, name, "pipeline")
    if not isinstance(value, NamedPipeline):
        raise OptimizationError(f"entry point '{name}' in group {PIPELINES} is no NamedPipeline")
    return value


def is_pipeline(name: str) -> bool:
    """Whether a name in pipeline text is a named pipeline. A pass of the same name is refused.

    Raises:
        UsageError: Neither, with the nearest name; or both.
    """
    pipelines, passes = entries(PIPELINES), entries(PASSES)
    if name in pipelines and name in passes:
        raise UsageError(f"'{name}' is both a pass and a pipeline; uninstall one of its owners")
    if name not in pipelines and name not in passes:
        raise UsageError(f"unknown pass '{name}'{nearest(name, [*passes, *pipelines])}")
    return name in pipelines
