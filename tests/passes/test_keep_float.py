"""The layers whose quantization ruins the outputs are found, and only those."""

from dataclasses import replace

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation.budget import Budget, Judge
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.evaluation.sensitivity import Alone, Switchboard
from onnxopt.manager import check_requirements, run_pass
from onnxopt.pass_api import Context
from onnxopt.pipeline import resolve
from onnxopt.placement import FloatNodes, plan
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph
from onnxopt_passes import keep_float
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ
from onnxopt_passes.keep_float import KeepFloat

NET = """(float[1,8,12,12] x) => (float[1,8,4,4] y)
<float[8,8,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[8,8,3,3] w4> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = Relu (c)
  e = Conv (d, w3)
  f = Relu (e)
  y = Conv (f, w4)
}"""
INPUTS = (InputSpec("x", (1, 8, 12, 12), np.dtype(np.float32)),)


def test_given_nodes_that_stay_float_anyway_are_named():
    _, _, record = searched(broken=False, nodes=("b",))
    assert record.notes == [("b", f"no node that {ORT.name} runs in int8 writes it; nothing to keep float")]


LONGER = NET.replace("y = Conv (f, w4)", "g = Conv (f, w4) h = Relu (g) y = Conv (h, w4)").replace("4,4]", "2,2]")


def network(*, broken, text=NET):
    """A chain; broken: one channel of `d` is thousands of times larger than the others, and read by nobody."""
    graph = parse_graph(text)
    graph.name_nodes()
    if broken:
        convs = list(graph.nodes_of("Conv"))
        writer, reader = (graph.own_constant(n, 1) for n in convs[1:3])
        scaled, blind = writer.values.copy(), reader.values.copy()
        scaled[0] = np.abs(scaled[0]) * 1e5  # behind a Relu it stays positive
        blind[:, 0] = 0
        writer.values, reader.values = scaled, blind
    return graph


def searched(*, broken, **options):
    graph = network(broken=broken)
    data = synthetic(INPUTS, 4)
    context = Context(ORT, inputs=INPUTS, fit=data, holdout=data)
    run_pass(Calibrate(), graph, context, [])
    record = run_pass(KeepFloat(**options), graph, context, [])
    return graph, context, record


def test_a_sound_network_stays_int8():
    _, context, record = searched(broken=False)
    assert context.get(FloatNodes).names == ()
    assert record.options["nodes"] == ()
    assert not record.changed


def test_the_layers_around_a_ruined_tensor_stay_float_in_the_runtime_too():
    graph, context, _ = searched(broken=True, most=1.0)
    assert set(context.get(FloatNodes).names) == {"c", "e"}
    run_pass(InsertQDQ(), graph, context, [])
    kernels = OrtRuntime().kernels(graph.to_proto())
    assert kernels.int8 == {"Conv"}


def test_float_that_takes_away_no_more_than_its_share_of_the_noise_has_to_be_asked_for(monkeypatch):
    monkeypatch.setattr(keep_float, "ENOUGH", 60.0)
    _, default, record = searched(broken=False, most=0.5)
    _, asked, _ = searched(broken=False, most=0.5, sqnr=60.0)
    assert default.get(FloatNodes).names == ()
    assert "no layer is much worse than the others" in record.notes[0][1]
    assert asked.get(FloatNodes).names != ()


def test_each_quantizer_is_judged_alone():
    graph, context, _ = searched(broken=True, most=1.0)
    placement = plan(graph, ORT, Shapes(*infer(graph)))
    feeds = [s.feeds for s in synthetic(INPUTS, 1)]
    table = context.get(CalibrationTable)
    board, wanted = Switchboard(graph, ORT, placement, table), FloatOutputs(graph, feeds)
    alone = {group: wanted.worst_sqnr_db(board.quantized(table, {group})) for group in board.groups}
    assert min(alone, key=alone.get) == "d"
    assert alone["d"] < 5
    assert alone["b"] > 20


def test_what_calibrate_has_heard_is_not_heard_again_unless_ranges_changed(monkeypatch):
    graph, context, record = searched(broken=True, most=1.0)
    heard, table = context.get(Alone), context.get(CalibrationTable)
    assert heard.noise["d"] == max(heard.noise.values())
    assert not heard.holds(heard.noise, table)  # another method has made other ranges since
    context.put(Alone.of(heard.noise, table))
    monkeypatch.setattr(Switchboard, "alone", None)
    assert run_pass(KeepFloat(most=1.0), graph, context, []).options["nodes"] == record.options["nodes"]


