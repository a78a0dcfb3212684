"""A metric that leaves the program does not take the command, or a gate, with it."""

import sys

import pytest

from onnxopt.data import Sample
from onnxopt.data.symbols import load_symbol
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation.metrics import Metric, score


class Leaves:
    def __init__(self, *, early: bool) -> None:
        self.early = early

    def update(self, outputs, sample):
        if self.early:
            sys.exit(0)

    def compute(self):
        sys.exit(0)


@pytest.mark.parametrize("early", [True, False])
def test_exit_is_a_failure(early):
    metric = Metric("mine", lambda: Leaves(early=early))
    with pytest.raises(OptimizationError, match="metric mine failed"):
        score(metric, lambda feeds: {}, [Sample({})])


def test_exit_while_importing(tmp_path, monkeypatch):
    (tmp_path / "script_that_leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="importing script_that_leaves failed: SystemExit"):
        load_symbol("script_that_leaves:metric")
