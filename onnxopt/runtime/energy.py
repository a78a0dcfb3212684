"""Energy of one run, where the machine lets it be read: Intel's and AMD's RAPL counters as Linux shows them.

https://www.kernel.org/doc/html/latest/power/powercap/powercap.html. They count whole processor packages, whatever runs
on them, so the figure holds for a machine that does nothing else.
"""

import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
SECONDS = 2.0  # long beside the counters' millisecond


class EnergyMeter:
    """The counters of all packages.

    Args:
        folder: Where the system shows them.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = [f for f in sorted(folder.glob("*-rapl:*")) if f.name.count(":") == 1]

    @property
    def readable(self) -> bool:
        """Whether there are counters and this user may read them."""
        return bool(self._packages) and all(self._read(package) is not None for package in self._packages)

    def millijoules(self, run: Callable[[], object], *, seconds: float = SECONDS) -> float | None:
        """Energy of one call of `run`, over as many as fit into the time; None where it cannot be read."""
        before = [self._read(package) for package in self._packages]
        runs, began = 0, time.perf_counter()
        while not runs or time.perf_counter() - began < seconds:
            run()
            runs += 1
        after = [self._read(package) for package in self._packages]
        total = 0.0
        for package, first, last in zip(self._packages, before, after, strict=True):
            if first is None or last is None:
                return None
            total += last - first if last >= first else last - first + self._limit(package)
        return total / 1000 / runs if self._packages else None

    @staticmethod
    def _read(package: Path) -> int | None:
        """Microjoules since some time; None where this user may not know."""
        try:
            return int((package / "energy_uj").read_text())
        except (OSError, ValueError):
            return None

    @staticmethod
    def _limit(package: Path) -> int:
        """Where the counter begins again."""
        return int((package / "max_energy_range_uj").read_text())
