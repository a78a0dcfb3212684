"""Texts from scores per step."""

import numpy as np
import pytest

from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Reader

FEEDS = {"x": np.zeros((1, 3, 48, 320), np.float32)}
PPOCR = {"character": "a\nb\nc\n"}


def steps(*places, count=5):
    """Scores of 0.75 for one character a step."""
    return {"out": (np.eye(count)[list(places)] * 0.75)[None].astype(np.float32)}


def test_repeats_count_once_and_blanks_part_them():
    read = Reader(PPOCR).text(steps(0, 1, 1, 0, 1, 2, 4, 3, 0), FEEDS)
    assert (read.text, read.confidence) == ("aab c", 0.75)


def test_nothing_is_read():
    read = Reader(PPOCR).text(steps(0, 0), FEEDS)
    assert (read.text, read.confidence) == ("", 1.0)


def test_without_a_space_of_its_own():
    assert Reader(PPOCR).text(steps(1, 2, 3, count=4), FEEDS).text == "abc"


def test_an_alphabet_from_a_file_and_the_blank_at_the_end(tmp_path):
    (tmp_path / "letters.txt").write_text("x\n \nü\n", encoding="utf-8")
    named = f"ctc{{alphabet={tmp_path / 'letters.txt'}, blank=last}}"
    assert Reader(decode=named).text(steps(0, 3, 1, 2, count=4), FEEDS).text == "x ü"


def test_other_outputs_are_not_taken_for_text():
    assert Reader(PPOCR).text(steps(0, count=9), FEEDS) is None
    assert Reader().text(steps(0), FEEDS) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("alphabet=nowhere.txt", "the alphabet nowhere.txt cannot be read"),
        ("alphabet=EMPTY", "is empty"),
        ("blank=middle", "blank=middle should be first or last"),
        ("blank=first", "decoder 'ctc' does not fit"),
    ],
)
def test_refusals(tmp_path, options, message):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UsageError, match=message):
        Reader(decode=f"ctc{{{options.replace('EMPTY', str(tmp_path / 'empty.txt'))}}}").text(steps(0), FEEDS)
