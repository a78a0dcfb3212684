"""Finding passes, pipelines and targets, and what can be wrong with them."""

import pytest

from onnxopt import OptimizationError, UsageError, registry
from onnxopt.registry import PASSES, PIPELINES, TARGETS

MODULE = """
from onnxopt import Pass
from onnxopt.registry import NamedPipeline

class Mine(Pass):
    \"\"\"A pass.\"\"\"
    name = "mine"
    def run(self, graph, context):
        return False

TWO = NamedPipeline("two", "Two.", "mine,mine")
"""


def test_what_comes_with_onnxopt():
    assert "eliminate-dead" in registry.names(PASSES)
    assert registry.names(PASSES) == sorted(registry.names(PASSES))
    assert registry.load_pass("eliminate-dead").name == "eliminate-dead"
    assert registry.load_target("ort-arm").name == "ort-arm"
    assert "ort" in registry.names(TARGETS)


@pytest.fixture
def mine(distribute):
    groups = {PASSES: {"mine": "registry_plugin:Mine"}, PIPELINES: {"two": "registry_plugin:TWO"}}
    return distribute("mine-plugin", groups, registry_plugin=MODULE)


@pytest.mark.usefixtures("mine")
def test_a_plugin_is_found():
    assert registry.load_pass("mine").summary() == "A pass."
    assert registry.load_pipeline("two").text == "mine,mine"
    listed = {entry.name: entry for entry in registry.listing(PASSES, "pass")}
    assert listed["mine"].owner == "mine-plugin"
    assert listed["eliminate-dead"].owner == "onnxopt"
    assert not listed["mine"].problem


def test_nothing_is_imported_before_it_is_used(distribute):
    distribute("bomb", {PASSES: {"bomb": "bomb_plugin:Bomb"}}, bomb_plugin="raise SystemError('imported')")
    assert "bomb" in registry.names(PASSES)
    assert registry.load_pass("eliminate-dead")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("this is no Python", "SyntaxError"),
        ("", "AttributeError: module 'broken_plugin' has no attribute 'Broken'"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_rest_works(distribute, monkeypatch, text, problem):
    monkeypatch.delitem(__import__("sys").modules, "broken_plugin", raising=False)
    distribute("broken", {PASSES: {"broken": "broken_plugin:Broken"}}, broken_plugin=text)
    with pytest.raises(OptimizationError, match=f"pass 'broken' of broken cannot be imported: {problem}"):
        registry.load_pass("broken")
    listed = {entry.name: entry for entry in registry.listing(PASSES, "pass")}
    assert problem in listed["broken"].problem
    assert not listed["eliminate-dead"].problem


@pytest.mark.usefixtures("mine")
def test_two_owners_of_one_name_are_refused_naming_both(distribute):
    distribute("rival-plugin", {PASSES: {"mine": "rival:Mine"}}, rival=MODULE)
    with pytest.raises(UsageError, match=r"pass 'mine' is offered twice: by .*; uninstall one") as refusal:
        registry.load_pass("mine")
    assert "mine-plugin (registry_plugin:Mine)" in str(refusal.value)
    assert "rival-plugin (rival:Mine)" in str(refusal.value)
    listed = {entry.name: entry for entry in registry.listing(PASSES, "pass")}
    assert "offered twice" in listed["mine"].problem


@pytest.mark.usefixtures("mine")
def test_one_owner_seen_twice_is_one(distribute):
    """An editable installation beside a normal one."""
    distribute("mine-plugin-again", {PASSES: {"mine": "registry_plugin:Mine"}})
    assert registry.load_pass("mine")


@pytest.mark.usefixtures("mine")
def test_one_name_for_a_pass_and_a_pipeline_is_refused(distribute):
    distribute("confusing", {PIPELINES: {"mine": "registry_plugin:TWO"}})
    with pytest.raises(UsageError, match="'mine' is both a pass and a pipeline"):
        registry.is_pipeline("mine")


@pytest.mark.usefixtures("mine")
def test_telling_pipelines_from_passes():
    assert registry.is_pipeline("two")
    assert not registry.is_pipeline("mine")
    with pytest.raises(UsageError, match="unknown pass 'mime'; did you mean 'mine'"):
        registry.is_pipeline("mime")


@pytest.mark.usefixtures("mine")
def test_entry_points_that_hold_something_else(distribute):
    groups = {
        PASSES: {"other": "registry_plugin:Mine", "two-as-pass": "registry_plugin:TWO"},
        TARGETS: {"odd": "registry_plugin:TWO"},
        PIPELINES: {"odd": "registry_plugin:Mine"},
    }
    distribute("odd", groups)
    for load, name, problem in (
        (registry.load_pass, "other", "no Pass with name = 'other'"),
        (registry.load_pass, "two-as-pass", "is no Pass"),
        (registry.load_target, "odd", "is no Target"),
        (registry.load_pipeline, "odd", "is no NamedPipeline"),
    ):
        with pytest.raises(OptimizationError, match=problem):
            load(name)


@pytest.mark.parametrize(
    ("load", "name", "problem"),
    [
        (registry.load_pass, "eliminate-daed", "unknown pass 'eliminate-daed'; did you mean 'eliminate-dead'"),
        (registry.load_target, "ors", "unknown target 'ors'; did you mean 'ort'"),
        (registry.load_target, "tpu9000", "unknown target 'tpu9000'; known: .*ort"),
    ],
)
def test_unknown_names(load, name, problem):
    with pytest.raises(UsageError, match=problem):
        load(name)
