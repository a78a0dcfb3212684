"""What passes and named pipelines say about themselves, as text and as Markdown: one source for both."""

import inspect
import re
import sys
import typing
from collections.abc import Iterator

from onnxopt.pass_api import OptionSpec, Pass
from onnxopt.pipeline import format_value
from onnxopt.registry import Listed, NamedPipeline
from onnxopt.report.table import table

SECTIONS = ("When to use it", "Example", "Effect")  # what a pass's docstring holds, in this order
EFFECTS = {
    "exact": "outputs stay equal bit for bit",
    "rounding": "outputs change by float rounding only",
    "lossy": "outputs change",
}

_SECTION = re.compile(rf"^({'|'.join(SECTIONS)})\b[^\n]*:", re.MULTILINE)
_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "word", type(None): "none"}


def body(kind: type[Pass]) -> str:
    """The docstring after the summary."""
    return (inspect.getdoc(kind) or "").partition("\n")[2].strip()


def sections(kind: type[Pass]) -> list[str]:
    """The headings of the docstring, in order."""
    return [match[1] for match in _SECTION.finditer(body(kind))]


def option_rows(kind: type[Pass]) -> list[tuple[str, str, str, str]]:
    """Name, type and range, default and help of each option."""
    return [(s.name, _takes(s), format_value(s.default), s.help) for s in kind.options()]


def _takes(spec: OptionSpec) -> str:
    if spec.choices is not None:
        return " or ".join(map(str, spec.choices))
    kinds = [k for k in typing.get_args(spec.type) or (spec.type,) if k is not type(None)]
    if typing.get_origin(spec.type) is tuple:
        return f"list of {_KINDS.get(kinds[0], str(kinds[0]))}s"
    text = " or ".join(_KINDS.get(k, str(k)) for k in kinds)
    if spec.low is not None and spec.high is not None:
        return f"{text}, {spec.low:g} to {spec.high:g}"
    if spec.low is not None:
        return f"{text}, at least {spec.low:g}"
    return text if spec.high is None else f"{text}, at most {spec.high:g}"


def _facts(kind: type[Pass], owner: str) -> Iterator[tuple[str, str]]:
    yield "effect", f"{kind.effect}: {EFFECTS[kind.effect]}"
    yield "from", owner
    if kind.requires:
        yield "requires", ", ".join(k.__name__ for k in kind.requires)
    if kind.provides:
        yield "provides", ", ".join(k.__name__ for k in kind.provides)
    if kind.needs_data:
        yield "data", "runs the model on samples"


def pass_text(kind: type[Pass], owner: str) -> str:
    """A pass for the terminal."""
    facts = table([(f"{name}:", value) for name, value in _facts(kind, owner)])
    parts = [f"{kind.name}: {kind.summary()}", facts, body(kind)]
    if kind.options():
        parts.append("Options:\n" + _indent(table(option_rows(kind), ("name", "takes", "default", "meaning"))))
    return "\n\n".join(part for part in parts if part)


def pipeline_text(pipeline: NamedPipeline, owner: str) -> str:
    """A named pipeline for the terminal."""
    facts = [("runs:", pipeline.text), ("from:", owner)]
    if pipeline.repeat > 1:
        facts.append(("repeats:", f"until nothing changes, at most {pipeline.repeat} times"))
    parts = [f"{pipeline.name}: {pipeline.summary}", table(facts)]
    if pipeline.options:
        parts.append("Options:\n" + _indent(table(sorted(pipeline.options.items()), ("name", "stands for"))))
    return "\n\n".join(parts)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def pass_page(kind: type[Pass], owner: str) -> str:
    """A pass as a page in Markdown: facts, docstring, options, and the rules of its module."""
    lines = [f"# {kind.name}", "", kind.summary(), ""]
    lines += [f"* **{name}**: {value}" for name, value in _facts(kind, owner)]
    lines += ["", markdown_body(body(kind))]
    if kind.options():
        rows = ["| option | takes | default | meaning |", "|---|---|---|---|"]
        rows += [f"| `{n}` | {t} | `{d}` | {h} |".replace("||", "\\|\\|") for n, t, d, h in option_rows(kind)]
        lines += ["", "## Options", "", *rows]
    rules = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "").partition("\n")[2].strip()
    if rules:
        lines += ["", "## Rules", "", rules]
    return "\n".join(lines) + "\n"


def pipeline_page(pipeline: NamedPipeline, owner: str) -> str:
    """A named pipeline as a page in Markdown."""
    lines = [f"# {pipeline.name}", "", pipeline.summary, "", f"* **runs**: `{pipeline.text}`", f"* **from**: {owner}"]
    if pipeline.repeat > 1:
        lines.append(f"* **repeats** until nothing changes, at most {pipeline.repeat} times")
    if pipeline.options:
        lines += ["", "## Options", "", "| option | stands for |", "|---|---|"]
        lines += [f"| `{name}` | `{target}` |" for name, target in sorted(pipeline.options.items())]
    return "\n".join(lines) + "\n"


def markdown_body(text: str) -> str:
    """Docstring as Markdown: headings bold, indented blocks as code."""
    out: list[str] = []
    code = False
    for line in _SECTION.sub(lambda m: f"**{m[0]}**", text).splitlines():
        if line.startswith("    ") != code and line:
            code = not code
            if not code and out[-1] == "":
                out[-1:] = ["```", ""]
            else:
                out += ["", "```text"] if code and out and out[-1] else ["```text"] if code else ["```"]
        out.append(line[4:] if code else line)
    if code:
        out.append("```")
    return "\n".join(out)


def pass_row(entry: Listed) -> tuple[str, str, str]:
    """Name, effect and summary of a listed pass; what is broken says so."""
    if isinstance(entry.value, type) and issubclass(entry.value, Pass):
        return entry.name, entry.value.effect, entry.value.summary()
    return entry.name, "broken", entry.problem or f"what {entry.owner} offers is no Pass"


def pipeline_row(entry: Listed) -> tuple[str, str, str]:
    """Name, nothing, and summary of a listed pipeline; what is broken says so."""
    if isinstance(entry.value, NamedPipeline):
        return entry.name, "", entry.value.summary
    return entry.name, "broken", entry.problem or f"what {entry.owner} offers is no NamedPipeline"
