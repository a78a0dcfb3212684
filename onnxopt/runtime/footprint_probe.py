"""The process that `footprint` starts: loads one model, runs it once, and prints what that took, as JSON."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(adapter: str, model: str, arrays: str, names: str) -> None:
    """Load, run, print.

    Args:
        adapter: `module:class` of the runtime.
        model: The model's file.
        arrays: NumPy archive of its inputs.
        names: Their names, in the archive's order, as JSON.
    """
    module, _, name = adapter.partition(":")
    runtime = getattr(import_module(module), name)()
    with np.load(arrays) as stored:
        feeds = dict(zip(json.loads(names), (stored[key] for key in stored.files), strict=True))
    held = _start_watching()
    began = time.perf_counter()
    runtime.open(model).run(feeds)
    taken = (time.perf_counter() - began) * 1000
    peak = _read("VmHWM")
    print(json.dumps({"cold_start_ms": taken, "peak_bytes": peak - held if peak and held else None}))  # noqa: T201


def _start_watching() -> int:
    """Forget the peak so far, where the system lets us, and return what is resident now."""
    try:
        RESET.write_text("5")
    except OSError:
        return 0
    return _read("VmRSS")


def _read(field: str) -> int:
    """Bytes of one line of the process's status; 0 where there is none."""
    if not STATUS.is_file():
        return 0
    lines = (line.split() for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return next((int(words[1]) * 1024 for words in lines), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
