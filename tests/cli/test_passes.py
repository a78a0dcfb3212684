"""`onnxopt passes` and `onnxopt targets`."""

import pytest

from onnxopt import registry

PIPELINE = """from onnxopt.registry import NamedPipeline
TIDY = NamedPipeline("tidy", "Tidy up.", "eliminate-dead", {"much": "eliminate-dead.limit"}, repeat=3)
"""
GROUP = {
    "onnxopt.passes": {"no-module": "not_there:NoPass", "no-pass": "tidy_plugin:TIDY"},
    "onnxopt.pipelines": {"tidy": "tidy_plugin:TIDY"},
    "onnxopt.targets": {"no-target": "not_there:TARGET", "odd-target": "tidy_plugin:TIDY"},
}


@pytest.fixture
def plugins(distribute):
    distribute("tidy-plugin", GROUP, tidy_plugin=PIPELINE)


def lines(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line}


def test_list_shows_every_pass(onnxopt):
    result = onnxopt("passes", "list")
    assert result.exit_code == 0
    listed = lines(result.stdout)
    names = [*registry.names(registry.PASSES), *registry.names(registry.PIPELINES)]
    assert set(names) <= set(listed)
    assert listed["eliminate-dead"].split(maxsplit=2)[1:] == [
        "exact",
        registry.load_pass("eliminate-dead").summary(),
    ]


@pytest.mark.usefixtures("plugins")
def test_broken_plugins_are_listed_with_their_problem(onnxopt):
    result = onnxopt("passes", "list")
    assert result.exit_code == 0
    listed = lines(result.stdout)
    assert "broken" in listed["no-module"]
    assert "ModuleNotFoundError: No module named 'not_there'" in listed["no-module"]
    assert "of tidy-plugin" in listed["no-module"]
    assert "broken" in listed["no-pass"]
    assert listed["tidy"].split(maxsplit=1)[1] == "Tidy up."
    assert "exact" in listed["eliminate-dead"]


def test_show_a_pass(onnxopt):
    result = onnxopt("passes", "show", "prune")
    assert result.exit_code == 0
    text = result.stdout
    assert text.startswith("prune: Remove channels")
    assert "effect:  lossy: outputs change" in text
    assert "from:    onnxopt" in text
    ratio = next(line for line in text.splitlines() if line.startswith("  ratio"))
    assert "number, 0 to 1" in ratio


@pytest.mark.usefixtures("plugins")
def test_show_a_pipeline(onnxopt):
    text = onnxopt("passes", "show", "tidy").stdout
    assert "runs:     eliminate-dead" in text
    assert "from:     tidy-plugin" in text
    assert "at most 3 times" in text
    assert "much  eliminate-dead.limit" in text


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("eliminate-ded", 2, "unknown pass 'eliminate-ded'; did you mean 'eliminate-dead'?"),
        ("no-module", 1, "cannot be imported"),
        ("no-pass", 1, "is no Pass"),
    ],
)
def test_show_what_is_not_there(onnxopt, name, code, problem):
    result = onnxopt("passes", "show", name)
    assert result.exit_code == code
    assert problem in result.stderr


@pytest.mark.usefixtures("plugins")
def test_list_targets(onnxopt):
    result = onnxopt("targets", "list")
    assert result.exit_code == 0
    listed = lines(result.stdout)
    assert "onnxruntime 1." in listed["ort"]
    assert listed["ort"].split()[-1] == registry.load_target("ort").name
    assert "broken" in listed["no-target"]
    assert "is no Target" in listed["odd-target"]


def test_show_a_target(onnxopt):
    result = onnxopt("targets", "show", "ort-vnni")
    assert result.exit_code == 0
    assert "activation         uint8, with zero point" in result.stdout
    assert lines(result.stdout)["Conv"].split() == ["Conv", "anchor", "Q", "behind", "it"]


def test_show_what_a_variant_changes(onnxopt):
    assert "-64 to 64" in onnxopt("targets", "show", "ort-avx2").stdout
    assert "machine            aarch64" in onnxopt("targets", "show", "ort-arm").stdout


def test_unknown_target(onnxopt):
    result = onnxopt("targets", "show", "orf")
    assert result.exit_code == 2
    assert "unknown target 'orf'; did you mean 'ort'?" in result.stderr
