"""Streaming, order, splits, digests, and pictures that cannot be read."""

import itertools
import threading

import numpy as np
import pytest

from onnxopt.data import open_dataset
from onnxopt.data.dataset import read_ahead
from onnxopt.errors import UsageError


@pytest.fixture
def folder(tmp_path, draw):
    for number in range(7):
        draw(tmp_path / "pictures" / f"{number}.png", seed=number)
    return tmp_path / "pictures"


def open_folder(folder, inputs, **settings):
    return open_dataset(folder, inputs, role="calibration", preprocess="yolo", **settings)


def names(dataset):
    return [sample.image.path.name for sample in dataset]


def test_order_is_fixed_and_reading_can_be_repeated(folder, rgb_input):
    dataset = open_folder(folder, rgb_input)
    assert names(dataset) == names(dataset) == [f"{number}.png" for number in range(7)]
    first, again = (next(iter(dataset)).feeds["images"] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_take_spreads_over_the_set(folder, rgb_input):
    dataset = open_folder(folder, rgb_input)
    assert names(dataset.take(3)) == ["0.png", "2.png", "4.png"]
    assert names(open_folder(folder, rgb_input, samples=1)) == ["0.png"]
    assert len(dataset.take(99)) == 7
    with pytest.raises(UsageError, match="at least 1"):
        dataset.take(0)


def test_split_is_disjoint_and_complete(folder, rgb_input):
    dataset = open_folder(folder, rgb_input)
    fit, holdout = dataset.split_holdout()
    assert names(holdout) == ["1.png", "4.png"]
    assert sorted(names(fit) + names(holdout)) == names(dataset)
    assert [len(part) for part in dataset.take(2).split_holdout()] == [1, 1]
    alone, empty = dataset.take(1).split_holdout()
    assert (len(alone), len(empty), list(empty)) == (1, 0, [])
    with pytest.raises(ValueError, match="every=1"):
        dataset.split_holdout(1)


def test_unreadable_pictures_are_named_and_skipped(folder, rgb_input):
    (folder / "3.png").write_bytes(b"no picture")
    whole = (folder / "5.png").read_bytes()
    (folder / "5.png").write_bytes(whole[: len(whole) // 2])
    dataset = open_folder(folder, rgb_input)
    assert names(dataset) == ["0.png", "1.png", "2.png", "4.png", "6.png"]
    assert len(dataset) == 5
    assert [f"{folder}/{name}" in note for name, note in zip(["3.png", "5.png"], dataset.notes, strict=True)]
    fit, holdout = dataset.split_holdout()
    assert not holdout.notes
    assert len(fit) + len(holdout) == 5


def test_nothing_readable_is_refused_at_once(tmp_path, rgb_input):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"none of the samples of 2 pictures .* can be read"):
        open_folder(tmp_path, rgb_input)


def test_digest_follows_contents_and_preprocessing_but_not_place(folder, rgb_input, tmp_path, draw):
    dataset = open_folder(folder, rgb_input)
    digest = dataset.digest()
    list(dataset)
    assert dataset.digest() == digest
    for number in range(7):
        draw(tmp_path / "copy" / f"{number}.png", seed=number)
    assert open_folder(tmp_path / "copy", rgb_input).digest() == digest
    assert dataset.take(3).digest() != digest
    assert open_dataset(folder, rgb_input, role="calibration", preprocess="yolox").digest() != digest
    draw(tmp_path / "copy" / "6.png", seed=99)
    assert open_folder(tmp_path / "copy", rgb_input).digest() != digest


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("onnxopt-data")]


def test_threads_end_when_the_reader_stops_early(folder, rgb_input):
    reader = iter(open_folder(folder, rgb_input))
    next(reader)
    assert data_threads()
    reader.close()
    assert not data_threads()


def test_reading_ahead_is_bounded_and_in_order():
    loaded = []
    results = read_ahead(lambda item: loaded.append(item) or item, itertools.count(), ahead=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert max(loaded) <= 4 + 3


def test_an_error_while_loading_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda item: 1 / item, [1, 0, 1]))
    assert not data_threads()
