"""The sweep: what is measured, what is derived, and what is refused."""

import numpy as np
import pytest

from onnxopt.calibration.collect import collect, expose
from onnxopt.calibration.derive import plan_statistics
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.methods import METHODS
from onnxopt.calibration.store import TableFile
from onnxopt.calibration.table import CalibrationTable
from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.placement.trial import quantized
from onnxopt.runtime.ort import OrtSession
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph
from onnxopt_passes import calibrate
from onnxopt_passes.calibrate import Calibrate

NET = """(float[1,8,6,6] x) => (float[1,8,2,2] y) <float[8,8,3,3] w1, float[8,8,1,1] w2, float[16,16,1,1] w3,
 float[8,16,1,1] w4> {
  a = Conv (x, w1)
  g = Sigmoid (a)
  b = Mul (a, g)
  c = Conv (b, w2)
  d = Relu (c)
  k = Concat <axis = 1> (b, d)
  m = MaxPool <kernel_shape = [3, 3]> (k)
  e = Conv (m, w3)
  y = Conv (e, w4)
}"""
INPUTS = (InputSpec("x", (1, 8, 6, 6), np.dtype(np.float32)),)


def samples(count=5, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    feeds = [{"x": (scale * random.standard_normal((1, 8, 6, 6))).astype(np.float32)} for _ in range(count)]
    return open_dataset(feeds, INPUTS, role="calibration")


def calibrated(text=NET, data=None, **options):
    graph = parse_graph(text)
    context = Context(ORT, inputs=INPUTS, fit=data or samples())
    record = run_pass(Calibrate(**options), graph, context, [])
    return graph, context.get(CalibrationTable), record


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match=r"calibrate: 'nope' matches no node"):
        calibrated(ignore=("nope",))


def test_only_what_does_not_follow_is_measured():
    graph = parse_graph(NET)
    plan = plan_statistics(graph, ["x", "a", "g", "b", "d", "k", "m", "e"])
    assert list(plan.measured) == ["x", "a", "d", "e"]
    assert {d.name: d.sources for d in plan.derived} == {"g": ("a",), "b": ("a",), "k": ("b", "d"), "m": ("k",)}


def test_derived_ranges_hold_what_is_really_there():
    graph, table, record = calibrated(method="minmax")
    inner = [name for name in table if name != "x"]
    session = OrtSession(expose(graph, inner).to_proto(), optimized=False)
    assert table["a"].low > -8  # what a SiLU reads ends where it is flat
    for sample in samples():
        values = session.run(sample.feeds)
        for name in set(table) - {"a"}:
            array = sample.feeds["x"] if name == "x" else values[name]
            slack = 1e-5 * np.abs(array).max()  # the sweep runs with optimizations on
            assert table[name].low <= array.min() + slack
            assert array.max() - slack <= table[name].high
    assert not record.changed


def test_mean_minmax_is_the_mean_over_images():
    _, table, _ = calibrated(method="mean-minmax")
    highs = [s.feeds["x"].max() for s in samples()]
    assert table["x"].high == pytest.approx(np.mean(highs))


def test_many_small_sessions_give_the_same_as_one():
    graph = parse_graph(NET)
    context = Context(ORT, inputs=INPUTS)
    plan = plan_statistics(graph, ["x", "a", "d", "e"])
    from onnxopt.analysis.shapes import Shapes, infer

    shapes = Shapes(*infer(graph))
    one = collect(graph, plan, samples(), shapes, histogram=True)
    many = collect(graph, plan, samples(), shapes, histogram=True, memory=1)
    assert {n: (s.minimum, s.maximum, s.histogram.total) for n, s in one.items()} == {
        n: (s.minimum, s.maximum, s.histogram.total) for n, s in many.items()
    }
    assert context.fit is None


@pytest.mark.parametrize("method", ["minmax", "mean-minmax", "percentile", "entropy", "mse", "auto"])
def test_every_method_survives_one_constant_image(method):
    feeds = [{"x": np.zeros((1, 8, 6, 6), np.float32)}]
    _, table, _ = calibrated(data=open_dataset(feeds, INPUTS, role="calibration"), method=method)
    assert table["x"].low == table["x"].high == 0


def test_infinite_activations_are_named():
    with pytest.raises(UsageError, match=r"tensor '\w+' holds NaN or infinite values"):
        calibrated(data=samples(scale=1e37))


