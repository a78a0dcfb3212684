"""A report as one HTML file that needs no network, light and dark.

`write_html` draws a `Document`. Names come from models and file systems, which are not to be trusted: the templates
escape whatever they are given.
"""

import base64
import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnxopt.errors import UsageError
from onnxopt.model_io import write_text
from onnxopt.report.document import Document, GroupDamage
from onnxopt.report.table import bytes_text, count_text

TEMPLATES = Path(__file__).with_name("templates")
MARK = b'<meta name="generator" content="onnxopt">'
NEEDED = ("jinja2", "matplotlib")
SIGNS = {"good": "▲ ", "bad": "▼ "}  # colours alone do not tell everybody


def check_packages() -> None:
    """Say early that a report cannot be drawn.

    Raises:
        UsageError: A package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"an HTML report needs {' and '.join(missing)}; pip install 'onnxopt[report]'")


def is_html_report(file: Path) -> bool:
    """Whether a file looks like one that `write_html` wrote; its beginning tells."""
    try:
        with file.open("rb") as stream:
            return MARK in stream.read(256)
    except OSError:
        return False


def write_html(path: str | Path, document: Document) -> None:
    """Write a report, whole or not at all.

    Args:
        path: The file.
        document: What to show.

    Raises:
        UsageError: A package is missing, or the file cannot be written.
    """
    text = html(document)
    write_text(Path(path), text)


def html(document: Document) -> str:
    """Text of the page.

    Raises:
        UsageError: A package is missing.
    """
    check_packages()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  (an extra)
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "at_half": _at_half,
        "breakable": lambda name: Markup("/<wbr>").join(name.split("/")),  # long names break between their parts
        "bytes": bytes_text,
        "count": count_text,
        "data_url": _data_url,
        "figure": lambda number, form: "equal" if number == math.inf else form % number,
        "key": lambda number: str(number).replace("inf", "Infinity"),  # as JavaScript reads it
        "number": _number,
        "pixel": lambda value: f"{value:.1f}",
        "sign": lambda tone: SIGNS.get(tone, ""),
    }
    return environment.get_template("report.html").render(
        document=document,
        sections=list(_sections(document)),
        charts=_charts(document),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704  (a file of this package)
        script=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),  # noqa: S704
    )


def _sections(document: Document) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that are there."""
    tables = [(f"table-{i}", table.title) for i, table in enumerate(document.tables, 1)]
    parts = [
        ("figures", document.figures.title if document.figures else "", document.figures),
        ("stages", "What was done", document.stages),
        *((anchor, title, True) for anchor, title in tables),
        ("pareto", "What was tried", document.pareto),
        ("pictures", "Pictures", document.pictures),
        ("layers", "Layers", document.layers),
        ("spectra", "Tensors", document.spectra),
        ("damages", "Pruning", document.damages),
        ("reproduce", "To do it again", document.facts or document.recipe),
    ]
    return [(anchor, title) for anchor, title, there in parts if there]


def _charts(document: Document) -> dict[str, Any]:
    from markupsafe import Markup  # noqa: PLC0415

    from onnxopt.report.charts import damage_chart, pareto_chart, spectrum_chart  # noqa: PLC0415  (needs matplotlib)

    # Matplotlib escapes the texts that it writes.
    return {
        "pareto": Markup(pareto_chart(document.pareto)) if document.pareto else "",  # noqa: S704
        "spectra": [Markup(spectrum_chart(one, i)) for i, one in enumerate(document.spectra)],  # noqa: S704
        "damages": Markup(damage_chart(document.damages)) if document.damages else "",  # noqa: S704
    }


def _at_half(one: GroupDamage) -> float | None:
    """Damage at the measured share next to one half."""
    return min(one.curve, key=lambda point: abs(point[0] - 0.5))[1] if one.curve else None


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _number(text: str) -> str:
    """The number that a cell begins with, to sort by; "" where it begins with none."""
    found = re.match(r"\s*([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return found[1].replace(",", "") if found else ""
