"""Pages: everything is drawn, nothing is believed."""

import errno
import importlib.util
import re
from html.parser import HTMLParser

import pytest
from sample_document import HOSTILE, full_document

from onnxopt.errors import UsageError
from onnxopt.report.charts import pareto_chart
from onnxopt.report.document import Candidate, Document, Layer, Pareto, Row, Table
from onnxopt.report.html import html, is_html_report, write_html

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

VOID = {"wbr", "meta", "link", "img", "br", "input", "hr"}


class Outline(HTMLParser):
    """Elements by name, and whether each that opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.problems = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.problems.append(tag)


@pytest.fixture(scope="module")
def page():
    return html(full_document())


def test_every_element_is_closed_and_every_id_is_the_only_one(page):
    outline = Outline(page)
    assert outline.problems == []
    assert outline.open == []
    assert sorted(outline.ids) == sorted(set(outline.ids))


def test_names_from_models_stay_text(page):
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert" in page
    assert page.count("</svg>") == page.count("<svg")


def test_nothing_is_fetched(page):
    addresses = [value for _, attrs in Outline(page).seen for key, value in attrs.items() if key in {"src", "href"}]
    assert [a for a in addresses if not a.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!#)", page)


@pytest.mark.parametrize(
    "anchor", ["figures", "stages", "table-1", "pareto", "pictures", "layers", "spectra", "damages"]
)
def test_every_section_is_linked_from_the_top(page, anchor):
    assert f'<section id="{anchor}">' in page
    assert f'href="#{anchor}"' in page


def test_what_is_not_known_has_no_section():
    page = html(Document("model.onnx"))
    assert "<section" not in page
    assert "<table" not in page
    assert "model.onnx" in page


def test_charts_take_the_colours_of_the_page(page):
    assert "var(--blue)" in page
    assert "#0101" not in page


def test_a_chart_of_its_own_has_colours_of_its_own():
    text = pareto_chart(full_document("a").pareto, alone=True)
    assert text.startswith("<?xml")
    assert "#0072b2" in text
    assert "var(--" not in text
    assert "#0101" not in text
    assert 'style="background: #fff"' in text


def test_names_in_the_plot_cover_no_other():
    near = (
        Candidate("given", 5.0, 0.1, 0.9),
        Candidate("a", 5.0, 0.1, 0.9, pick="safe"),
        Candidate("b", 1.0, 0.1, 0.5),
    )
    text = pareto_chart(Pareto("top1", near), alone=True)
    heights = [re.search(rf' y="([0-9.]+)"[^>]*>{name}</text>', text)[1] for name in ("as given", "safe")]
    first, second = map(float, heights)
    assert abs(first - second) >= 12


def test_marks_are_told_apart(page):
    outline = Outline(page)
    groups = [attrs.get("class") for tag, attrs in outline.seen if tag == "g" and "class" in attrs]
    assert groups == ["shared", "new"]
    assert [attrs.get("class") for tag, attrs in outline.seen if tag == "li" and "style" in attrs] == ["", "lost", ""]


def test_each_picture_is_stored_once(page):
    assert page.count("data:image/jpeg;base64,") == 2


def test_rows_know_what_to_be_sorted_by(page):
    keys = [a["data-v"] for _, a in Outline(page).seen if "data-v" in a]
    assert {"0.5", "0.75", "10.0"} <= set(keys)
    assert "" in keys


def test_the_same_document_is_the_same_page(page):
    assert html(full_document()) == page


def test_tables_may_lack_notes():
    page = html(Document("m", figures=Table("T", ("a",), (Row("r", ("1",)),))))
    assert page.count("<th ") == 3


def test_a_page_is_known_again(tmp_path):
    write_html(tmp_path / "r.html", Document("m"))
    (tmp_path / "other.html").write_text("<!DOCTYPE html><title>mine</title>")
    assert is_html_report(tmp_path / "r.html")
    assert not is_html_report(tmp_path / "other.html")
    assert not is_html_report(tmp_path / "none.html")


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    file = tmp_path / "r.html"
    file.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"r\.html: cannot be written \(No space left on device\)"):
        write_html(file, Document("m"))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_package_is_one_sentence(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("onnxopt.report.html.find_spec", lambda name: None if name == "jinja2" else found(name))
    with pytest.raises(UsageError, match=r"needs jinja2; pip install 'onnxopt\[report\]'"):
        html(Document("m"))


def test_long_names_break_between_their_parts():
    page = html(Document("m", layers=(Layer("/model/<b>/conv", "Conv"),)))
    assert "/<wbr>model/<wbr>&lt;b&gt;/<wbr>conv" in page


def test_hostile_names_are_shown_whole(page):
    assert HOSTILE.split("$")[0].replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in page
