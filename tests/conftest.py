"""What all tests share: the switch for slow ones, distributions that offer plug-ins, and a device behind ssh."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

collect_ignore = ["plugin"]  # a project of its own; test_plugin.py installs it and runs its tests

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="Run the tests that take seconds, too.")
    parser.addoption(
        "--emulate", metavar="FOLDER", help="Run other machines' tests: what tests/targets/emulate.sh made."
    )
    parser.addoption("--ultralytics", metavar="PYTHON", help="Let Ultralytics load results: a Python that has it.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture
def distribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a distribution: its name, entry points by group, and modules by name."""

    def install(name: str, groups: dict[str, dict[str, str]], **modules: str) -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(site)
        return site

    return install


@dataclass(frozen=True)
class SshDevice:
    """This machine, behind an ssh server of its own on the loopback address."""

    port: int
    options: tuple[str, ...]

    def url(self, python: str | Path = sys.executable) -> str:
        """Its address, with a Python."""
        return f"ssh://127.0.0.1:{self.port}{python}"

    @property
    def arguments(self) -> list[str]:
        """What the command line is told besides."""
        return [word for option in self.options for word in ("--ssh-option", option)]


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshDevice]:
    """An ssh server with a key of its own, run by the current user."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client and server (sshd)")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    with contextlib.suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)  # root's sshd wants it; it is made when the machine starts
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", folder / "config", "-p", str(port)], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        known = ("IdentitiesOnly=yes", f"UserKnownHostsFile={folder}/known", "LogLevel=ERROR")
        yield SshDevice(port, (f"IdentityFile={folder}/user", *known))
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip()}")
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")
