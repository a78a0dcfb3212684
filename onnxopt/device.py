"""Targets on a device: what is said to run there, runs there."""

from collections.abc import Sequence
from dataclasses import replace

from onnxopt import registry
from onnxopt.errors import UsageError
from onnxopt.runtime import host
from onnxopt.runtime.remote import RemoteRuntime
from onnxopt.targets import Target


def target_on(device: str, name: str, options: Sequence[str] = ()) -> Target:
    """Connect to a device and give the target that fits it.

    What asks this target for its runtime (`load_runtime`) gets one whose models run and are timed there: passes that
    measure, the guard against slower models, budgets of latency, scores. The connection ends with the program, or
    when the target is gone.

    Args:
        device: Address, `ssh://user@host:port/path/of/python`; see `ssh.Address.parse`.
        name: Of the target; `ort` is taken for the device's processor.
        options: Of `ssh -o`.

    Raises:
        UsageError: The device cannot be reached or has no such runtime, or the target is for other machines.
        OptimizationError: The target cannot be imported.
    """
    runtime = RemoteRuntime(device, registry.load_target(name).adapter, options)
    table = registry.load_target(name, runtime.architecture, runtime.features)
    if table.machine is not None and not table.machine.fits(runtime.architecture, runtime.features):
        runtime.close()
        raise UsageError(f"target '{name}' is for {table.machine}, which {device} is not ({runtime.processor})")
    return replace(table, runtime=runtime, alignment=table.alignment or host.channel_block(runtime.features))
