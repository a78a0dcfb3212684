"""Two lossy stages are shown alone and together; one is not."""

import json

import jsonschema
import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.optimization.rounds import ALL, NOTHING
from onnxopt.report.run import SCHEMA
from onnxopt.report.summary import summary
from onnxopt.testing import parse_graph

NET = """(float[1,3,16,16] x) => (float[1,8,10,10] y)
<float[32,3,3,3] w1, float[32,32,3,3] w2, float[8,32,3,3] w3> {
  a = Conv (x, w1)
  b = Relu (a)
  c = Conv (b, w2)
  d = Relu (c)
  y = Conv (d, w3)
}"""


@pytest.fixture(scope="module")
def feeds():
    generator = np.random.default_rng(0)
    return [{"x": generator.random((1, 3, 16, 16), np.float32)} for _ in range(6)]


@pytest.fixture(scope="module")
def report(feeds):
    passes = "prune{ratio=0.5, align=1, compensation=false},quantize{recover=off}"
    return optimize(parse_graph(NET), passes, data=feeds, keep_anyway=True).report


def test_each_stage_is_measured_alone(report):
    nothing, prune, quantize, both = report.alone
    assert [row.stages for row in report.alone] == [NOTHING, *(s.text for s in report.stages), ALL]
    assert (nothing.speedup, nothing.worst_sqnr_db) == (1.0, float("inf"))
    assert prune.macs == both.macs < quantize.macs == nothing.macs
    assert both.bytes < prune.bytes < nothing.bytes
    assert both.bytes == pytest.approx(report.after.bytes, abs=3000)  # the run signs the model
    assert both.worst_sqnr_db == report.quality["worst_sqnr_db"] < quantize.worst_sqnr_db


def test_the_report_holds_it(report):
    document = json.loads(report.to_json())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert [row["stages"] for row in document["alone"]] == [row.stages for row in report.alone]
    assert f"\n{ALL}" in summary(report)


def test_one_lossy_stage_has_nothing_to_be_compared_with(feeds):
    report = optimize(parse_graph(NET), "simplify,quantize{recover=off}", data=feeds, keep_anyway=True).report
    assert report.alone == []
    assert "stage alone" not in summary(report)
