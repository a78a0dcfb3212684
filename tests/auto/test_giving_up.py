"""A pruned model that misses the budget is not quantized."""

import numpy as np
import pytest

from onnxopt.auto.giving_up import GivingUp
from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.budget import Budget, Judge
from onnxopt.evaluation.metrics import load_metric
from onnxopt.registry import load_pass
from onnxopt.testing import parse_graph, plain_context

NET = "(float[1,4] x) => (float[1,3] y) <float[4,3] w = {1,0,0, 0,1,0, 0,0,1, 0,0,0}> { y = MatMul (x, w) }"
BLIND = NET.replace("1,0,0, 0,1,0", "0,0,0, 0,1,0")
PRUNE, CALIBRATE = load_pass("prune")(ratio=0.2), load_pass("calibrate")()


@pytest.fixture
def context():
    random = np.random.default_rng(0)
    rows = [random.random((1, 4), np.float32) for _ in range(60)]
    inputs = (InputSpec("x", (1, 4), np.dtype(np.float32)),)
    samples = open_dataset([({"x": r}, int(r[0, :3].argmax())) for r in rows], inputs, role="evaluation")
    found = plain_context()
    found.put(Judge(Budget.parse("1%"), parse_graph(NET), samples, None, load_metric("top1")))
    return found


def test_it_stops_behind_a_cut_that_costs_too_much(context):
    with pytest.raises(OptimizationError, match=r"pruning alone loses 0\.\d+, and 0\.0100 may be lost"):
        GivingUp().after_pass(PRUNE, parse_graph(NET), parse_graph(BLIND), context)


def test_it_lets_go_on_behind_a_good_cut_and_behind_other_passes(context):
    GivingUp().after_pass(PRUNE, parse_graph(NET), parse_graph(NET), context)
    GivingUp().after_pass(CALIBRATE, parse_graph(NET), parse_graph(BLIND), context)
