"""What onnxopt asks of a runtime: run a model, and say what it really did with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import onnx

from onnxopt.errors import Unloadable, UsageError
from onnxopt.graph import Array
from onnxopt.runtime import host
from onnxopt.targets import Target

_EXTRAS = {"openvino": "onnxopt[openvino]"}  # package to the name under which onnxopt asks for it
Feeds = Mapping[str, Array]
Model = onnx.ModelProto | bytes | str | Path


InputFacts = tuple[str, str, Sequence[int | str | None]]  # name, NumPy type, sizes; open ones are names or None


class Session(Protocol):
    """A loaded model."""

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; all outputs by name, or those asked for."""


@dataclass(frozen=True)
class Kernels:
    """What a runtime made of a graph.

    Attributes:
        int8: Names of the graph's nodes that run in an int8 kernel.
        floating: Names of weighted nodes that run in float.
        conversions: How many quantize, dequantize and layout conversions are left at run time, by kind.
    """

    int8: frozenset[str]
    floating: frozenset[str]
    conversions: dict[str, int] = field(default_factory=dict)


class Runtime(Protocol):
    """A runtime that is installed here."""

    @property
    def version(self) -> str:
        """Name and version."""

    def open(self, model: Model, *, threads: int = 1) -> Session:
        """Load a model as its users would, all optimizations on."""

    def kernels(self, model: onnx.ModelProto) -> Kernels:
        """Read back which kernels the runtime chose; node names of `model` must be unique."""


def prepared(session: Session, feeds: Feeds) -> Callable[[], object]:
    """A model on its inputs, to be run again and again: what `latency.compare` times, here or on a device."""
    prepare = getattr(session, "prepare", None)
    return prepare(feeds) if prepare is not None else partial(session.run, feeds)


@contextmanager
def naming_model(source: object) -> Iterator[None]:
    """Say which of the user's models it is that a runtime does not take: the fault is in what was given.

    Args:
        source: Its file.

    Raises:
        UsageError: It is not taken.
    """
    try:
        yield
    except Unloadable as error:
        raise UsageError(f"{source}: {error}") from error


def processor_of(runtime: Runtime | None) -> str:
    """Name of the processor that a runtime runs on: that of this machine, if it is not on a device."""
    return str(getattr(runtime, "processor", "")) or host.processor()


def load_runtime(target: Target) -> Runtime | None:
    """The target's runtime, or None where it cannot run on this machine, or not as on those the target is for.

    A target that is on a device (`onnxopt.device`) brings its runtime along.
    """
    if target.runtime is not None:
        return cast("Runtime", target.runtime)
    if _is_foreign(target):
        return None
    try:
        return _made(target)
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what a module in C++ makes of one while it is imported
            raise error.__cause__ from None
        return None


def needed_runtime(target: Target) -> Runtime:
    """The target's runtime.

    Raises:
        UsageError: It cannot run on this machine.
    """
    runtime = load_runtime(target)
    if runtime is None:
        hint = install_hint(target)
        raise UsageError(f"target '{target.name}' cannot run on this machine, so nothing can be timed{hint}")
    return runtime


def install_hint(target: Target) -> str:
    """What to install for the target to run here, as the end of a sentence; empty where no package is what it lacks."""
    if target.runtime is not None or _is_foreign(target):
        return ""
    try:
        _made(target)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        return f"; pip install '{_EXTRAS.get(package, package)}'" if package else ""
    except ImportError:  # there, but broken
        return ""
    return ""


def _is_foreign(target: Target) -> bool:
    """Whether it is for other machines than this one, or for none that onnxopt can use."""
    foreign = target.machine is not None and not target.machine.fits(host.architecture(), host.features())
    return foreign or not target.adapter


def _made(target: Target) -> Runtime:
    module, _, name = target.adapter.partition(":")
    return cast("Runtime", getattr(import_module(module), name)())
