"""What this machine is."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def _cpuinfo() -> dict[str, str]:
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def processor() -> str:
    """Name of the processor."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def architecture() -> str:
    """Instruction set as Linux names it, e.g. `x86_64` or `aarch64`."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def features() -> frozenset[str]:
    """Instruction set extensions as Linux names them, e.g. `avx512f`; empty where not known."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def channel_block() -> int:
    """Channels per block of the CPU's fast convolution kernels: 16 with AVX-512, else 8."""
    return 16 if "avx512f" in features() else 8


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages, those that are there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
