"""Addresses of devices, and what it means that ssh ends."""

import pytest

from onnxopt.errors import OptimizationError, UsageError
from onnxopt.runtime.ssh import Address, Connection, explain


@pytest.mark.parametrize(
    ("text", "address", "arguments"),
    [
        ("ssh://board", Address("board"), ["board"]),
        ("ssh://pi@board:2222", Address("board", "pi", 2222), ["-p", "2222", "pi@board"]),
        ("ssh://board/opt/venv/bin/python", Address("board", python="/opt/venv/bin/python"), ["board"]),
        ("ssh://pi@[fe80::1]:22", Address("fe80::1", "pi", 22), ["-p", "22", "pi@fe80::1"]),
    ],
)
def test_addresses(text, address, arguments):
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.arguments() == arguments


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("board", "'board' is no address of a device"),
        ("http://board", "is no address of a device"),
        ("ssh://", "is no address of a device"),
        ("ssh://board:port", "is no address of a device"),
        ("ssh://board?python=x", "is no address of a device"),
        ("ssh://pi:secret@board", "let ssh log in at board with a key"),
        ("ssh://-oProxyCommand=touch", "would be an option of ssh"),
        ("ssh://-v@board", "would be an option of ssh"),
    ],
)
def test_what_is_no_address(text, problem):
    with pytest.raises(UsageError, match=problem):
        Address.parse(text)


@pytest.mark.parametrize(
    ("code", "line", "kind", "problem"),
    [
        (255, "pi@board: Permission denied (publickey).", UsageError, "refuses the login"),
        (255, "Host key verification failed.", UsageError, "look at its key with `ssh -p 22 pi@board`"),
        (255, "ssh: connect to host board port 22: No route to host", UsageError, "cannot be reached: .*No route"),
        (127, "sh: 1: exec: python3: not found", UsageError, "board has no python3; name a Python that is there"),
        (
            1,
            "python3 is too old: onnxopt measures with Python 3.8 or later",
            UsageError,
            "name another: ssh://pi@board",
        ),
        (1, "ModuleNotFoundError: No module named 'numpy'", UsageError, "-m pip install numpy"),
        (137, "Killed", OptimizationError, "the runner ended: Killed"),
    ],
)
def test_why_ssh_ended(code, line, kind, problem):
    error = explain(Address("board", "pi", 22), code, ["a banner", line])
    assert isinstance(error, kind)
    with pytest.raises(kind, match=problem):
        raise error


def test_no_ssh_here(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no ssh on this machine"):
        Connection(Address("board"))
