"""Characters read wrong, beside what jiwer makes of all texts together."""

import sys

import numpy as np
import pytest

from onnxopt.data import Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation import load_metric, score

METADATA = {"character": "a\nb\nc\n"}


def said(text):
    """Scores per step that spell a text, with a blank after each character."""
    places = [place for letter in text for place in ("-abc ".index(letter), 0)]
    return np.eye(5)[places or [0]][None].astype(np.float32)


def scored(pairs):
    samples = [Sample({"x": np.array([i])}, truth) for i, (truth, _) in enumerate(pairs)]
    return score(
        load_metric("cer", metadata=METADATA), lambda feeds: {"out": said(pairs[int(feeds["x"][0])][1])}, samples
    )


def test_the_rate_is_over_all_characters():
    jiwer = pytest.importorskip("jiwer")
    pairs = [("abc", "abc"), ("abcabc", "abab"), ("a", "ab"), ("b a", ""), ("cc", "cb ")]
    found = scored(pairs)
    assert found.value == pytest.approx(jiwer.cer([a for a, _ in pairs], [b for _, b in pairs]))
    assert found.value == pytest.approx((0 + 2 + 1 + 3 + 1) / 15)
    assert found.details() == {"exact": 0.2}
    np.testing.assert_allclose(found.evidence().values(np.array([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]])), [0, 1])
    assert load_metric("cer").lower_is_better


def test_refusals():
    pytest.importorskip("jiwer")
    with pytest.raises(UsageError, match="labelled with an empty text"):
        scored([(" ", "a")])
    with pytest.raises(UsageError, match="needs a text with each sample"):
        scored([(3, "a")])
    with pytest.raises(UsageError, match=r"cannot read text from \{'y': \[1, 3\]\}; .*alphabet=FILE"):
        score(load_metric("cer"), lambda _: {"y": np.zeros((1, 3))}, [Sample({"x": np.zeros(1)}, "a")])


def test_without_jiwer(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(UsageError, match=r"pip install 'onnxopt\[eval\]'"):
        load_metric("cer")
