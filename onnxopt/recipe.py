"""Recipes: everything that decides a run, in one TOML file.

```toml
version = 1

[target]
name = "ort"

[data]
source = "data.yaml"
preprocess = "yolo"
samples = 128
calibration_table = "ranges.json"

[budget]
max_drop = "1%"
metric = "coco-map"
require = "map>=-1pt,speedup>=1.2"

[guard]
never_slower = true

[[pipeline]]
pass = "prune"
ratio = 0.3
```

Only `version` and one `[[pipeline]]` are needed. A recipe that `--print-recipe` wrote is *resolved*: what was
measured or read off the machine stands in it as a number, stages that did not pay are gone, and `never_slower` is
false, so that running it again decides nothing and gives the same bytes.

Paths in a recipe are relative to the current folder, as on the command line.
"""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxopt.errors import MissingData, UsageError, nearest
from onnxopt.pipeline import Entry, Pipeline, parse
from onnxopt.report.record import StageRecord

VERSION = 1
_SECTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "target": {"name": str},
    "data": {
        "source": str,
        "evaluation": str,
        "preprocess": (str, dict),
        "samples": int,
        "calibration_table": str,
    },
    "budget": {"max_drop": (str, int, float), "metric": str, "require": str},
    "guard": {"never_slower": bool},
}


@dataclass(frozen=True)
class Recipe:
    """A run's decisions. None means: not said here.

    `file` is where it was read, for messages; it is no part of the recipe.
    """

    pipeline: Pipeline
    target: str | None = None
    source: str | None = None
    evaluation: str | None = None
    preprocess: str | dict[str, Any] | None = None
    samples: int | None = None
    calibration_table: str | None = None
    max_drop: str | float | None = None
    metric: str | None = None
    require: str | None = None
    never_slower: bool = True
    file: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        data = {
            "source": self.source,
            "evaluation": self.evaluation,
            "preprocess": self.preprocess,
            "samples": self.samples,
            "calibration_table": self.calibration_table,
        }
        budget = {"max_drop": self.max_drop, "metric": self.metric, "require": self.require}
        parts = [f"version = {VERSION}" + ("" if self.pipeline.entries else "\npipeline = []")]
        for section, values in (("target", {"name": self.target}), ("data", data), ("budget", budget)):
            said = {key: value for key, value in values.items() if value is not None}
            if said:
                parts.append("\n".join([f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in said.items())]))
        parts.append(f"[guard]\nnever_slower = {_toml(self.never_slower)}")
        for entry in self.pipeline.entries:
            options = {key: value for key, value in entry.options.items() if value is not None}
            lines = ["[[pipeline]]", f"pass = {_toml(entry.name)}", *(f"{k} = {_toml(v)}" for k, v in options.items())]
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, float) and value != value:  # noqa: PLR0124
        return "nan"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)  # booleans, integers and strings are written alike in TOML


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: No such file, not TOML, an unknown version, section or key, or a value of the wrong type.
    """
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: the recipe cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{file}: not a recipe: it is nested too deep") from None
    return replace(_recipe(document, str(file)), file=file)


def _recipe(document: dict[str, Any], file: str) -> Recipe:
    if type(document.get("version")) is not int or document["version"] != VERSION:  # neither `true` nor 1.0
        raise UsageError(f"{file}: a recipe starts with `version = {VERSION}`, not {document.get('version')!r}")
    for key in document:
        if key not in {"version", "pipeline", *_SECTIONS}:
            raise UsageError(f"{file}: unknown section [{key}]{nearest(key, ['pipeline', *_SECTIONS])}")
    sections = {name: _section(document.get(name, {}), name, file) for name in _SECTIONS}
    return Recipe(
        _pipeline(document.get("pipeline"), file),
        target=sections["target"].get("name"),
        source=sections["data"].get("source"),
        evaluation=sections["data"].get("evaluation"),
        preprocess=sections["data"].get("preprocess"),
        samples=sections["data"].get("samples"),
        calibration_table=sections["data"].get("calibration_table"),
        max_drop=sections["budget"].get("max_drop"),
        metric=sections["budget"].get("metric"),
        require=sections["budget"].get("require"),
        never_slower=sections["guard"].get("never_slower", True),
    )


def _section(values: Any, name: str, file: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageError(f"{file}: [{name}] is a section, not a value")
    for key, value in values.items():
        kinds = _SECTIONS[name]
        if key not in kinds:
            raise UsageError(f"{file}: unknown key '{key}' in [{name}]{nearest(key, kinds)}")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
            raise UsageError(f"{file}: [{name}] {key} = {value!r} has the wrong type")
    return dict(values)


def _pipeline(entries: Any, file: str) -> Pipeline:
    if isinstance(entries, str):
        return parse(entries)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise UsageError(f'{file}: a recipe needs at least one [[pipeline]] with `pass = "…"`')
    for entry in entries:
        if not isinstance(entry.get("pass"), str):
            raise UsageError(f'{file}: each [[pipeline]] needs `pass = "…"`')
    return Pipeline(tuple(Entry(e["pass"], {k: v for k, v in e.items() if k != "pass"}) for e in entries))


@contextmanager
def naming_recipe(recipe: Recipe | None) -> Iterator[None]:
    """Say of data that are not there that the recipe asks for them, and where its paths start.

    Raises:
        UsageError: They are not there.
    """
    try:
        yield
    except MissingData as error:
        place = Path(error.place)
        if recipe is None or place not in {Path(said) for said in (recipe.source, recipe.evaluation) if said}:
            raise
        start = "" if place.is_absolute() else f": its paths start at the current folder, {Path.cwd()}"
        beside = (recipe.file or Path()).parent / place
        hint = f"; give {beside} with --data, or run from {beside.parent}" if beside.exists() else ""
        raise UsageError(f"the data {place} of the recipe {recipe.file or 'given'} do not exist{start}{hint}") from None


def resolved_pipeline(stages: list[StageRecord]) -> Pipeline:
    """The passes that were kept, with the options they really used; repeated pipelines stay under their name."""
    entries: list[Entry] = []
    for stage in stages:
        if not stage.kept:
            continue
        for step, records in stage.steps:
            if step.repeat > 1:
                entries += parse(step.name).entries
            else:
                entries += [Entry(r.name, _written(r.options)) for r in records]
    return Pipeline(tuple(entries))


def _written(options: dict[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in options.items() if v is not None}
