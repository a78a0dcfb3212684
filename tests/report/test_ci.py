"""What continuous integration is shown."""

from xml.etree import ElementTree as ET

from onnxopt.report.ci import Case, junit, markdown

CASES = [
    Case("a.onnx", {"size": "2 MB → 1 MB", "latency": "3 ms"}),
    Case("b|<c>.onnx", {"size": "1 MB"}, "refused: map>=-1pt is missed", missed=True),
    Case("d.onnx", {}, 'no such "file"'),
]


def test_junit():
    root = ET.fromstring(junit("onnxopt batch", CASES))
    suite = root.find("testsuite")
    assert suite.attrib == {"name": "onnxopt batch", "tests": "3", "failures": "1", "errors": "1"}
    passed, failed, broken = suite
    assert passed.attrib == {"name": "a.onnx", "classname": "onnxopt batch"}
    assert passed.find("system-out").text == "size: 2 MB → 1 MB\nlatency: 3 ms"
    assert failed.get("name") == "b|<c>.onnx"
    assert failed.find("failure").get("message") == "refused: map>=-1pt is missed"
    assert broken.find("error").get("message") == 'no such "file"'


def test_markdown():
    assert markdown("onnxopt batch", CASES).splitlines() == [
        "### onnxopt batch",
        "",
        "|  | model | size | latency |",
        "| --- | --- | --- | --- |",
        "| ✅ | a.onnx | 2 MB → 1 MB | 3 ms |",
        "| ❌ | b\\|\\<c>.onnx | 1 MB |  |",
        "| ❌ | d.onnx |  |  |",
        "",
        "* **b\\|\\<c>.onnx**: refused: map>=-1pt is missed",
        '* **d.onnx**: no such "file"',
    ]
