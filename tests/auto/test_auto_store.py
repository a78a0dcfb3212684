"""What was tried is kept by content, and half-written things count for nothing."""

import pytest

from onnxopt.auto.store import MODEL, TRIAL, Store, code_digest, key_of
from onnxopt.auto.trial import Failed, Trial
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Verdict
from onnxopt.evaluation.interval import Interval
from onnxopt.graph import Graph
from onnxopt.model_io import load
from onnxopt.testing import parse_graph

VERDICT = Verdict("top1", "1%", 0.9, 0.89, 0.01, 0.009, False, 50, Interval(0.0, 0.02, 2000))
TRIAL_OF = Trial(
    "a",
    "ort",
    "d",
    1,
    2,
    3,
    1.5,
    0.1,
    2.0,
    0.1,
    VERDICT,
    0.9,
    float("inf"),
    0.0,
    ("prune: slower",),
    "version = 1",
    3.0,
)


def net() -> Graph:
    return parse_graph("(float[1,4] x) => (float[1,4] y) { y = Relu (x) }")


def test_an_outcome_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path / "deep" / "cache")
    store.put("k", TRIAL_OF, net())
    assert Store(tmp_path / "deep" / "cache").get("k") == TRIAL_OF
    assert [n.op for n in load(store.model("k")).nodes] == ["Relu"]


def test_a_failure_is_remembered_too(tmp_path):
    store, failed = Store(tmp_path), Failed("a", "ort", "no", 1.0)
    store.put("k", failed, None)
    assert store.get("k") == failed


def test_what_was_interrupted_or_damaged_counts_for_nothing(tmp_path):
    store = Store(tmp_path)
    assert store.get("k") is None
    store.put("k", TRIAL_OF, net())
    (tmp_path / "k" / TRIAL).write_text('{"passes"')
    assert store.get("k") is None
    (tmp_path / "k" / TRIAL).write_text('{"passes": "a"}')
    assert store.get("k") is None
    store.put("k", TRIAL_OF, net())
    (tmp_path / "k" / MODEL).unlink()
    assert store.get("k") is None


def test_every_fact_makes_another_key():
    facts = {"model": "a", "passes": "b"}
    assert key_of(facts) == key_of({"passes": "b", "model": "a"})
    assert key_of(facts) != key_of({**facts, "passes": "c"})
    assert code_digest(key_of) == code_digest(Store) != code_digest(net)
    assert code_digest(len) == ""


def test_a_cache_that_cannot_be_made_is_wrong_usage(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--cache"):
        Store(tmp_path / "file" / "cache")
