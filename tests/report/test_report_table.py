"""Tables and sizes for people."""

import pytest

from onnxopt.report.table import bytes_text, count_text, table


def test_columns_are_aligned():
    text = table([("a", "1"), ("bbb", "22")], ("name", "count"), right=(1,))
    assert text.splitlines() == ["name  count", "----  -----", "a         1", "bbb      22"]


def test_short_rows_and_no_rows():
    assert table([("a",), ("b", "c")]) == "a\nb  c"
    assert table([]) == ""
    assert table([], ("name",)) == "name\n----"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 KiB"), (1536, "1.5 KiB"), (14225153, "13.57 MiB"), (3 * 2**30, "3.00 GiB")]
)
def test_bytes(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (3500, "3.50 k"), (3538984, "3.54 M"), (3265000000, "3.27 G")])
def test_counts(number, text):
    assert count_text(number) == text
