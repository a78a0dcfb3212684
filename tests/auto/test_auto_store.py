"""What was tried is kept by content, and half-written things count for nothing."""

import json
from dataclasses import replace

import pytest

from onnxopt.auto.ranking import _known
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


TRIAL_OF = replace(TRIAL_OF, digest=net().digest())


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
    (tmp_path / "k" / TRIAL).write_text("[" * 100_000)
    assert store.get("k") is None
    store.put("k", TRIAL_OF, net())
    (tmp_path / "k" / MODEL).unlink()
    assert store.get("k") is None


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ((), "bytes", None),
        ((), "speedup", "2"),
        ((), "undone", [1]),
        ((), "verdict", None),
        (("verdict",), "met", 1),
        (("verdict", "interval"), "low", None),
        ((), "digest", "d"),
        ((), "more", 1),
    ],
)
def test_values_that_were_changed_count_for_nothing(where, name, value, tmp_path):
    store = Store(tmp_path)
    store.put("k", TRIAL_OF, net())
    values = json.loads((tmp_path / "k" / TRIAL).read_text())
    inner = values
    for step in where:
        inner = inner[step]
    inner[name] = value
    (tmp_path / "k" / TRIAL).write_text(json.dumps(values))
    assert store.get("k") is None


def test_a_model_that_is_not_the_one_that_was_judged_counts_for_nothing(tmp_path):
    store = Store(tmp_path)
    store.put("k", TRIAL_OF, net())
    whole = store.model("k").read_bytes()
    for damaged in (whole[:-1], whole + b"\0", b""):
        store.model("k").write_bytes(damaged)
        assert store.get("k") is None
    store.model("k").write_bytes(whole)
    assert store.get("k") == TRIAL_OF


@pytest.mark.parametrize("values", [{}, {"rounds": 1, "latencies": None}, {"rounds": 1, "latencies": [{"name": "a"}]}])
def test_a_damaged_comparison_counts_for_nothing(values):
    assert _known(values, 1) is None
    assert _known({"rounds": 3, "latencies": []}, 1) is None


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


def test_nothing_is_made_before_there_is_something_to_keep(tmp_path):
    store = Store(tmp_path / "deep" / "cache")
    assert store.get("k") is None
    assert not list(tmp_path.iterdir())
    store.put_values("k", {"a": 1})
    assert sorted(f.name for f in store.folder.iterdir()) == ["README", "k"]
