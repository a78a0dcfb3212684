"""Recipes as TOML."""

import pytest

from onnxopt.errors import UsageError
from onnxopt.pipeline import parse
from onnxopt.recipe import Recipe, load_recipe


def write(folder, text):
    file = folder / "r.toml"
    file.write_text(text)
    return file


def test_round_trip(tmp_path):
    recipe = Recipe(
        parse('prune{ratio=0.3, scope=["a*", b], align=8},simplify'),
        target="ort",
        source='odd "name".csv',
        preprocess="imagenet",
        samples=12,
        calibration_table="ranges.json",
        max_drop="1%",
        metric="coco-map",
        never_slower=False,
    )
    assert load_recipe(write(tmp_path, str(recipe))) == recipe


def test_a_pipeline_of_nothing_is_written_and_read(tmp_path):
    recipe = Recipe(parse("simplify").__class__(()), never_slower=False)
    assert load_recipe(write(tmp_path, str(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2", "starts with `version = 1`"),
        ("version = true", "starts with `version = 1`"),
        ('version = 1\n[data]\nsamples = true\n[[pipeline]]\npass = "prune"', "samples = True has the wrong type"),
        ("version = 1\n[tarmet]\nname='ort'", "did you mean 'target'"),
        ("version = 1\n[data]\nsorce='x'\n[[pipeline]]\npass='simplify'", "did you mean 'source'"),
        ("version = 1\n[data]\nsamples='x'\n[[pipeline]]\npass='simplify'", "wrong type"),
        ("version = 1\n[budget]\nmax_drop=[]\n[[pipeline]]\npass='simplify'", "wrong type"),
        ("version = 1\n[budget]\nmax_dop=1\n[[pipeline]]\npass='simplify'", "did you mean 'max_drop'"),
        ("version = 1", "at least one"),
        ("version = 1\n[[pipeline]]\nratio = 1", "each"),
        ("version = ", "not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        load_recipe(write(tmp_path, text))


def test_one_that_is_nested_too_deep_is_no_recipe(tmp_path):
    (tmp_path / "r.toml").write_text("version = 1\npipeline = " + "[" * 20000 + "]" * 20000)
    with pytest.raises(UsageError, match=r"r\.toml: not a recipe: it is nested too deep"):
        load_recipe(tmp_path / "r.toml")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")
