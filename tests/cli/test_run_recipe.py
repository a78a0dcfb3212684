"""`onnxopt run --recipe`: what comes from the recipe is said to."""

import pytest


@pytest.fixture
def picky(tmp_path, monkeypatch):
    """A recipe with the data `pics`, and a current folder beside its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    file = tmp_path / "home" / "r.toml"
    file.write_text('version = 1\n[data]\nsource = "pics"\n[[pipeline]]\npass = "simplify"\n')
    return file


def test_missing_data_of_a_recipe_are_said_to_be_its_own(picky, onnxopt, net):
    result = onnxopt("run", net, "--recipe", picky)
    assert result.exit_code == 2
    cwd = picky.parent.parent / "away"
    assert f"the data pics of the recipe {picky} do not exist: its paths start at the current folder, {cwd}" in (
        result.stderr.replace("\n", " ")
    )
    assert "; give" not in result.stderr
    (picky.parent / "pics").mkdir()
    assert f"; give {picky.parent}/pics with --data, or run from {picky.parent}" in (
        onnxopt("run", net, "--recipe", picky).stderr
    )


def test_missing_data_of_the_command_line_are_not_the_recipe_s(picky, onnxopt, net):
    result = onnxopt("run", net, "--recipe", picky, "--data", "other")
    assert result.exit_code == 2
    assert "the data other does not exist" in result.stderr
    assert "recipe" not in result.stderr


def test_a_pipeline_that_replaces_the_recipe_s_is_said(picky, onnxopt, net):
    (picky.parent.parent / "away" / "pics").touch()
    result = onnxopt("run", net, "--recipe", picky, "--passes", "fold-constants")
    assert f"--passes is run in place of the pipeline of {picky}" in result.stderr
    assert "in place of" not in onnxopt("run", net, "--recipe", picky).stderr
