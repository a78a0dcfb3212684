"""Feeds from Python: iterables and module:function."""

import sys

import numpy as np
import pytest

from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError

SPEC = InputSpec("x", (1, 2), np.dtype(np.float32))
ROW = np.array([[1.0, 2.0]], np.float32)


def opened(source, inputs=(SPEC,), **settings):
    return open_dataset(source, inputs, role="calibration", **settings)


def test_a_list_of_feeds_with_and_without_labels():
    samples = list(opened([{"x": ROW}, ({"x": ROW[0]}, 7), (ROW, "any"), {"x": [[3, 4.0]], "unused": 1}]))
    assert [sample.label for sample in samples] == [None, 7, "any", None]
    assert all(sample.feeds["x"].shape == (1, 2) and sample.feeds["x"].dtype == np.float32 for sample in samples)


def test_batches_are_split_with_their_labels():
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    samples = list(opened([({"x": batch}, np.array([5, 6, 7])), ({"x": batch[:1]}, np.array([8]))]))
    assert [sample.label for sample in samples] == [5, 6, 7, 8]
    assert [sample.feeds["x"].tolist() for sample in samples[:2]] == [[[0, 1]], [[2, 3]]]


def test_a_one_shot_iterator_is_kept():
    dataset = opened({"x": ROW * i} for i in range(4))
    assert [s.feeds["x"][0, 0] for s in dataset] == [s.feeds["x"][0, 0] for s in dataset] == [0, 1, 2, 3]
    assert "kept in memory" in dataset.notes[0]
    assert len(dataset) == 4
    assert len(opened(({"x": ROW} for _ in range(4)), samples=2)) == 2


def test_subsets_read_no_further_than_they_must():
    class Counted:
        read = 0

        def __iter__(self):
            for _ in range(9):
                Counted.read += 1
                yield {"x": ROW * Counted.read}

    dataset = opened(Counted())
    few = dataset.take(2)
    Counted.read = 0
    assert [s.feeds["x"][0, 0] for s in few] == [1, 5]
    assert Counted.read == 5
    assert few.digest() != dataset.digest()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "gives no samples"),
        ([{"y": ROW}], r"item 0 lacks the model's x: float32\[1, 2\]; it has y"),
        ([{"x": np.zeros((1, 3), np.float32)}], r"'x' has the shape \[1, 3\], expected \[1, 2\]"),
        ([{"x": np.zeros((0, 2), np.float32)}], "shape"),
        ([{"x": np.zeros((1, 2), np.int64)}], "'x' is int64, expected float32"),
        ([{"x": ROW * np.nan}], "item 0: 'x' has NaN"),
        ([{"x": [[1], [1, 2]]}], "cannot be made an array"),
        (["text"], "should be a dictionary"),
        ([({"x": np.zeros((2, 2), np.float32)}, 3)], "needs a sequence of 2 labels"),
    ],
)
def test_wrong_items_are_refused(items, message):
    with pytest.raises(UsageError, match=message):
        opened(items)


def test_inputs_with_different_batches():
    other = InputSpec("y", (1, 2), np.dtype(np.float32))
    with pytest.raises(UsageError, match="different numbers of samples"):
        opened([{"x": ROW, "y": np.zeros((2, 2), np.float32)}], [SPEC, other])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder; the search path is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "feeds_of_a_test.py").write_text(
        "import itertools, numpy as np\n"
        "row = np.array([[1, 2]], np.float32)\n"
        "def some():\n    for i in range(3):\n        yield {'x': row * i}, i\n"
        "def ever():\n    return ({'x': row * i} for i in itertools.count())\n"
        "def none():\n    return []\n"
        "def number():\n    return 5\n"
        "def wants(argument):\n    return []\n"
        "calls = []\n"
        "def shrinks():\n    calls.append(1)\n    return [{'x': row}] * max(0, 3 - len(calls))\n"
        "def breaks():\n    yield {'x': row}\n    raise RuntimeError('half way')\n"
    )
    (tmp_path / "imports_of_a_test.py").write_text("import not_there_at_all\n")
    yield "feeds_of_a_test"
    sys.modules.pop("feeds_of_a_test", None)


def test_a_function_is_called_anew_for_each_reading(module):
    dataset = opened(f"{module}:some")
    assert [s.label for s in dataset] == [s.label for s in dataset] == [0, 1, 2]
    assert (len(dataset), dataset.description) == (3, f"{module}:some (at most 1024 samples)")


def test_an_endless_function_is_cut(module):
    assert len(list(opened(f"{module}:ever", samples=5))) == 5
    assert len(opened(f"{module}:ever")) == 1024


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "gives no samples"),
        ("number", "should return or yield feeds, but returned int"),
        ("row", "is not a function but of type ndarray"),
        ("wants", "failed: TypeError"),
        ("sone", "has no 'sone'; did you mean 'some'"),
    ],
)
def test_functions_that_will_not_do(module, name, message):
    with pytest.raises(UsageError, match=message):
        opened(f"{module}:{name}")


def test_a_function_that_fails_later(module):
    with pytest.raises(UsageError, match="half way"):
        list(opened(f"{module}:breaks"))


def test_a_function_that_gives_less_each_time(module):
    dataset = opened(f"{module}:shrinks")
    assert len(dataset) == 1
    with pytest.raises(UsageError, match="there were more when they were counted"):
        list(dataset)


def test_modules_that_cannot_be_imported(module):
    with pytest.raises(UsageError, match="there is no module nowhere_at_all here"):
        opened("nowhere_at_all:f")
    with pytest.raises(UsageError, match="importing imports_of_a_test failed: No module named 'not_there_at_all'"):
        opened("imports_of_a_test:f")
