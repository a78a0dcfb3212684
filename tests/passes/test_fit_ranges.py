"""Ranges that the outputs, not their own statistics, ask for."""

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.calibration.given import METHOD
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.data import InputSpec, synthetic
from onnxopt.errors import UsageError
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.evaluation.sensitivity import Switchboard
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.placement import plan
from onnxopt.placement.trial import quantized
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.fit_ranges import FitRanges
from onnxopt_passes.insert_qdq import InsertQDQ

NET = """(float[1,8,12,12] x) => (float[1,8,6,6] y)
<float[8,8,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = Relu (c)
  y = Conv (d, w3)
}"""
INPUTS = (InputSpec("x", (1, 8, 12, 12), np.dtype(np.float32)),)


def network(*, outlier=20.0):
    """A chain. One channel of `d` is many times larger than the others, and read by nobody."""
    graph = parse_graph(NET)
    graph.name_nodes()
    convs = list(graph.nodes_of("Conv"))
    writer, reader = (graph.own_constant(n, 1) for n in convs[1:3])
    scaled, blind = writer.values.copy(), reader.values.copy()
    scaled[0] = np.abs(scaled[0]) * outlier  # behind a Relu it stays positive
    blind[:, 0] = 0
    writer.values, reader.values = scaled, blind
    return graph


def calibrated(graph, *, artefacts=(), synthetic_data=False, **options):
    context = Context(
        ORT, inputs=INPUTS, fit=synthetic(INPUTS, 8), holdout=synthetic(INPUTS, 8), synthetic=synthetic_data
    )
    for artefact in artefacts:
        context.put(artefact)
    run_pass(Calibrate(**options), graph, context, [])
    return context


def fitted(graph=None, **options):
    graph = graph if graph is not None else network()
    context = calibrated(graph)
    before = {name: context.get(CalibrationTable)[name] for name in context.get(CalibrationTable)}
    record = run_pass(FitRanges(**{"enough": 60, "most": 16, **options}), graph, context, [])
    return graph, context, before, record


def outputs_sqnr(graph, context):
    wanted = FloatOutputs(graph, [s.feeds for s in synthetic(INPUTS, 8)])
    return wanted.worst_sqnr_db(OrtSession(quantized(graph, context, ()).to_proto(), optimized=False).run)


def test_outliers_that_nobody_reads_are_cut_off():
    graph = network()
    plain = outputs_sqnr(graph, calibrated(graph))
    graph, context, before, record = fitted(graph)
    table = context.get(CalibrationTable)
    assert table["d"].high < 0.7 * before["d"].high
    assert table["d"].method == "fitted"
    assert table["x"].high > 0.7 * before["x"].high
    assert outputs_sqnr(graph, context) > plain + 1
    assert record.details["sqnr_db"]["fitted"] > record.details["sqnr_db"]["before"] + 1
    assert not record.changed


def test_the_resolved_shares_need_no_search():
    _, context, _, record = fitted()
    _, again, _, repeated = fitted(shares=record.options["shares"])
    assert "sqnr_db" not in repeated.details
    tables = [c.get(CalibrationTable) for c in (context, again)]
    assert [tables[0][n] for n in tables[0]] == [tables[1][n] for n in tables[1]]


def test_outputs_that_are_good_enough_need_no_search():
    _, context, before, record = fitted(enough=-60)
    assert record.options["shares"] == ()
    assert context.get(CalibrationTable)["d"] == before["d"]


def test_no_range_is_tried_where_none_is_wanted():
    _, context, before, record = fitted(most=FitRanges().most)
    assert record.options["shares"] is None
    assert context.get(CalibrationTable)["d"] == before["d"]


def test_what_ruins_the_outputs_alone_is_left_to_keep_float():
    _, _, _, record = fitted(network(outlier=1e6))
    assert not any(share.startswith("d=") for share in record.options["shares"])


def test_given_ranges_stay():
    graph = network()
    context = calibrated(graph)
    table = context.get(CalibrationTable)
    table["d"] = CalibrationEntry(0.0, 1.0, METHOD, 0)
    record = run_pass(FitRanges(enough=60, most=16), graph, context, [])
    assert record.options["shares"] == ()
    assert "quantized when it came" in record.notes[0][1]


def test_the_users_table_stays_and_a_new_one_holds_what_was_fitted(tmp_path):
    file = tmp_path / "ranges.json"
    graph = network()
    context = calibrated(graph, artefacts=[TableFile.at(file)])
    run_pass(FitRanges(enough=60, most=16), graph, context, [])
    assert CalibrationTable.load(file)["d"].method == "fitted"
    again = calibrated(graph, artefacts=[TableFile.at(file)])
    record = run_pass(FitRanges(enough=60, most=16), graph, again, [])
    assert record.options["shares"] == ()
    assert f"{file} has them" in record.notes[0][1]
    assert again.get(CalibrationTable)["d"] == context.get(CalibrationTable)["d"]


@pytest.mark.parametrize("ignore", [(), ("*",)])
def test_nothing_is_fitted_to_made_up_samples(ignore):
    """Nor does it matter that `calibrate` had no range for some."""
    graph = network()
    context = calibrated(graph, synthetic_data=True, ignore=ignore)
    record = run_pass(FitRanges(enough=60, most=16), graph, context, [])
    assert record.options["shares"] == ()
    assert "give data" in record.notes[0][1]


@pytest.mark.parametrize("text", ["d", "d=", "d=-1", "d=inf", "nobody=0.5"])
def test_bad_shares(text):
    graph = network()
    with pytest.raises(UsageError, match="fit-ranges"):
        run_pass(FitRanges(shares=(text,)), graph, calibrated(graph), [])


def test_a_switchboard_with_all_on_computes_what_the_quantized_graph_does():
    graph = network()
    context = calibrated(graph)
    table, placement = context.get(CalibrationTable), plan(graph, ORT, Shapes(*infer(graph)))
    board = Switchboard(graph, ORT, placement, table)
    feeds = next(iter(synthetic(INPUTS, 1))).feeds
    off, on = (board.quantized(table, groups)(feeds)["y"] for groups in ((), board.groups))
    np.testing.assert_array_equal(off, OrtSession(graph.to_proto()).run(feeds)["y"])
    assert np.abs(on - off).max() > 0
    wider = CalibrationTable()
    for name in table:
        wider[name] = CalibrationEntry(table[name].low * 8, table[name].high * 8, "minmax", 1)
    coarse = board.quantized(wider, board.groups)(feeds)["y"]
    assert np.abs(coarse - off).mean() > 3 * np.abs(on - off).mean()


def test_the_pipeline_fits():
    result = optimize(network(), "quantize{ranges=4}", data=None)
    [stage] = result.report.stages
    assert any(p.name == "fit-ranges" for p in stage.passes)


def test_the_resolved_shares_apply_once_where_the_table_holds_them(tmp_path):
    file = tmp_path / "ranges.json"
    graph = network()
    context = calibrated(graph, artefacts=[TableFile.at(file)])
    record = run_pass(FitRanges(enough=60, most=16), graph, context, [])
    again = calibrated(graph, artefacts=[TableFile.at(file)])
    run_pass(FitRanges(shares=record.options["shares"]), graph, again, [])
    assert again.get(CalibrationTable).to_json() == context.get(CalibrationTable).to_json()


def test_a_quantized_graph_is_refused():
    graph = network()
    context = calibrated(graph)
    run_pass(InsertQDQ(), graph, context, [])
    with pytest.raises(UsageError, match=r"quantized already.*put fit-ranges before insert-qdq"):
        run_pass(FitRanges(most=4), graph, context, [])
