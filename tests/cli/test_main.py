"""The group: help without heavy imports, and errors as one sentence."""

import subprocess
import sys

import pytest

from onnxopt import OptimizationError, UsageError, registry
from onnxopt.cli.main import main

COMMANDS = [
    "run",
    "auto",
    "eval",
    "doctor",
    "inspect",
    "explain",
    "profile",
    "compare",
    "bench",
    "bisect",
    "batch",
    "passes",
    "targets",
    "new-pass",
]


def test_help_names_all_commands(onnxopt):
    result = onnxopt("--help")
    assert result.exit_code == 0
    listed = result.stdout.split("Commands:")[1].splitlines()[1:]
    assert [line.split()[0] for line in listed] == COMMANDS
    assert not [line for line in listed if line.endswith("...")]


def test_help_needs_click_alone():
    program = (
        "import sys\n"
        "from onnxopt.cli.main import main\n"
        "try:\n    main(['--help'], prog_name='onnxopt')\n"
        "except SystemExit as done:\n    assert done.code == 0\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'numba', 'onnx_graphsurgeon') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [c.split() for c in [*COMMANDS, "passes list", "passes show", "targets show"]])
def test_every_command_has_help(onnxopt, command):
    result = onnxopt(*command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 4


def test_version(onnxopt):
    assert onnxopt("--version").stdout.startswith("onnxopt, version ")


def test_interrupted_while_modules_are_read():
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from onnxopt.cli.main import main\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_interrupted_while_the_command_line_is_read(onnxopt, monkeypatch):
    def interrupt(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "parse_args", interrupt)
    result = onnxopt("passes", "list")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_unknown_command(onnxopt):
    result = onnxopt("frobnicate")
    assert result.exit_code == 2
    assert "No such command 'frobnicate'" in result.stderr


def raising(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(registry, "listing", fail)


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (OptimizationError, 1)])
def test_errors_are_one_sentence(onnxopt, monkeypatch, kind, code):
    raising(monkeypatch, kind("that cannot be; do this"))
    result = onnxopt("passes", "list")
    assert result.exit_code == code
    assert result.stderr == "Error: that cannot be; do this\n"
    assert result.stdout == ""


def test_notes_of_causes_are_shown(onnxopt, monkeypatch):
    cause = ZeroDivisionError()
    cause.add_note("to see it again: do that")
    error = OptimizationError("it failed")
    error.__cause__ = cause
    raising(monkeypatch, error)
    assert onnxopt("passes", "list").stderr == "Error: it failed\nto see it again: do that\n"


def test_too_little_memory_is_no_fault_of_our_own(onnxopt, monkeypatch):
    raising(monkeypatch, MemoryError("no 5 GiB"))
    result = onnxopt("passes", "list")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: there is not enough memory (no 5 GiB); give fewer samples at once, or smaller ones\n"
    )


def test_faults_of_our_own(onnxopt, monkeypatch):
    raising(monkeypatch, ZeroDivisionError("by zero"))
    result = onnxopt("passes", "list")
    assert result.exit_code == 1
    assert "onnxopt has a fault (ZeroDivisionError: by zero)" in result.stderr
    assert "Please report it" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "Error: the output: No space left on device\n"),
        (PermissionError(13, "Permission denied", "data.yaml"), "Error: data.yaml: Permission denied\n"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(onnxopt, monkeypatch, error, said):
    raising(monkeypatch, error)
    result = onnxopt("passes", "list")
    assert (result.exit_code, result.stderr) == (2, said)


@pytest.mark.parametrize("kind", [UsageError, ZeroDivisionError])
def test_debug_shows_the_traceback(onnxopt, monkeypatch, kind):
    raising(monkeypatch, kind("here"))
    assert isinstance(onnxopt("--debug", "passes", "list").exception, kind)


def test_interrupt(onnxopt, monkeypatch):
    raising(monkeypatch, KeyboardInterrupt())
    assert onnxopt("passes", "list").exit_code == 130


@pytest.mark.parametrize("kind", [ImportError, UsageError])
def test_interrupt_that_a_package_made_an_error_of(onnxopt, monkeypatch, kind):
    """Modules in C++ that are interrupted while they are imported say `ImportError: initialization failed`."""
    error = kind("initialization failed")
    error.__context__ = ImportError()
    error.__context__.__cause__ = KeyboardInterrupt()
    raising(monkeypatch, error)
    result = onnxopt("passes", "list")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_a_closed_pipe_is_no_fault():
    """`onnxopt … | head -0` ends quietly."""
    program = "import sys; from onnxopt.cli.main import main; main(['passes', 'list'])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert errors == b""


def test_the_group_is_the_entry_point():
    from importlib.metadata import entry_points

    (point,) = {e.value: e for e in entry_points(group="console_scripts", name="onnxopt")}.values()
    assert point.load() is main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "m.onnx", "--passes", "simplify", "--data", ""], "--data is empty; give a folder or file"),
        (["eval", "m.onnx", "--data="], "--data is empty; give a folder or file"),
        (["doctor", "m.onnx", "--data", " "], "--data is empty; give a folder or file"),
        (["auto", "m.onnx", "--data", "x", "--eval-data", ""], "--eval-data is empty; give a folder or file"),
        (["run", "m.onnx", "--passes", "simplify", "-o", ""], "-o / --output is empty; give it a value"),
        (["run", "m.onnx", "--recipe", ""], "--recipe is empty; give it a value, or leave it out"),
        (["run", "", "--passes", "simplify"], "MODEL is empty; give it a value"),
        (["run", "m.onnx", "--passes", "simplify", "--input-shape", "1x3", "--input-shape", ""], "shape is empty"),
    ],
)
def test_empty_words_are_refused(onnxopt, words, said):
    """As a path one would be the current folder."""
    result = onnxopt(*words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("option", ["--target", "--data"])
def test_an_option_that_is_given_twice_is_refused(onnxopt, option):
    """Else the last one wins, silently."""
    result = onnxopt("run", "m.onnx", "--passes", "simplify", option, "a", f"{option}=b")
    assert result.exit_code == 2
    assert f"{option} is given twice; give it once" in result.stderr


def test_flags_and_options_for_several_may_be_repeated(onnxopt, net):
    words = ("--force", "--force", "--report", net.parent / "a.json", "--report", net.parent / "b.json")
    result = onnxopt("run", net, "--passes", "simplify", "--verify", "off", *words)
    assert result.exit_code == 0, result.output
