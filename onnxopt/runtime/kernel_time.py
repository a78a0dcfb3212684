"""How long each kernel of a runtime takes, as the runtime's own profiler says."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import onnx

from onnxopt.runtime.adapter import Feeds

WARM_UP = 3  # runs of a profiled session that do not count


@dataclass(frozen=True)
class KernelTime:
    """One kernel that a runtime executes, and how long it takes.

    Attributes:
        name: What the runtime calls it; unique in one model.
        op: The runtime's name for its operation.
        milliseconds: Of one run that nothing disturbed; see `undisturbed`.
        precision: What it computes in, e.g. `int8`, `float32`, `bfloat16`.
        origins: Names of nodes or tensors of the model that it stands for, as far as the runtime tells; may hold names
            that the model does not know.
        readers: Names of the kernels that read what it writes.
        moved: Bytes of activations that it reads and writes; weights are not among them.
    """

    name: str
    op: str
    milliseconds: float
    precision: str
    origins: tuple[str, ...]
    readers: tuple[str, ...]
    moved: int


@runtime_checkable
class Profiler(Protocol):
    """A runtime that says how long its kernels take."""

    def kernel_times(self, model: onnx.ModelProto, feeds: Feeds, *, runs: int, threads: int = 1) -> list[KernelTime]:
        """Run a model so many times and tell the time of each kernel, in order of execution."""


def undisturbed(times: list[float]) -> float:
    """Mean of the fastest quarter: what is left out are the runs into which other work on the machine broke.

    A mean, since profilers count whole microseconds, of which small kernels take few.
    """
    ordered = np.sort(np.asarray(times, np.float64))
    return float(ordered[: max(1, len(ordered) // 4)].mean())
