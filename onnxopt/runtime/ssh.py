"""A device reached by the system's `ssh`: its address, and the runner started there.

Keys, names and gateways are the user's own affair: what `ssh HOST` uses is used. It never asks (`BatchMode`), so that
nothing hangs on a prompt. The runner's text goes through the pipe to the Python there; nothing is installed, and the
runner removes its folder when the connection ends, however it ends.
"""

import contextlib
import shlex
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import PurePosixPath
from typing import IO, Any, Self
from urllib.parse import urlsplit

from onnxopt.errors import OnnxoptError, OptimizationError, UsageError
from onnxopt.runtime.runner import GREETING, read_message, write_message

EXAMPLE = "ssh://user@host, ssh://host:2222 or, with a Python of your choice there, ssh://host/opt/venv/bin/python"
OPTIONS = ("ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")  # the user's own come first
LONGEST_BANNER = 1 << 16  # bytes that a login shell may print before the runner speaks
PATIENCE = 10  # seconds in which a runner whose input has ended cleans up


@dataclass(frozen=True)
class Address:
    """Where a device is.

    Attributes:
        host: Name or address, or an alias of the user's ssh configuration.
        user: None for the one that ssh would take.
        port: None for the one that ssh would take.
        python: The Python there.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ssh://user@host:port/path/of/python`; all but the host may be left out.

        Raises:
            UsageError: It is none.
        """
        try:
            parts = urlsplit(text)
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise UsageError(f"'{text}' is no address of a device ({error}); give {EXAMPLE}") from None
        if parts.scheme != "ssh" or not host or parts.query or parts.fragment:
            raise UsageError(f"'{text}' is no address of a device; give {EXAMPLE}")
        if parts.password is not None:
            raise UsageError(f"a password does not belong into an address: let ssh log in at {host} with a key")
        if host.startswith("-") or (parts.username or "").startswith("-"):
            raise UsageError(f"'{text}' would be an option of ssh; give {EXAMPLE}")
        return cls(host, parts.username, port, parts.path if parts.path.strip("/") else cls.python)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}{self.python if self.python != 'python3' else ''}"

    def arguments(self) -> list[str]:
        """What `ssh` is called with for it."""
        return [*(["-p", str(self.port)] if self.port else []), f"{self.user}@{self.host}" if self.user else self.host]


class Connection:
    """A runner that waits for requests on a device.

    Args:
        address: Of the device.
        options: Of `ssh -o`, e.g. `IdentityFile=~/.ssh/board`.

    Raises:
        UsageError: The device cannot be reached, refuses the login, or has no fitting Python.
    """

    def __init__(self, address: Address, options: Sequence[str] = ()) -> None:
        self.address = address
        self._lock = threading.Lock()  # one question at a time, whichever thread asks
        text = files("onnxopt.runtime").joinpath("runner.py").read_bytes()
        chosen = [argument for option in ("BatchMode=yes", *options, *OPTIONS) for argument in ("-o", option)]
        command = ["ssh", "-T", *chosen, *address.arguments(), _remote_command(address.python, len(text))]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `_end`)
        try:
            self._process = subprocess.Popen(  # noqa: S603  (ssh, on the user's own word)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words
            )
        except FileNotFoundError:
            self._words.close()
            raise UsageError("there is no ssh on this machine; install OpenSSH's client") from None
        # Also when this program ends, or nobody holds the connection any more.
        self._finalizer = weakref.finalize(self, _end, self._process, self._words)
        try:
            self._send.write(text)
            self._send.flush()
            self._skip_banner()
        except (EOFError, BrokenPipeError):
            raise self._failure() from None

    @property
    def _send(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _receive(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def ask(self, request: dict[str, Any], parts: Sequence[bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and wait for the reply.

        Raises:
            RunnerError: The runner could not do it.
            UsageError: The connection is lost.
            OptimizationError: The runner ended, or the connection is closed.
        """
        with self._lock:
            if not self._finalizer.alive:
                raise OptimizationError(f"the connection to {self.address} is closed")
            try:
                write_message(self._send, request, parts)
                reply, contents = read_message(self._receive)
            except (EOFError, BrokenPipeError):
                raise self._failure() from None
            except BaseException:
                self.close()  # half a message is on its way, so nothing more can be asked
                raise
        if "error" in reply:
            raise RunnerError(reply["error"], reply["kind"])
        return reply, contents

    def close(self) -> None:
        """End the runner; it removes what it has stored."""
        self._finalizer()

    def _skip_banner(self) -> None:
        seen = b""
        while not seen.endswith(GREETING):
            piece = self._receive.readline(LONGEST_BANNER)
            if not piece or len(seen) > LONGEST_BANNER:
                raise EOFError
            seen += piece

    def _failure(self) -> OnnxoptError:
        """Why the runner does not answer, in a sentence."""
        with contextlib.suppress(OSError):
            self._send.close()
        code = _wait(self._process)
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        self.close()
        return explain(self.address, code, lines)


class RunnerError(Exception):
    """What the runner could not do, in the runtime's words.

    Attributes:
        kind: Class of the exception there.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def _remote_command(python: str, length: int) -> str:
    """What the login shell there runs: Python, with a program that reads the runner from its input."""
    old = f"{PurePosixPath(python).name} is too old: onnxopt measures with Python 3.8 or later"
    program = (
        f"import sys; sys.version_info >= (3, 8) or sys.exit({old!r}); "
        f"exec(compile(sys.stdin.buffer.read({length}), 'onnxopt-runner', 'exec'))"
    )
    return f"exec {shlex.quote(python)} -c {shlex.quote(program)}"


def _end(process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    _wait(process)
    words.close()


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Exit status; what does not end by itself is made to."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


def explain(address: Address, code: int, lines: Sequence[str]) -> OnnxoptError:
    """What it means that `ssh` ended.

    Args:
        address: Where it was to go.
        code: Its exit status: 255 is its own, others are those of the command there.
        lines: What it, or the command, printed as errors.
    """
    last, said = lines[-1] if lines else f"exit status {code}", "\n".join(lines)
    by_hand, other = " ".join(["ssh", *address.arguments()]), replace(address, python="/path/of/python")
    if "Permission denied (" in said:
        problem = (
            f"{address} refuses the login ({last}): put your public key there (ssh-copy-id), or name the key with "
            "--ssh-option IdentityFile=FILE"
        )
    elif "Host key verification failed" in said:
        problem = f"ssh does not trust {address} yet, or no longer: look at its key with `{by_hand}`"
    elif code == 255:
        problem = f"{address} cannot be reached: {last}"
    elif code in {126, 127}:
        problem = f"{address.host} has no {address.python}; name a Python that is there: {other}"
    elif "No module named 'numpy'" in last:
        problem = missing(address, "numpy")
    elif "is too old" in last:
        problem = f"{address.host}: {last}; name another: {other}"
    else:
        return OptimizationError(f"{address}: the runner ended: {last}")
    return UsageError(problem)


def missing(address: Address, package: str) -> str:
    """What to do about a package that a device lacks."""
    return (
        f"{address.python} on {address.host} has no {package}: install it there ({address.python} -m pip install "
        f"{package}), or name a Python that has it: {replace(address, python='/path/of/python')}"
    )
