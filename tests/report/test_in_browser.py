"""A page in a real browser, from a file: no complaints, tables that sort, light and dark."""

import pytest
from browser import Browser, find_chromium
from sample_document import full_document

from onnxopt.report.html import write_html

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine"),
]
LARGEST = 5_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "r.html"
    write_html(file, full_document())
    assert file.stat().st_size < LARGEST
    return file.as_uri()


COLUMN = "[...document.querySelectorAll('#layers tbody tr')].map(row => row.cells[%d].textContent.trim())"
CLICK = "document.querySelectorAll('#layers thead th')[%d].querySelector('button').click()"
LAYER, MILLISECONDS, SQNR = 1, 8, 5


def test_it_opens_without_a_complaint_and_without_a_network(browser, page):
    browser.open(page)
    assert browser.complaints == []
    assert [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []
    assert browser.evaluate("document.querySelectorAll('section').length") == 9
    assert browser.evaluate("document.querySelectorAll('table').length") == 5
    assert browser.evaluate("[...document.images].every(i => i.complete)")


def test_a_click_sorts_by_number_and_another_the_other_way(browser, page):
    browser.open(page)
    assert browser.evaluate(COLUMN % MILLISECONDS) == ["0.300", "0.100", "10.000", "2.000", "", ""]
    browser.evaluate(CLICK % MILLISECONDS)
    assert browser.evaluate(COLUMN % MILLISECONDS) == ["10.000", "2.000", "0.300", "0.100", "", ""]
    browser.evaluate(CLICK % MILLISECONDS)
    assert browser.evaluate(COLUMN % MILLISECONDS) == ["0.100", "0.300", "2.000", "10.000", "", ""]


def test_texts_sort_upwards_and_equal_tensors_come_first(browser, page):
    browser.open(page)
    browser.evaluate(CLICK % LAYER)
    assert browser.evaluate(COLUMN % LAYER)[-2:] == ["bare", "equal"]
    browser.evaluate(CLICK % SQNR)
    assert browser.evaluate(COLUMN % SQNR) == ["equal", "40.0", "39.0", "38.0", "37.0", ""]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(browser, page, dark):
    browser.open(page, dark=dark)
    colours = [
        browser.evaluate(f"getComputedStyle(document.body).{part}.match(/[\\d.]+/g).map(Number)")
        for part in ("backgroundColor", "color")
    ]
    back, ink = (sum(colour[:3]) / 3 for colour in colours)
    assert (back < 64, ink > 190) == (dark, dark)
    chart = browser.evaluate("getComputedStyle(document.querySelector('#pareto svg text')).fill.match(/[\\d.]+/g)[0]")
    assert (float(chart) > 128) == dark


def test_nothing_is_wider_than_a_narrow_window(browser, page):
    browser.open(page, width=420)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 420


def test_hostile_names_are_texts(browser, page):
    browser.open(page)
    assert "<script>alert('x')</script>" in browser.evaluate("document.querySelector('h1').textContent")
