"""What a model costs a process that does nothing else: memory, and time to its first answer.

Each figure comes from a process of its own, since memory that one model has used is not given back before the next.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from onnxopt.errors import OptimizationError
from onnxopt.runtime.adapter import Feeds

PROBE = "onnxopt.runtime.footprint_probe"
PATIENCE = 300  # seconds


@dataclass(frozen=True)
class Footprint:
    """What one process saw.

    Attributes:
        cold_start_ms: From opening the model's file to its first outputs; the runtime is imported already.
        peak_bytes: Largest resident memory until then, beyond what the process held before; None where the system
            does not tell (it does on Linux).
    """

    cold_start_ms: float
    peak_bytes: int | None


def measure_footprint(adapter: str, model: onnx.ModelProto, feeds: Feeds, *, times: int = 3) -> Footprint:
    """Measure in new processes, one after the other.

    Args:
        adapter: `module:class` of the runtime, as a target has it.
        model: The model.
        feeds: What to run it on.
        times: How many processes; the median of each figure is returned.

    Raises:
        OptimizationError: A process cannot run the model; carries its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, arrays = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        file.write_bytes(model.SerializeToString())
        np.savez(arrays, *feeds.values())
        names = json.dumps(list(feeds))
        found = [_ask([adapter, str(file), str(arrays), names]) for _ in range(times)]
    peaks = [one.peak_bytes for one in found if one.peak_bytes is not None]
    return Footprint(median(one.cold_start_ms for one in found), int(median(peaks)) if peaks else None)


def _ask(arguments: list[str]) -> Footprint:
    command = [sys.executable, "-m", PROBE, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)  # noqa: S603
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip().rpartition("\n")[2]
        raise OptimizationError(f"a process of its own cannot run the model: {words}") from None
    except subprocess.TimeoutExpired:
        raise OptimizationError(f"a process of its own took more than {PATIENCE} s to run the model") from None
    return Footprint(**json.loads(done.stdout.rpartition("\n")[2] or done.stdout))
