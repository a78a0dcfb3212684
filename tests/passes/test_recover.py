"""`recover` keeps what helps, says what it took back, and its resolved form does the same again."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Budget, Judge
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.targets.openvino import OPENVINO
from onnxopt.targets.ort import ORT
from onnxopt.targets.tensorrt import TENSORRT
from onnxopt.testing import parse_graph
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ
from onnxopt_passes.recover import Recover
from onnxopt_passes.strip_qdq import StripQDQ

NET = """(float[1,16,12,12] x) => (float[1,16,4,4] y)
<float[16,16,3,3] w1, float[16,16,3,3] w2, float[16,16,3,3] w3, float[16,16,3,3] w4, float[16] b> {
  a = Conv (x, w1)
  b1 = Relu (a)
  c = Conv (b1, w2, b)
  d = Relu (c)
  e = Conv (d, w3)
  f = Relu (e)
  y = Conv (f, w4)
}"""
INPUTS = (InputSpec("x", (1, 16, 12, 12), np.dtype(np.float32)),)


def recovered(target=ORT, *, net=NET, data=12, percentile=90.0, budget=None, **options):
    graph = parse_graph(net)
    graph.name_nodes()
    fit, holdout = synthetic(INPUTS, data).split_holdout() if data else (None, None)
    context = Context(target, inputs=INPUTS, fit=fit or synthetic(INPUTS, 4), holdout=holdout)
    run_pass(Calibrate(method="percentile", percentile=percentile), graph, context, [])
    run_pass(InsertQDQ(), graph, context, [])
    if budget is not None:  # the model as it is before it is recovered sets it
        context.put(Judge(Budget.parse(budget), graph.copy(), holdout, OrtRuntime()))
    return graph, run_pass(Recover(**options), graph, context, [])


@pytest.mark.parametrize("target", [ORT, OPENVINO, TENSORRT], ids=lambda t: t.name)
def test_the_outputs_come_closer(target):
    _, record = recovered(target)
    scores = record.details["sqnr_db"]
    assert "bias" in record.options["steps"]
    assert scores["bias"] > scores["before"] + 0.05
    assert record.changed


def test_the_resolved_recipe_gives_the_same_bytes():
    first, record = recovered(level="full")
    second, again = recovered(steps=record.options["steps"])
    assert first.digest() == second.digest()
    assert "sqnr_db" not in again.details


def test_layers_stay_int8_in_the_runtime():
    graph, _ = recovered(level="full")
    assert OrtRuntime().kernels(graph.to_proto()).int8 == {"Conv", "Conv_1", "Conv_2"}


def test_a_step_that_does_not_help_is_taken_back_and_named():
    _, record = recovered(level="full")
    back = {step for step in ("bias", "refit", "scales", "rounding") if step not in record.options["steps"]}
    assert back == {reason.split(" ", 1)[0] for _, reason in record.notes}


def test_a_step_that_breaks_the_accuracy_budget_is_taken_back():
    _, record = recovered(budget="0.001%")
    assert record.options["steps"] == ()
    assert [reason for _, reason in record.notes] == [
        f"{step} was taken back: it breaks the accuracy budget" for step in ("bias", "refit")
    ]
    assert recovered(budget="100%")[1].options["steps"] == recovered()[1].options["steps"]


def test_off_and_no_steps_do_nothing():
    assert not recovered(level="off")[1].changed
    assert not recovered(level="off", steps=("bias",))[1].changed
    assert not recovered(steps=())[1].changed


def test_without_samples_to_judge_on_nothing_is_done():
    _, record = recovered(data=0)
    assert not record.changed
    assert "no samples" in record.notes[0][1]


def test_a_nested_graph_may_read_weights_of_the_outer_one():
    branches = "then_branch = one () => (t) { t = Mul (f, gain) }, else_branch = two () => (o) { o = Mul (f, gain) }"
    net = NET.replace("y = Conv (f, w4)", f"g = If (yes) <{branches}>  h = Relu (g)  y = Conv (h, w4)")
    net = net.replace("float[16] b>", "float[16] b, float[16,1,1] gain, bool yes = {1}>")
    _, record = recovered(OPENVINO, net=net)
    assert "bias" in record.options["steps"]


def test_a_model_that_came_quantized_keeps_its_weights():
    given, _ = recovered(level="off")
    record = None
    context = Context(ORT, inputs=INPUTS, fit=synthetic(INPUTS, 4), holdout=synthetic(INPUTS, 4))
    for step in (StripQDQ(), Calibrate(), InsertQDQ(), Recover()):
        record = run_pass(step, given, context, [])
    assert not record.changed
    assert "was quantized when it came" in record.notes[0][1]


def test_an_unknown_step_is_refused():
    with pytest.raises(UsageError, match="no step 'biases'; the steps are bias"):
        recovered(steps=("biases",))