def test_no_more_than_allowed_stays_float_and_that_is_said():
    _, context, record = searched(broken=True, most=0.01)
    assert context.get(FloatNodes).names == ()
    assert "the best found" in record.notes[0][1]


def test_given_nodes_need_no_search():
    _, context, record = searched(broken=True, nodes=("a",))
    assert context.get(FloatNodes).names == ("a",)
    assert record.notes == [("Conv 'Conv'", "kept float: quantized it costs too much accuracy")]


def test_needs_a_calibration_before_it():
    with pytest.raises(UsageError, match="CalibrationTable"):
        check_requirements(resolve("keep-float"), Context(ORT))


def judged(text, **options):
    graph = network(broken=True)
    data = synthetic(INPUTS, 4)
    context = Context(ORT, inputs=INPUTS, fit=data, holdout=data)
    context.put(Judge(Budget.parse(text), graph, data, OrtRuntime()))
    run_pass(Calibrate(), graph, context, [])
    return context, run_pass(KeepFloat(sqnr=-100, **options), graph, context, [])


def test_the_budget_keeps_what_it_needs_float_and_says_what_that_costs():
    context, record = judged("5%", most=1.0)
    assert set(context.get(FloatNodes).names) == {"c", "e"}
    drops = record.details["drop"]
    assert drops["before"] > 0.5
    assert drops["kept"] <= 0.05
    shares = [layer["share"] for layer in record.details["kept_float"]]
    assert len(shares) == 2
    assert 0.3 < sum(shares) < 0.6


def test_where_biases_will_be_put_right_the_budget_is_judged_so():
    plain, corrected = (judged("5%", most=1.0, recover=level)[1].details["drop"] for level in ("off", "fast"))
    assert 0 < corrected["kept"] < plain["kept"]


def test_a_budget_that_is_kept_at_once_keeps_nothing_float():
    context, record = judged("100%", most=1.0)
    assert context.get(FloatNodes).names == ()
    assert "drop" not in record.details
    assert record.details["kept_float"] == []


def test_a_budget_out_of_reach_is_noted():
    _, record = judged("5%", most=0.01)
    assert "is the least found; 0.0500 is allowed" in record.notes[0][1]


# A target that cannot run here is neither timed nor undone, so that the budget alone decides.
WHOLE = {"target": replace(ORT, adapter=""), "max_drop": "5%", "data": synthetic(INPUTS, 6)}


def test_a_whole_run_keeps_its_budget_by_keeping_layers_float():
    result = optimize(network(broken=True, text=LONGER), "calibrate,keep-float{sqnr=-100, most=1},insert-qdq", **WHOLE)
    budget = result.report.budget
    assert budget["met"]
    assert budget["drop"] <= 0.05
    assert 0 < budget["kept_float_share"] < 1
    names = {layer["node"] for layer in budget["kept_float"]}
    assert {"Conv 'Conv_1'", "Conv 'Conv_2'"} <= names
    assert any(n.op == "QuantizeLinear" for n in result.graph.nodes)
    again = optimize(network(broken=True, text=LONGER), recipe=result.recipe, data=WHOLE["data"])
    assert again.graph.digest() == result.graph.digest()


def test_a_whole_run_that_cannot_keep_its_budget_fails_unless_told_otherwise():
    passes = "calibrate,keep-float{sqnr=-100, most=0.01},insert-qdq"
    with pytest.raises(OptimizationError, match=r"max drop 5% allows 0\.0500; nothing is written"):
        optimize(network(broken=True, text=LONGER), passes, **WHOLE)
    report = optimize(network(broken=True, text=LONGER), passes, keep_anyway=True, **WHOLE).report
    assert not report.budget["met"]
    assert any("a drop of" in warning for warning in report.warnings)


def test_where_no_sqnr_suffices_the_budget_starts_anew():
    graph = network(broken=False)
    data = synthetic(INPUTS, 4)
    context = Context(ORT, inputs=INPUTS, fit=data, holdout=data)
    context.put(Judge(Budget.parse("50%"), graph, data, OrtRuntime()))
    run_pass(Calibrate(), graph, context, [])
    record = run_pass(KeepFloat(sqnr=900, most=0.5), graph, context, [])
    assert "900 dB were asked for" in record.notes[0][1]
    assert context.get(FloatNodes).names == ()


def test_given_nodes_that_are_not_there_are_named():
    with pytest.raises(UsageError, match="no node writes a tensor 'nope' at this place"):
        searched(broken=False, nodes=("nope",))
