"""Charts of an HTML report, as SVG that takes colours and font from the page, so that it is light or dark with it.

Matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables. Texts stay texts.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxopt.report.document import GroupDamage, Pareto, Spectrum

INK, MUTED, LINE, BLUE, ORANGE, GREEN, PURPLE = (f"#0101{i:02x}" for i in range(1, 8))
VARIABLES = {  # in the page's style, and what they are there in light
    INK: ("ink", "#1d2125"),
    MUTED: ("muted", "#626a73"),
    LINE: ("line", "#e2e3de"),
    BLUE: ("blue", "#0072b2"),
    ORANGE: ("orange", "#c75000"),
    GREEN: ("green", "#00795a"),
    PURPLE: ("purple", "#a3497f"),
}
COLOURED = (BLUE, ORANGE, GREEN, PURPLE)
DASHES = ("-", "--", "-.", ":")  # so that colours are not alone in telling lines apart
PLOT_WIDTH, PLOT_HEIGHT = 540.0, 230.0  # points, about, of the plot of candidates
LETTER, LINE_HEIGHT = 6.5, 13.0  # points, of a bold name
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def pareto_chart(found: Pareto, *, alone: bool = False) -> str:
    """Score over latency: every candidate with its whiskers, the front as a line, what was picked by name.

    Args:
        found: What was tried.
        alone: Whether it is to be a file of its own, which no page gives colours.
    """
    with rc_context({**STYLE, "svg.hashsalt": "pareto"}):
        figure = Figure(figsize=(8.4, 3.9), layout="constrained")
        axes = figure.add_subplot(xlabel="latency, ms", ylabel=found.metric)
        if found.limit is not None:
            axes.axhline(found.limit, color=ORANGE, linewidth=1, linestyle="--")
            where = axes.get_yaxis_transform()
            axes.text(1, found.limit, "budget ", color=ORANGE, transform=where, ha="right", va="bottom")
        front = sorted((c for c in found.candidates if c.front), key=lambda c: c.latency_ms)
        axes.plot([c.latency_ms for c in front], [c.score for c in front], color=BLUE, linewidth=1.2)
        for one in found.candidates:
            colour = BLUE if one.front else MUTED
            low, high = (one.score if end is None else end for end in (one.low, one.high))
            interval = [[max(0.0, one.score - low)], [max(0.0, high - one.score)]]
            axes.errorbar(
                one.latency_ms, one.score, interval, one.spread_ms, ecolor=colour, elinewidth=0.8, fmt="none", alpha=0.6
            )
            face, shape, size = colour if one.kept else "none", "D" if one.pick else "o", 46 if one.pick else 26
            axes.scatter(one.latency_ms, one.score, size, facecolors=face, edgecolors=colour, marker=shape, zorder=3)
        _names(axes, found)
        return _coloured(_drawn(figure)) if alone else _svg(figure)


def _names(axes: Axes, found: Pareto) -> None:
    """Write beside the picks and the model as given what they are; a name moves up until it covers no other."""
    left, right, bottom, top = *axes.get_xlim(), *axes.get_ylim()
    taken: list[tuple[float, float, float]] = []
    for index, one in enumerate(found.candidates):
        name = one.pick or ("as given" if index == 0 else "")
        if not name:
            continue
        x = PLOT_WIDTH * (one.latency_ms - left) / (right - left)
        y = PLOT_HEIGHT * (one.score - bottom) / (top - bottom)
        start, end, up = x, x + LETTER * len(name), 6.0
        while any(a < end and start < b and abs(height - y - up) < LINE_HEIGHT for a, b, height in taken):
            up += LINE_HEIGHT / 2
        taken.append((start, end, y + up))
        axes.annotate(name, (one.latency_ms, one.score), (7, up), textcoords="offset points", weight="bold")


def spectrum_chart(spectrum: Spectrum, number: int) -> str:
    """Histogram of a tensor's values, and the range of its quantizer."""
    with rc_context({**STYLE, "svg.hashsalt": f"spectrum {number}"}):
        figure = Figure(figsize=(4.2, 1.75), layout="constrained")
        axes = figure.add_subplot()
        axes.stairs(spectrum.counts, spectrum.edges, fill=True, color=BLUE, alpha=0.75, baseline=0.5)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        for end in (spectrum.low, spectrum.high):
            axes.axvline(end, color=ORANGE, linewidth=1.4)
        left, right = axes.get_xlim()
        for start, stop in ((left, spectrum.low), (spectrum.high, right)):
            if start < stop:
                axes.axvspan(start, stop, color=ORANGE, alpha=0.12, linewidth=0)
        axes.set_xlim(left, right)
        axes.minorticks_off()
        axes.set_yticklabels([])
        return _svg(figure)


def damage_chart(damages: Sequence[GroupDamage]) -> str:
    """Error of the outputs over the share of channels that stay; the worst groups in colour."""
    order = sorted(damages, key=lambda one: -max((d for _, d in one.curve), default=0.0))
    with rc_context({**STYLE, "svg.hashsalt": "damages"}):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.add_subplot(xlabel="channels that stay, %", ylabel="error of the outputs")
        for one in order[len(COLOURED) :]:
            _curve(axes, one, MUTED, "-", 0.8, 0.45)
        for one, colour, dashes in zip(order, COLOURED, DASHES, strict=False):
            _curve(
                axes, one, colour, dashes, 1.6, 1.0, label=one.group if len(one.group) < 60 else f"{one.group[:58]}…"
            )
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the default writes formulas
        if order:
            axes.legend(loc="upper right")
        return _svg(figure)


def _curve(
    axes: Axes, one: GroupDamage, colour: str, dashes: str, width: float, alpha: float, label: str | None = None
) -> None:
    shown = np.array([(100 * share, damage) for share, damage in one.curve if damage > 0]).reshape(-1, 2)
    axes.plot(*shown.T, color=colour, linestyle=dashes, linewidth=width, alpha=alpha, label=label, marker=".")


def _svg(figure: Figure) -> str:
    """The SVG element alone: as wide as the page lets it be, in the page's colours, without what only editors need."""
    text = _drawn(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1))
    text = re.sub(
        r'<g id="[^"]*"', "<g", text
    )  # ids of groups would repeat from chart to chart; nothing refers to them
    for colour, (variable, _) in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.replace("<svg ", '<svg role="img" ', 1)


def _coloured(text: str) -> str:
    """A file of its own, on white."""
    for colour, (_, light) in VARIABLES.items():
        text = text.replace(colour, light)
    return text.replace('version="1.1">', 'version="1.1" style="background: #fff">', 1)


def _drawn(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()