def test_without_samples_it_asks_for_data():
    graph = parse_graph(NET)
    with pytest.raises(UsageError, match="--data"):
        run_pass(Calibrate(), graph, Context(ORT), [])


@pytest.mark.parametrize(("method", "noted"), [("minmax", True), ("percentile", False)])
def test_a_percentile_that_counts_for_nothing_is_noted(method, noted):
    graph = parse_graph(NET)
    context = Context(ORT, inputs=INPUTS, fit=samples())
    record = run_pass(Calibrate(method=method, percentile=99.0), graph, context, [])
    assert ("percentile=99 has no effect with method=minmax" in [why for _, why in record.notes]) is noted


def chosen(fit, *, graph=None, synthetic=False, artefacts=(), **options):
    """Calibrate, with held-out samples to judge on."""
    graph = graph or parse_graph(NET)
    graph.name_nodes()
    context = Context(ORT, inputs=INPUTS, fit=fit, holdout=samples(8, seed=1), synthetic=synthetic)
    for artefact in artefacts:
        context.put(artefact)
    record = run_pass(Calibrate(**options), graph, context, [])
    return graph, context, record


def outputs_db(graph, context):
    wanted = FloatOutputs(graph, [s.feeds for s in samples(8, seed=2)])
    return wanted.worst_sqnr_db(OrtSession(quantized(graph, context, ()).to_proto(), optimized=False).run)


def with_outlier():
    """Samples in each of which one value is far larger than the others, unlike in held-out ones."""
    feeds = [dict(s.feeds) for s in samples(12)]
    for each in feeds:
        each["x"][0, 0, 0, 0] = 60
    return open_dataset(feeds, INPUTS, role="calibration")


def test_without_a_named_method_held_out_outputs_choose_it():
    graph, context, record = chosen(with_outlier())
    tried = record.details["sqnr_db"]
    method = record.options["method"]
    assert set(tried) == set(METHODS)
    assert tried[method] == max(tried.values())
    usual = chosen(with_outlier(), method="mean-minmax")
    assert outputs_db(graph, context) > outputs_db(*usual[:2]) + 1
    named = chosen(with_outlier(), method=method)[1].get(CalibrationTable)
    assert named.to_json() == context.get(CalibrationTable).to_json()
    assert context.get(Ranging).method == method


def test_the_usual_method_stays_where_no_other_is_clearly_better(monkeypatch):
    monkeypatch.setattr(calibrate, "GAIN", 100.0)
    _, context, record = chosen(with_outlier())
    assert record.options["method"] == "mean-minmax"
    usual = chosen(with_outlier(), method="mean-minmax")[1]
    assert context.get(CalibrationTable).to_json() == usual.get(CalibrationTable).to_json()


def test_made_up_samples_choose_nothing():
    _, _, record = chosen(with_outlier(), synthetic=True)
    assert record.options["method"] == "mean-minmax"
    assert "sqnr_db" not in record.details


def test_what_ruins_the_outputs_alone_does_not_drown_the_others():
    """A channel that nobody reads and that is a million times larger than the others, beside the outlier in `x`."""
    graph = parse_graph(NET)
    convs = list(graph.nodes_of("Conv"))
    writer, reader = (graph.own_constant(n, 1) for n in convs[2:4])
    huge, blind = writer.values.copy(), reader.values.copy()
    huge[0] *= 1e6
    blind[:, 0] = 0
    writer.values, reader.values = huge, blind
    _, _, record = chosen(with_outlier(), graph=graph)
    tried = record.details["sqnr_db"]
    assert max(tried.values()) > 12
    assert tried[record.options["method"]] > tried["mean-minmax"] + calibrate.GAIN


def test_the_users_new_table_holds_what_was_chosen(tmp_path):
    file = tmp_path / "table.json"
    _, context, record = chosen(with_outlier(), artefacts=[TableFile.at(file)])
    assert record.options["method"] != "mean-minmax"
    assert CalibrationTable.load(file).to_json() == context.get(CalibrationTable).to_json()
    _, again, repeated = chosen(with_outlier(), artefacts=[TableFile.at(file)])
    assert again.get(CalibrationTable).to_json() == context.get(CalibrationTable).to_json()
    assert "sqnr_db" not in repeated.details
