import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.calibration.table import LARGEST, CalibrationEntry, CalibrationTable
from onnxopt.errors import UsageError

ENTRIES = st.builds(
    CalibrationEntry,
    low=st.floats(min_value=-LARGEST, max_value=0),
    high=st.floats(min_value=0, max_value=LARGEST),
    method=st.sampled_from(["minmax", "mse"]),
    images=st.integers(1, 10**6),
    derived_from=st.lists(st.text()).map(tuple),
)
ENTRY = CalibrationEntry(-1.5, 2.0, "mean-minmax", 64)


def table_of(entries):
    table = CalibrationTable()
    for name, entry in entries.items():
        table[name] = entry
    return table


@settings(max_examples=20, deadline=None)  # each waits for the disk
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), ENTRIES, max_size=5))
def test_what_is_saved_is_loaded(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("tables") / "table.json"
    table_of(entries).save(path)
    loaded = CalibrationTable.load(path)
    assert {name: loaded[name] for name in loaded} == entries
    assert list(loaded) == sorted(entries)


def test_the_file_is_meant_to_be_read(tmp_path):
    derived = CalibrationEntry(0.0, 0.1, "mse", 8, derived_from=("b",))
    table_of({"b": ENTRY, "a/Relu": derived}).save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == (
        "{\n"
        '  "format": "onnxopt calibration table",\n'
        '  "version": 1,\n'
        '  "tensors": {\n'
        '    "a/Relu": {"low": 0.0, "high": 0.1, "method": "mse", "images": 8, "derived_from": ["b"]},\n'
        '    "b": {"low": -1.5, "high": 2.0, "method": "mean-minmax", "images": 64, "derived_from": []}\n'
        "  }\n"
        "}\n"
    )


def test_whose_weights_the_ranges_belong_to_is_kept(tmp_path):
    table = CalibrationTable("0123")
    table["a"] = ENTRY
    table.save(tmp_path / "t.json")
    assert '  "model": "0123",\n' in (tmp_path / "t.json").read_text()
    assert CalibrationTable.load(tmp_path / "t.json").model == "0123"


def test_nothing_is_left_beside_the_file(tmp_path):
    table = table_of({"a": ENTRY})
    table.save(tmp_path / "t.json")
    table.save(tmp_path / "t.json")
    assert [file.name for file in tmp_path.iterdir()] == ["t.json"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "t.json")
    table_of({"a": ENTRY}).save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert "a" in CalibrationTable.load(tmp_path / "t.json")


def test_a_missing_tensor_is_named():
    table = table_of({"a": ENTRY})
    assert "a" in table
    assert len(table) == 1
    assert table.missing(["b", "a"]) == ["b"]
    with pytest.raises(UsageError, match="no range for tensor 'conv/out'"):
        table["conv/out"]


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-1.0, float("inf")), (-1e300, 1e300), (float("nan"), 1.0)])
def test_entries_without_a_proper_range(low, high):
    with pytest.raises(ValueError, match="not finite in float32 or does not contain 0"):
        CalibrationEntry(low, high, "minmax", 1)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match=r"none/t\.json: cannot be written"):
        table_of({"a": ENTRY}).save(tmp_path / "none" / "t.json")


def damaged(**changes):
    row = {"low": -1.0, "high": 1.0, "method": "minmax", "images": 1, "derived_from": []}
    row = {key: value for key, value in (row | changes).items() if value is not ...}
    return json.dumps({"format": "onnxopt calibration table", "version": 1, "tensors": {"x": row}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a calibration table"),
        ("\x80", "not a calibration table"),
        ("[]", "not a calibration table"),
        ('{"format": "another"}', "not a calibration table"),
        ('{"format": "onnxopt calibration table", "version": 2}', "version 2; this is for version 1"),
        ('{"format": "onnxopt calibration table", "version": 1}', 'no "tensors"'),
        (damaged(low=...), "tensor 'x' has no 'low'"),
        (damaged(high=float("nan")), "tensor 'x' is damaged"),
        (damaged(low=0.5), "tensor 'x' is damaged"),
        (damaged(low=2.0), "tensor 'x' is damaged in the calibration table: low is 2.0, which is above high"),
        (damaged(high=float("inf")), "tensor 'x' is damaged"),
        (damaged(images=float("inf")), "tensor 'x' is damaged"),
        ("[" * 100_000, "not a calibration table"),
        ('{"format": "onnxopt calibration table", "version": 1, "model": 3, "tensors": {}}', '"model" is a digest'),
        (damaged(images=None), "tensor 'x' is damaged"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, message):
    path = tmp_path / "t.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        CalibrationTable.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"t\.json: the calibration table cannot be read"):
        CalibrationTable.load(tmp_path / "t.json")
