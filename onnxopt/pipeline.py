"""Pipelines as text: `prune{ratio=0.3, scope=[backbone]},quantize`.

Grammar (blanks may stand anywhere between tokens)::

    pipeline = entry { "," entry }
    entry    = name [ "{" [ option { [","] option } ] "}" ]
    option   = key [ "=" value ]                  a bare key is true
    value    = "[" [ value { "," value } ] "]" | "quoted" | word
    word     = true | false | none | number | letters, digits and ._-/*%+:

`parse(str(p)) == p` holds for every pipeline; a parse error shows the text with a caret.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from onnxopt import registry
from onnxopt.errors import UsageError, nearest
from onnxopt.pass_api import Pass

_TOKEN = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[\w./*%+:?^$|()-]+)|(?P<mark>[{}\[\],=]))')
_WORD = re.compile(r"[\w./*%+:?^$|()-]+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_KEYWORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Entry:
    """One name with options, as written."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={format_value(value)}" for key, value in self.options.items())
        return f"{self.name}{{{inside}}}" if inside else self.name


@dataclass(frozen=True)
class Pipeline:
    """Entries in the order they run."""

    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.entries))


def format_value(value: Any) -> str:
    """Text form of an option's value; `parse` reads it back as it was."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(v) for v in value) + "]"
    text = str(value)
    if _WORD.fullmatch(text) and text not in _KEYWORDS and not _NUMBER.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class _Reader:
    """Tokens of a text with their places."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.kind: str | None = None
        self.token = ""
        self.start = 0
        self.advance()

    def advance(self) -> None:
        rest = self.text[self.place :]
        match = _TOKEN.match(rest)
        self.start = self.place + (len(rest) - len(rest.lstrip()))
        if match is None:
            if rest.strip():
                self.fail(f"'{rest.strip()[0]}' is not expected here")
            self.kind, self.token = None, ""
            return
        self.kind = match.lastgroup
        self.token = match.group(self.kind or 0)
        self.start = self.place + match.start(self.kind or 0)
        self.place += match.end()

    def fail(self, problem: str) -> None:
        raise UsageError(f"pipeline: {problem}\n  {self.text}\n  {' ' * self.start}^")

    def take(self, mark: str) -> bool:
        if self.kind == "mark" and self.token == mark:
            self.advance()
            return True
        return False

    def word(self, what: str) -> str:
        if self.kind != "word":
            self.fail(f"expected {what}" + (f", found '{self.token}'" if self.token else ""))
        token = self.token
        self.advance()
        return token


def parse(text: str) -> Pipeline:
    """Read a pipeline from text.

    Raises:
        UsageError: Not of the grammar; shows where.
    """
    reader = _Reader(text)
    entries = [_entry(reader)]
    while reader.take(","):
        entries.append(_entry(reader))
    if reader.kind is not None:
        reader.fail(f"expected ',' or the end, found '{reader.token}'")
    return Pipeline(tuple(entries))


def with_option(text: str, name: str, key: str, value: Any) -> Pipeline:
    """A pipeline with an option of all entries of one name set, in place of what they say.

    Raises:
        UsageError: Not of the grammar, or no entry bears the name.
    """
    pipeline = parse(text)
    if not any(entry.name == name for entry in pipeline.entries):
        raise UsageError(f"{key} is an option of {name}, which is not in '{text}'")
    return Pipeline(tuple(Entry(e.name, {**e.options, key: value}) if e.name == name else e for e in pipeline.entries))


def _entry(reader: _Reader) -> Entry:
    name = reader.word("the name of a pass")
    options: dict[str, Any] = {}
    if reader.take("{"):
        while not reader.take("}"):
            if reader.kind is None:
                reader.fail("'}' is missing; did the shell split the text? Quote the pipeline")
            key = reader.word("the name of an option")
            if key in options:
                reader.fail(f"option {key} is given twice")
            options[key] = _value(reader) if reader.take("=") else True
            reader.take(",")
    return Entry(name, options)


def _value(reader: _Reader) -> Any:
    if reader.take("["):
        values = []
        while not reader.take("]"):
            if reader.kind is None:
                reader.fail("']' is missing")
            values.append(_value(reader))
            reader.take(",")
        return values
    if reader.kind == "string":
        body = reader.token[1:-1]
        reader.advance()
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], body)
    return _scalar(reader.word("a value"))


def _scalar(word: str) -> Any:
    if word in _KEYWORDS:
        return _KEYWORDS[word]
    if _NUMBER.fullmatch(word):
        return float(word) if any(c in word for c in ".eE") else int(word)
    return word


@dataclass(frozen=True)
class Step:
    """Passes that run together: once, or again and again until none changes the graph."""

    passes: tuple[Pass, ...]
    repeat: int = 1
    name: str = ""


@dataclass(frozen=True)
class Stage:
    """One entry of the pipeline as the user wrote it, ready to run; it is kept or undone as a whole."""

    text: str
    steps: tuple[Step, ...]

    @property
    def passes(self) -> list[Pass]:
        """All passes of the stage in order."""
        return [p for step in self.steps for p in step.passes]


def resolve(pipeline: Pipeline | str | Iterable[Pass | str]) -> list[Stage]:
    """Look up names, check options, and expand named pipelines.

    Args:
        pipeline: Text, a parsed pipeline, or passes and texts in order (Python API).

    Raises:
        UsageError: Unknown pass or option (the nearest is suggested), or a bad value.
    """
    if isinstance(pipeline, str):
        pipeline = parse(pipeline)
    if isinstance(pipeline, Pipeline):
        return [_stage(entry) for entry in pipeline.entries]
    if not isinstance(pipeline, Iterable):
        raise UsageError(f"passes: a value of type {type(pipeline).__name__}; give text, or a list of passes and texts")
    stages: list[Stage] = []
    for item in pipeline:
        if isinstance(item, Pass):
            options = {k: v for k, v in item.option_values().items() if v is not None}
            stages.append(Stage(str(Entry(item.name, options)), (Step((item,)),)))
        elif isinstance(item, type) and issubclass(item, Pass):
            raise UsageError(f"passes: {item.__name__} is a class; give one of it, {item.__name__}()")
        else:
            stages += resolve(item)
    return stages


def _stage(entry: Entry) -> Stage:
    return Stage(str(entry), tuple(_steps(entry)))


def _steps(entry: Entry) -> list[Step]:
    if not registry.is_pipeline(entry.name):
        return [Step((registry.load_pass(entry.name).from_options(entry.options),))]
    named = registry.load_pipeline(entry.name)
    inner = _with_options(named, entry.options)
    steps = [step for e in inner.entries for step in _steps(e)]
    if named.repeat > 1:
        return [Step(tuple(p for step in steps for p in step.passes), named.repeat, str(entry))]
    return steps


def _with_options(named: registry.NamedPipeline, options: dict[str, Any]) -> Pipeline:
    """The named pipeline's own text with its options handed down to the entries they stand for."""
    pipeline = parse(named.text)
    entries = {e.name: Entry(e.name, dict(e.options)) for e in pipeline.entries}
    for key, value in options.items():
        if key not in named.options:
            known = named.options or {}
            hint = nearest(key, known) if known else "; it takes none"
            raise UsageError(f"{named.name}: unknown option '{key}'{hint}")
        for meant in named.options[key].split(", "):
            owner, _, inner = meant.partition(".")
            entries[owner].options[inner] = value
    return Pipeline(tuple(entries[e.name] for e in pipeline.entries))
