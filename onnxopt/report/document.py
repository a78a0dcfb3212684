"""What an HTML report shows, as plain values.

`run`, `eval` and `auto` each fill a `Document`; `onnxopt.report.html` draws it and measures nothing itself. Whatever is
left empty has no section. All texts may come from models and file names: they are escaped when they are drawn.
"""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad"]
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Tile:
    """One of the few numbers at the top.

    Attributes:
        value: The number with its unit, e.g. `2.10 x`.
        label: What it is, e.g. `faster on onnxruntime`.
        tone: Whether it is to be read as good or bad news.
    """

    value: str
    label: str
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """One line of a table of figures.

    Attributes:
        name: What was measured.
        cells: One text per column.
        note: How the last cell compares with the first, or why there is none.
        tone: Whether the change is good or bad news.
    """

    name: str
    cells: tuple[str, ...]
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """Figures side by side, e.g. before and after.

    Attributes:
        title: Heading of its section.
        columns: Heads of the cells, e.g. `("before", "after")`.
        rows: The lines.
        text: A paragraph under the heading.
        sortable: Whether a click on a head sorts; for long tables.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    text: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        text: As it was written.
        kept: Whether its result was kept.
        verdict: What came of it, or why it was undone.
        passes: What its passes did, one line each.
        notes: What they left alone: reason, and where.
    """

    text: str
    kept: bool
    verdict: str
    passes: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One model that was tried.

    Attributes:
        name: How it was made.
        latency_ms: Median of one run.
        spread_ms: Half the distance between its quartiles.
        score: Its score.
        low: Lower end of the score's interval; None where none is known.
        high: Upper end.
        bytes: Size of its file.
        front: Whether no other is both faster and better.
        kept: Whether it keeps the budget.
        pick: What it was chosen for, e.g. `safe`; "" where it was not.
    """

    name: str
    latency_ms: float
    spread_ms: float
    score: float
    low: float | None = None
    high: float | None = None
    bytes: int = 0
    front: bool = False
    kept: bool = True
    pick: str = ""


@dataclass(frozen=True)
class Pareto:
    """What was tried, for a plot of score over latency.

    Attributes:
        metric: Name of the score.
        candidates: The models, the one as given first.
        text: What to take and why.
        limit: The worst score that keeps the budget; None where there is none.
        lower_is_better: Whether less of the score is better, as of an error.
    """

    metric: str
    candidates: tuple[Candidate, ...]
    text: str = ""
    limit: float | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class Layer:
    """One layer of the optimized model; None and "" are what is not known.

    Attributes:
        name: Its name in the model as given where it has one there.
        op: Operator.
        kind: Types it computes in, e.g. `uint8, int8`.
        scale: Of its output's quantizer.
        sqnr_db: Of its output against the same tensor of the model as given.
        macs: Multiply-accumulates.
        milliseconds: Of one run, by the runtime's own profiler, conversions that belong to it included.
        before_ms: The same for the model as given.
        bound: What limits it: `compute`, `memory`, `conversion` or `overhead`.
        int8: Whether it runs in int8; None for layers without weights.
        reason: Why not.
    """

    name: str
    op: str
    kind: str = ""
    scale: float | None = None
    sqnr_db: float | None = None
    macs: int | None = None
    milliseconds: float | None = None
    before_ms: float | None = None
    bound: str = ""
    int8: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class Spectrum:
    """How the values of a tensor are spread, and the range that was chosen for its quantizer.

    Attributes:
        tensor: Its name.
        edges: Borders of the bins, ascending, n + 1.
        counts: Values per bin, n.
        low: Lower end of the chosen range.
        high: Upper end.
        sqnr_db: Signal over noise of the quantized tensor.
        clipped: Share of the values outside the range, 0..1.
    """

    tensor: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    low: float
    high: float
    sqnr_db: float
    clipped: float


@dataclass(frozen=True)
class GroupDamage:
    """What it costs to prune a group of channels.

    Attributes:
        group: Its name.
        channels: How many it has.
        kept: How many were kept.
        curve: Channels that stay, as a share, and the damage to the outputs then, ascending in the share.
    """

    group: str
    channels: int
    kept: int
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Mark:
    """Something that a model saw in a picture.

    Attributes:
        label: Its class.
        score: How sure the model is, 0..1.
        corners: x1, y1, x2, y2 in pixels of the picture as embedded; None for a class of the whole picture.
        shared: Whether the other model saw it too.
    """

    label: str
    score: float
    corners: tuple[float, float, float, float] | None = None
    shared: bool = True


@dataclass(frozen=True)
class Picture:
    """One picture, and what two models made of it.

    Attributes:
        name: Of the file or sample.
        image: The bytes of a JPEG or PNG.
        width: Its pixels.
        height: The same.
        before: What the model as given saw.
        after: What the optimized model saw.
        caption: How far they differ, in words.
    """

    name: str
    image: bytes
    width: int
    height: int
    before: tuple[Mark, ...]
    after: tuple[Mark, ...]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, e.g. the environment.

    Attributes:
        title: Heading.
        pairs: Name and value.
    """

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: What it is about, e.g. the model's file name.
        lines: What was done and what came of it, in five lines of plain words.
        tiles: Three to five numbers to remember.
        figures: Before and after.
        warnings: What a reader must know.
        stages: What ran.
        tables: Further figures, e.g. each stage alone, or average precision per class.
        pareto: What was tried.
        layers: The layers of the optimized model, in order of execution.
        layers_text: A paragraph above them.
        spectra: The tensors that suffer most.
        damages: Sensitivity of groups of channels.
        pictures: Worst first.
        facts: Environment, data, digests.
        recipe: Text of the recipe that makes the same model again.
    """

    title: str
    lines: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    figures: Table | None = None
    warnings: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    tables: tuple[Table, ...] = ()
    pareto: Pareto | None = None
    layers: tuple[Layer, ...] = ()
    layers_text: str = ""
    spectra: tuple[Spectrum, ...] = ()
    damages: tuple[GroupDamage, ...] = ()
    pictures: tuple[Picture, ...] = ()
    facts: tuple[Facts, ...] = ()
    recipe: str = ""
