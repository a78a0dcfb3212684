"""What this machine is."""

import os
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from onnxopt.runtime.runner import architecture, features, processor

__all__ = ["architecture", "channel_block", "cores", "features", "memory", "processor", "versions"]


def channel_block(extensions: Collection[str] | None = None) -> int:
    """Channels per block of a CPU's fast convolution kernels: 16 with AVX-512, else 8; default: of this one."""
    return 16 if "avx512f" in (features() if extensions is None else extensions) else 8


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this machine has; where it does not say, 64 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 64 * 2**30


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages, those that are there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
