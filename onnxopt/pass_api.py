"""What a pass is, and what it may ask for.

A pass is a class with a `name`, an `effect`, options and one method:

```python
class DropDropout(Pass):
    \"\"\"Remove Dropout nodes, which do nothing at inference.\"\"\"

    name = "drop-dropout"
    effect = "exact"
    limit: int = option(default=100, help="Remove at most so many.", low=0)

    def run(self, graph: Graph, context: Context) -> bool:
        ...
```

`effect` is a promise that verification and tests hold the pass to:

* `exact`: outputs equal bit for bit;
* `rounding`: outputs differ by no more than float rounding, as a runtime's own fusions do;
* `lossy`: outputs change; the pass gives a `reference` where there is one to compare with.
"""

import dataclasses
import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar, cast, dataclass_transform

from onnxopt.data import Dataset, InputSpec
from onnxopt.errors import OptimizationError, UsageError, nearest
from onnxopt.graph import Graph, Node, Tensor, label
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.report.record import PassRecord
from onnxopt.targets import Target

Effect = Literal["exact", "rounding", "lossy"]
T = TypeVar("T")


def option(
    *,
    default: Any,
    help: str,  # noqa: A002  (the word users know)
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """Declare an option of a pass: a typed field with default, help and range, written once.

    Args:
        default: Value where the user gives none; immutable.
        help: One sentence for `--help`, docs and error messages.
        low: Smallest allowed number.
        high: Largest allowed number.
        choices: The allowed values.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionSpec:
    """An option as the CLI, recipes, docs and validation see it."""

    name: str
    type: Any
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...] | None

    def convert(self, value: Any, owner: str) -> Any:
        """Value of the option's type from text, TOML or Python.

        Raises:
            UsageError: Wrong type, out of range, or none of the choices.
        """
        kinds = typing.get_args(self.type) if _is_union(self.type) else (self.type,)
        for kind in kinds:
            converted = _convert(value, kind)
            if converted is not _NO:
                self._check(converted, owner)
                return converted
        wanted = " or ".join(_type_name(kind) for kind in kinds)
        raise UsageError(f"{owner}: option {self.name} takes {wanted}, not {value!r}")

    def _check(self, value: Any, owner: str) -> None:
        if self.choices is not None and value is not None and value not in self.choices:
            known = [str(c) for c in self.choices]
            raise UsageError(f"{owner}: {self.name}={value} is unknown{nearest(str(value), known)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value != value:  # noqa: PLR0124  (NaN)
                raise UsageError(f"{owner}: {self.name} is not a number")
            if self.low is not None and value < self.low:
                raise UsageError(f"{owner}: {self.name}={value} is below {self.low}")
            if self.high is not None and value > self.high:
                raise UsageError(f"{owner}: {self.name}={value} is above {self.high}")


_NO = object()


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in {typing.Union, types.UnionType}


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a list of {_type_name(typing.get_args(kind)[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "none"}
    return names.get(kind, str(kind))


def _convert(value: Any, kind: Any) -> Any:
    """Value as `kind`, or `_NO`."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        values = value if isinstance(value, list | tuple) else [value]
        converted = [_convert(v, element) for v in values]
        return _NO if any(c is _NO for c in converted) else tuple(converted)
    if kind is type(None):
        return None if value is None or value == "none" else _NO
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind in {bool, int, float} and type(value) is kind:
        return value
    return _NO


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
class Pass(ABC):
    """One transformation of a graph. Subclasses become frozen dataclasses; their fields are the options.

    Attributes:
        name: Kebab-case name, equal to the entry point's.
        effect: What the pass does to outputs.
        requires: Types of artefacts that must be there, e.g. `(CalibrationTable,)`; checked before anything runs.
        provides: Types of artefacts that the pass makes.
        preserves: Analyses that still hold after the pass changed the graph.
        needs_data: Whether the pass runs the model on samples.
    """

    name: ClassVar[str] = ""
    effect: ClassVar[Effect] = "exact"
    requires: ClassVar[tuple[type, ...]] = ()
    provides: ClassVar[tuple[type, ...]] = ()
    preserves: ClassVar[tuple[type, ...]] = ()
    needs_data: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for spec in self.options():
            object.__setattr__(self, spec.name, spec.convert(getattr(self, spec.name), self.name))

    @classmethod
    def options(cls) -> tuple[OptionSpec, ...]:
        """The options in order of declaration.

        Raises:
            OptimizationError: An option's type cannot be resolved at run time.
        """
        if inspect.isabstract(cls):
            return ()
        try:
            kinds = typing.get_type_hints(cls)
        except NameError as error:
            raise OptimizationError(
                f"pass {cls.name}: an option's type is not importable at run time ({error}); "
                "move its import out of `if TYPE_CHECKING`"
            ) from None
        return tuple(
            OptionSpec(name=f.name, type=kinds[f.name], default=f.default, **f.metadata)
            for f in dataclasses.fields(cast("Any", cls))
            if "help" in f.metadata
        )

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """Make the pass from text or TOML options.

        Raises:
            UsageError: Unknown option (the nearest is suggested) or bad value.
        """
        known = {spec.name for spec in cls.options()}
        for key in values:
            if key not in known:
                hint = nearest(key, known) if known else "; it takes none"
                raise UsageError(f"{cls.name}: unknown option '{key}'{hint}")
        return cls(**values)

    def option_values(self) -> dict[str, Any]:
        """Current value of each option."""
        return {spec.name: getattr(self, spec.name) for spec in self.options()}

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(cls) or "").split("\n", 1)[0]

    @abstractmethod
    def run(self, graph: Graph, context: "Context") -> bool:
        """Transform the graph in place.

        Returns:
            Whether the graph changed.
        """

    def reference(self, before: Graph, after: Graph) -> Graph | None:  # noqa: ARG002
        """For a lossy pass: a graph whose outputs `after` must equal within rounding; None where there is none."""
        return None


