"""Verification after each pass, at one of four levels.

| level | after a pass that changed the graph |
|---|---|
| `off` | nothing |
| `structure` | ONNX's checker and strict shape inference pass; inputs and outputs bear the names they had |
| `outputs` | and the graph before and after agree on the given inputs, by the rule of the pass's `effect` |
| `full` | and on samples of the data; a lossy pass agrees with its own `reference` within rounding; `changed` is honest, also where it is False; preserved analyses equal recomputed ones |

The comparison is with the graph before the pass. What was found goes into the pass's record.
"""  # noqa: E501  (a table row is one line)

from collections.abc import Sequence
from hashlib import sha256
from itertools import islice
from typing import Literal

from onnxopt.data import Feeds
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.agreement import DistanceSums
from onnxopt.graph import Array, Graph
from onnxopt.manager import Watcher
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.observers import honesty
from onnxopt.observers.outputs import Outputs, deviation, newly_infinite, rounding_bounds, run, same_bits, serialised
from onnxopt.observers.structure import check_structure
from onnxopt.pass_api import Context, Pass

Level = Literal["off", "structure", "outputs", "full"]
LEVELS: tuple[Level, ...] = ("off", "structure", "outputs", "full")
FULL_SAMPLES = 4  # of the data, beside the given inputs


class Verify(Watcher):
    """Raises an `OptimizationError` that names pass, output and difference where a pass broke its promise.

    Args:
        level: See the table above.
        feeds: What to compare outputs on; at least one for `outputs` and `full`.

    One object watches one run.
    """

    def __init__(self, level: Level, feeds: Sequence[Feeds] = ()) -> None:
        if level in {"outputs", "full"} and not feeds:
            raise ValueError(f"level {level} compares outputs: give feeds")
        self._level = level
        self._feeds = feeds
        # Digest and outputs of the graph seen last, which is the graph before the next pass: each graph runs once.
        self._last: tuple[bytes, Outputs] = b"", []

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:
        """Verify what the pass did.

        Raises:
            OptimizationError: It did not keep its promise.
        """
        if self._level == "full":
            honesty.check_changed(step, before, after, changed=context.record.changed)
        if self._level == "off" or not context.record.changed:
            return
        remark = check_structure(before, after, step.name)
        if remark:
            context.record.checks["structure"] = remark
        if self._level == "full":
            honesty.check_preserved(step, after, context)
        if self._level != "structure":
            context.record.checks["outputs"] = self._compare(step, before, after, context)

    def _compare(self, step: Pass, before: Graph, after: Graph, context: Context) -> str:
        if max(before.nbytes(), after.nbytes()) > PROTOBUF_LIMIT:
            return "not compared: the model is larger than 2 GB"
        feeds = self._all_feeds(context)
        model = serialised(before)
        try:
            wanted = self._outputs(model, feeds)
        except OptimizationError as error:
            return f"not compared: {error}"
        try:
            got = self._outputs(serialised(after), feeds)
        except OptimizationError as error:
            raise OptimizationError(f"pass {step.name} left a model that does not run: {error}") from error
        if _all_equal(wanted, got):
            return "equal"
        if step.effect == "exact":
            raise OptimizationError(f"pass {step.name} promises equal outputs, but {_worst(wanted, got)}")
        if step.effect == "rounding":
            return _check_rounding(step.name, "the graph before", wanted, got, rounding_bounds(model, feeds, wanted))
        _check_finite(step.name, wanted, got)
        context.record.checks["sqnr_db"] = _sqnr(wanted, got)
        reference = step.reference(before, after) if self._level == "full" else None
        return "finite" if reference is None else _check_reference(step.name, reference, got, feeds)

    def _all_feeds(self, context: Context) -> list[Feeds]:
        data = context.holdout if context.holdout is not None else context.fit
        if self._level != "full" or data is None:
            return list(self._feeds)
        return [*self._feeds, *(sample.feeds for sample in islice(data, FULL_SAMPLES))]

    def _outputs(self, model: bytes, feeds: Sequence[Feeds]) -> Outputs:
        digest = sha256(model).digest()
        if self._last[0] != digest:
            self._last = digest, run(model, feeds)
        return self._last[1]


def _all_equal(wanted: Outputs, got: Outputs) -> bool:
    return all(same_bits(off[name], on[name]) for off, on in zip(wanted, got, strict=True) for name in off)


def _worst(wanted: Outputs, got: Outputs) -> str:
    """The output that differs most, in words."""
    pairs = [(off[name], on[name], name) for off, on in zip(wanted, got, strict=True) for name in off]
    a, b, name = max((p for p in pairs if not same_bits(p[0], p[1])), key=lambda p: deviation(p[0], p[1]))
    return f"output '{name}' {_difference(a, b)}"


def _difference(wanted: Array, got: Array) -> str:
    if (wanted.dtype, wanted.shape) != (got.dtype, got.shape):
        return f"was {wanted.dtype}{list(wanted.shape)} and is {got.dtype}{list(got.shape)}"
    return f"differs by {deviation(wanted, got):.3g} of its largest value"


def _check_rounding(name: str, what: str, wanted: Outputs, got: Outputs, bounds: Sequence[dict[str, float]]) -> str:
    worst = 0.0
    for off, on, allowed in zip(wanted, got, bounds, strict=True):
        for output, bound in allowed.items():
            a, b = off[output], on[output]
            if (a.dtype, a.shape) != (b.dtype, b.shape) or deviation(a, b) > bound:
                raise OptimizationError(
                    f"pass {name}: output '{output}' {_difference(a, b)} from {what}; {bound:.3g} is allowed"
                )
            worst = max(worst, deviation(a, b))
    return f"within rounding of {what}: {worst:.2g} of the largest value"


def _check_finite(name: str, wanted: Outputs, got: Outputs) -> None:
    for off, on in zip(wanted, got, strict=True):
        for output in off:
            if newly_infinite(off[output], on[output]):
                raise OptimizationError(f"pass {name}: output '{output}' is not finite any more")


def _check_reference(name: str, reference: Graph, got: Outputs, feeds: Sequence[Feeds]) -> str:
    model = serialised(reference)
    ideal = run(model, feeds)
    if _all_equal(ideal, got):
        return "equal to its reference"
    return _check_rounding(name, "its reference", ideal, got, rounding_bounds(model, feeds, ideal))


def _sqnr(wanted: Outputs, got: Outputs) -> dict[str, float]:
    """Signal-to-noise ratio in dB per output that changed and kept its shape."""
    sums: dict[str, DistanceSums] = {}
    for off, on in zip(wanted, got, strict=True):
        for name in off:
            sums.setdefault(name, DistanceSums()).update(off[name], on[name])
    distances = {name: total.result().sqnr_db for name, total in sums.items()}
    return {name: round(db, 2) for name, db in distances.items() if abs(db) < float("inf")}
