"""`bench --device`: over the loopback address it says what it says here, and why where it cannot."""

import json
import socket
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest


def test_it_is_timed_there(onnxopt, net, device):
    result = onnxopt("bench", net, net, "--rounds", 5, "--device", device.url(), *device.arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["device"] == device.url()
    assert document["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert document["processor"]
    assert document["models"][0]["speedup"] == 1


def refused(onnxopt, net, *arguments: object) -> str:
    result = onnxopt("bench", net, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    return error


def test_an_unreachable_host(onnxopt, net, device):
    with socket.socket() as taken:  # nobody listens on it
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = refused(onnxopt, net, "--device", f"ssh://127.0.0.1:{port}", *device.arguments)
    assert f"ssh://127.0.0.1:{port} cannot be reached: " in error
    assert "Connection refused" in error


def test_a_wrong_key(onnxopt, net, device):
    wrong = [a.replace("/user", "/host") if a.startswith("IdentityFile") else a for a in device.arguments]
    error = refused(onnxopt, net, "--device", device.url(), *wrong)
    assert "refuses the login" in error
    assert "--ssh-option IdentityFile=FILE" in error


def test_an_unknown_host_key(onnxopt, net, device, tmp_path):
    arguments = [f"UserKnownHostsFile={tmp_path}/none" if "KnownHosts" in a else a for a in device.arguments]
    assert "look at its key with `ssh -p" in refused(onnxopt, net, "--device", device.url(), *arguments)


@pytest.fixture
def without(tmp_path):
    """A Python that has no package but those named."""

    def make(*packages: str) -> Path:
        site = Path(np.__file__).parents[1]
        (tmp_path / "site").mkdir()
        for package in packages:
            (tmp_path / "site" / package).symlink_to(site / package)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} -S "$@"\n')
        python.chmod(0o755)
        return python

    return make


def test_a_host_without_a_runtime(onnxopt, net, device, without):
    python = without("numpy", "numpy.libs")
    error = refused(onnxopt, net, "--device", device.url(python), *device.arguments)
    assert f"{python} on 127.0.0.1 has no onnxruntime: install it there ({python} -m pip install onnxruntime)" in error


def test_a_host_without_numpy(onnxopt, net, device, without):
    assert "has no numpy: install it there" in refused(
        onnxopt, net, "--device", device.url(without()), *device.arguments
    )


def test_a_host_without_that_python(onnxopt, net, device):
    error = refused(onnxopt, net, "--device", device.url("/no/python"), *device.arguments)
    assert "127.0.0.1 has no /no/python; name a Python that is there: " in error


def test_options_of_ssh_need_a_device(onnxopt, net):
    assert "--ssh-option goes with --device" in refused(onnxopt, net, "--ssh-option", "User=pi")