class Analysis(ABC):
    """A fact about a graph: computed on demand, cached on the context, dropped when a pass changes the graph."""

    @classmethod
    @abstractmethod
    def compute(cls, graph: Graph, context: "Context") -> Self:
        """Work the fact out."""


class Context:
    """What surrounds a pass: target, data, analyses, artefacts, and the record of this run.

    Attributes:
        target: What the graph is tuned for.
        inputs: The model's inputs with the shapes it is run at.
        fit: Samples to choose and fit on; None where there are none, or the model cannot be run here.
        holdout: Samples to judge on, disjoint from `fit`.
        cannot_run: Why the model cannot be run here, e.g. operators that are not installed; "" where it can.
        synthetic: True where the samples are made up, or a single one, so that accuracy cannot be judged.
        seed: For every random choice.
        record: Where this pass's notes and counts go.
    """

    def __init__(
        self,
        target: Target,
        *,
        inputs: tuple[InputSpec, ...] = (),
        fit: Dataset | None = None,
        holdout: Dataset | None = None,
        synthetic: bool = False,
        seed: int = 0,
        cannot_run: str = "",
    ) -> None:
        self.target = target
        self.inputs = inputs
        self.fit = fit
        self.holdout = holdout
        self.cannot_run = cannot_run
        self.synthetic = synthetic
        self.seed = seed
        self.record = PassRecord("")
        self._graph: Graph | None = None
        self._analyses: dict[type, Any] = {}
        self._depends: dict[type, set[type]] = {}
        self._computing: list[type] = []
        self._artefacts: dict[type, Any] = {}

    def bind(self, graph: Graph, record: PassRecord) -> None:
        """Let analyses speak of `graph` and notes go to `record`. Called by the manager before each pass."""
        if graph is not self._graph:
            self._analyses.clear()
        self._graph = graph
        self.record = record

    def get(self, kind: type[T]) -> T:
        """An analysis of the current graph (computed if need be) or an artefact that an earlier pass made.

        Raises:
            UsageError: No pass has made this artefact.
        """
        for waiting in self._computing:
            self._depends.setdefault(waiting, set()).add(kind)
        if kind in self._artefacts:
            return cast("T", self._artefacts[kind])
        if kind not in self._analyses:
            if not issubclass(kind, Analysis):
                raise UsageError(f"no pass has made a {kind.__name__} yet; put the pass that provides it before")
            if self._graph is None:
                raise OptimizationError("an analysis was asked for outside a pass")
            self._computing.append(kind)
            try:
                self._analyses[kind] = kind.compute(self._graph, self)
            finally:
                self._computing.pop()
        return cast("T", self._analyses[kind])

    def has(self, kind: type) -> bool:
        """Whether an artefact is there."""
        return kind in self._artefacts

    def put(self, artefact: Any) -> None:
        """Leave an artefact for later passes, in place of an earlier one of its type."""
        self._artefacts[type(artefact)] = artefact

    def invalidate(self, preserved: tuple[type, ...] = ()) -> None:
        """Drop analyses but `preserved`, and with each dropped one those that were computed from it."""
        keep = {kind for kind in self._analyses if kind in preserved}
        keep = {k for k in keep if all(d in keep or d in self._artefacts for d in self._depends.get(k, ()))}
        self._analyses = {kind: value for kind, value in self._analyses.items() if kind in keep}

    def cannot_try(self, graph: Graph) -> str:
        """Why a graph cannot be run on samples to be fitted and judged; empty where it can."""
        if self.cannot_run:
            return self.cannot_run
        if self.fit is None or self.holdout is None:
            return "there are no samples to fit and judge on; give data"
        return "a model over 2 GB is not run on trial" if graph.nbytes() > PROTOBUF_LIMIT else ""

    def note(self, where: Node | Tensor | str, reason: str) -> None:
        """Say why something was left alone."""
        if isinstance(where, Node):
            where = label(where)
        self.record.notes.append((where if isinstance(where, str) else where.name, reason))

    def count(self, what: str, number: int = 1) -> None:
        """Count something that was done."""
        self.record.counts[what] = self.record.counts.get(what, 0) + number

    def resolve(self, **options: Any) -> None:
        """Say what an option that stood for `decide yourself` came to; it goes into the resolved recipe."""
        self.record.options.update(options)
