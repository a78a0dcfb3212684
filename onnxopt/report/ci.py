"""Results as continuous integration shows them: JUnit XML for the list of tests, Markdown for the summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class Case:
    """One thing that went well or did not.

    Attributes:
        name: What was looked at: a model.
        figures: What was measured, as text.
        problem: Why it failed, in a sentence; empty where it did not.
        missed: Whether it failed for being not as good as required, rather than for not working at all.
    """

    name: str
    figures: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    missed: bool = False


def junit(title: str, cases: Sequence[Case]) -> str:
    """JUnit XML, as GitLab, Jenkins and others read it: what is missed is a failure, what does not work an error."""
    failures = sum(bool(case.problem) and case.missed for case in cases)
    errors = sum(bool(case.problem) and not case.missed for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": title, **counts})
    for case in cases:
        element = ET.SubElement(suite, "testcase", {"name": case.name, "classname": title})
        if case.problem:
            ET.SubElement(element, "failure" if case.missed else "error", {"message": case.problem})
        if case.figures:
            output = ET.SubElement(element, "system-out")
            output.text = "\n".join(f"{name}: {value}" for name, value in case.figures.items())
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(title: str, cases: Sequence[Case]) -> str:
    """A table with one line per case, and what went wrong below it."""
    columns = list(dict.fromkeys(name for case in cases for name in case.figures))
    rows = [["", "model", *columns], ["---"] * (2 + len(columns))]
    for case in cases:
        mark = "✅" if not case.problem else "❌"
        rows.append([mark, case.name, *(case.figures.get(name, "") for name in columns)])
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    problems = [f"* **{_cell(case.name)}**: {_cell(case.problem)}" for case in cases if case.problem]
    return "\n".join([f"### {title}", "", *lines, *([""] if problems else []), *problems]) + "\n"


def is_ours(file: Path) -> bool:
    """Whether a file is a JUnit or Markdown report of onnxopt, which may be replaced."""
    with file.open("rb") as stream:
        start = stream.read(400)
    return start.startswith(b"### onnxopt ") or (b"<testsuites" in start and b'name="onnxopt ' in start)


def _cell(text: str) -> str:
    """Text that stays in its cell and is not taken for markup."""
    for special in ("\\", "|", "*", "_", "`", "<"):
        text = text.replace(special, f"\\{special}")
    return text.replace("\n", " ")
