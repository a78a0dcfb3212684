"""`recipe.lock`: what it says, and what it notices."""

from dataclasses import replace

import pytest

from onnxopt.errors import UsageError
from onnxopt.lock import Lock, load_lock, lock_now
from onnxopt.pipeline import parse
from onnxopt.recipe import Recipe

LOCK = Lock("abc", "ort-vnni", {"numpy": "2.0"}, {"a.onnx": "d1"})


def test_it_reads_what_it_wrote(tmp_path):
    lock = lock_now(Recipe(parse("simplify")), "ort-vnni", {'odd "name".onnx': "d"})
    (tmp_path / "recipe.lock").write_text(str(lock))
    assert load_lock(tmp_path / "recipe.lock") == lock
    assert {"onnxopt", "onnx", "onnxruntime", "numpy"} <= set(lock.packages)
    assert "openvino" not in lock.packages


@pytest.mark.parametrize(
    ("now", "differences"),
    [
        (LOCK, []),
        (replace(LOCK, recipe="x"), ["the recipe was another one"]),
        (replace(LOCK, target="ort-arm"), ["the target was ort-vnni and is ort-arm"]),
        (replace(LOCK, packages={"numpy": "2.1"}), ["numpy was 2.0 and is 2.1"]),
        (replace(LOCK, packages={}), ["numpy was 2.0 and is not there"]),
        (replace(LOCK, data={"a.onnx": "d2"}), ["the samples of a.onnx were others"]),
        (replace(LOCK, data={"b.onnx": "d2"}), []),
    ],
)
def test_what_is_otherwise(now, differences):
    assert LOCK.differences(now) == differences


def test_it_grows():
    assert replace(LOCK, data={"b.onnx": "d2"}).with_data_of(LOCK).data == {"a.onnx": "d1", "b.onnx": "d2"}


@pytest.mark.parametrize("text", ["no toml [", "version = 2", "version = 1\nrecipe = 'x'", "x = " + "[" * 20000])
def test_what_is_no_lock(tmp_path, text):
    (tmp_path / "recipe.lock").write_text(text)
    with pytest.raises(UsageError, match="give --update-lock"):
        load_lock(tmp_path / "recipe.lock")


def test_there_is_none(tmp_path):
    assert load_lock(tmp_path / "recipe.lock") is None
