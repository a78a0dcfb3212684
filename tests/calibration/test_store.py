"""The user's own calibration table: what it holds is taken, the rest is measured, and it is never overwritten."""

import numpy as np
import pytest

from onnxopt.calibration.store import TableFile, weights_digest
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.data import InputSpec, open_dataset
from onnxopt.errors import UsageError
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.ort import ORT
from onnxopt.testing import parse_graph
from onnxopt_passes.calibrate import Calibrate

NET = """(float[1,8,6,6] x) => (float[1,8,2,2] y) <float[8,8,3,3] w1, float[8,8,3,3] w2> {
  a = Conv (x, w1)
  b = Relu (a)
  y = Conv (b, w2)
}"""
INPUTS = (InputSpec("x", (1, 8, 6, 6), np.dtype(np.float32)),)


def samples():
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((1, 8, 6, 6)).astype(np.float32)} for _ in range(4)]
    return open_dataset(feeds, INPUTS, role="calibration")


def calibrated(path, graph=None, *, data=True):
    context = Context(ORT, inputs=INPUTS, fit=samples() if data else None)
    context.put(TableFile.at(path))
    record = run_pass(Calibrate(), graph or parse_graph(NET), context, [])
    return context.get(CalibrationTable), record


def hand_made(path, **ranges):
    table = CalibrationTable()
    for name, (low, high) in ranges.items():
        table[name] = CalibrationEntry(low, high, "by hand", 0)
    table.save(path)
    return path


def test_a_file_that_is_not_there_is_written_and_then_read_without_data(tmp_path):
    path = tmp_path / "t.json"
    measured, _ = calibrated(path)
    text = path.read_text()
    read, record = calibrated(path, data=False)
    assert read.to_json() == measured.to_json() == text
    assert record.counts["ranges read"] == len(read) > 1
    assert record.counts["tensors measured"] == 0
    assert record.notes == []


def test_what_is_missing_is_measured_and_said_and_the_file_left_as_it_was(tmp_path):
    path = hand_made(tmp_path / "t.json", b=(0.0, 123.0))
    before = path.read_text()
    table, record = calibrated(path)
    assert table["b"].high == 123.0
    assert 1 < table["x"].high < 10
    assert record.counts["ranges read"] == 1
    [(where, reason)] = record.notes
    assert where == str(path)
    assert "has no range for x" in reason
    assert path.read_text() == before


def test_without_data_what_is_missing_is_named(tmp_path):
    path = hand_made(tmp_path / "t.json", b=(0.0, 123.0))
    with pytest.raises(UsageError, match=r"for \S*t\.json has no range for tensor 'x'; give --data"):
        calibrated(path, data=False)


def test_a_table_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "t.json"
    calibrated(path)
    graph = parse_graph(NET)
    weight = graph.own_constant(graph.nodes[0], 1)
    weight.values = weight.values * np.float32(1.5)
    with pytest.raises(UsageError, match=r"t\.json: the ranges are of other weights .* delete the file"):
        calibrated(path, graph)


def test_a_table_with_no_tensor_in_common_is_refused(tmp_path):
    path = hand_made(tmp_path / "t.json", elsewhere=(0.0, 1.0))
    with pytest.raises(UsageError, match="not one of its tensors is quantized"):
        calibrated(path)


def test_the_digest_is_of_the_weights_and_not_of_what_stands_around_them():
    digest = weights_digest(parse_graph(NET))
    assert weights_digest(parse_graph(NET.replace("Relu", "Tanh"))) == digest
    assert weights_digest(parse_graph(NET.replace("w2> {", "w2> { "))) == digest
    other = parse_graph(NET)
    weight = other.own_constant(other.nodes[2], 1)
    weight.values = weight.values[:4].copy()
    assert weights_digest(other) != digest
