"""Fit the ranges of those quantizers that cost the outputs most, by what the outputs say.

How far a range should reach no statistic of its tensor tells: outliers that matter to one layer are noise to the next.

1. Weights stay float, every quantizer gets a switch (see `evaluation.sensitivity`). One whose own noise already ruins
   the outputs would drown all others; its range is fitted alone. Where that does not help enough, it stays off:
   `keep-float` takes care of it.
2. With all others on, the range of each, those that cost most alone first, is made smaller step by step for as long as
   the noise of the outputs falls; where that does not help, larger. Ends beyond the new reach are cut off.
3. What was found stays if it helps on held-out samples too.

Noise is the power of the error over that of the signal, summed over the parts of the outputs.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TypeAlias

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.given import METHOD
from onnxopt.calibration.measure import Ranging
from onnxopt.calibration.store import TableFile, complete, replace_ranges
from onnxopt.calibration.table import CalibrationEntry, CalibrationTable
from onnxopt.data import Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.agreement import decibels
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.evaluation.sensitivity import Switchboard
from onnxopt.placement import Placement, plan
from onnxopt.placement.retarget import refuse_pairs
from onnxopt.runtime.host import cores

RANKED_ON, JUDGED_ON = 1, 8  # samples to rank on, and held-out ones
RUINOUS = 12.0  # dB of the worst output with one quantizer alone
COARSE = (0.8, 1.25)  # steps of the reach
FINE = (0.92, 1.09)
PATIENCE = 2  # noise does not fall evenly
LEAST, LARGEST = 0.15, 1.6  # shares of the calibrated reach
GAIN = 0.99  # of the noise; what is left above that is chance
FITTED = "fitted"

Reach: TypeAlias = dict[str, float]  # name of a wider group to the share of its calibrated reach


class FitRanges(Pass):
    """Fit the ranges that cost the outputs most, by the outputs themselves.

    When to use it: after `calibrate`, for a model that loses much in int8; `quantize{ranges=16}` does it. Speed of the
    model stays what it was. It needs no labels and wins two dB and more on detectors. It runs the model some hundred
    times, which takes minutes, and few samples may mislead it (PP-OCR's recognizer came out worse): compare scores.

    Example:
        fit-ranges{most=16, enough=30} also fits models that lose little

    Effect: exact. The graph is not touched; the ranges in the `CalibrationTable` change.
    """

    name = "fit-ranges"
    effect = "exact"
    requires = (CalibrationTable, Ranging)
    needs_data = True

    enough: float = option(default=18.0, help="Leave the ranges alone where all outputs have so many dB.")
    most: int = option(default=0, help="Try so many ranges, those that cost most; 0: none.", low=0)
    samples: int = option(default=8, help="Fit on so many samples.", low=1)
    shares: tuple[str, ...] | None = option(
        default=None, help='Give tensors these shares of their ranges, as in shares=["tensor=0.8"]; default: search.'
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Search, unless the shares are given, and change the table."""
        if self.shares is None and not self.most:
            return False
        refuse_pairs(graph, f"put {self.name} before insert-qdq")
        placement = plan(graph, context.target, context.get(Shapes))
        table = context.get(CalibrationTable)
        complete(graph, list(placement.tensors), table, context.get(Ranging), context)
        if self.shares is None:
            reach = self._found(graph, context, placement, table)
            context.resolve(shares=tuple(f"{name}={share!r}" for name, share in reach.items()))
        else:
            reach = _unfitted(_parsed(self.shares, placement), placement, table)
        if reach:
            replace_ranges(table, _scaled(table, placement, reach), context)
            context.count("ranges fitted", len(reach))
        return False

    def _found(self, graph: Graph, context: Context, placement: Placement, table: CalibrationTable) -> Reach:
        if not placement.weights:
            return {}
        why_not = self._why_not(context, placement, table)
        if why_not:
            context.note(graph.source, f"ranges stay as they were calibrated: {why_not}")
            return {}
        return _Search(graph, context, placement, self).run()

    def _why_not(self, context: Context, placement: Placement, table: CalibrationTable) -> str:
        if context.synthetic or context.fit is None or context.holdout is None:
            return "there are no samples to fit and judge on; give data"
        if context.has(TableFile) and (file := context.get(TableFile)).found is not None:
            return f"{file.path} has them"
        if any(table[name].method == METHOD for name in placement.tensors):
            return "the model was quantized when it came, perhaps trained with them"
        return ""


class _Search:
    def __init__(self, graph: Graph, context: Context, placement: Placement, options: FitRanges) -> None:
        assert context.fit is not None
        assert context.holdout is not None
        self.graph, self.context, self.placement, self.options = graph, context, placement, options
        self.table = context.get(CalibrationTable)
        self.board = Switchboard(graph, context.target, placement, self.table, threads=cores())
        self.members: dict[str, set[str]] = {}
        for tensor in placement.tensors.values():
            self.members.setdefault(tensor.wider, set()).add(tensor.group)
        self.wanted = self._outputs(context.fit.take(options.samples))

    def run(self) -> Reach:
        everything = self.board.quantized(self.table, self.board.groups)
        reached = self.wanted.worst_sqnr_db(everything)
        if reached >= self.options.enough:
            self._stay(f"outputs have {reached:.1f} dB, and {self.options.enough:g} dB are enough")
            return {}
        reach = self._cured()
        on = [name for name in self.ranked if self._is_sound(self.alone[name]) or name in reach]
        least = self.noise(reach, on, self.wanted)
        for name in on[: self.options.most]:
            reach, least = self._fitted(name, reach, least, on)
        assert self.context.holdout is not None
        held_out = self._outputs(self.context.holdout.take(JUDGED_ON))
        before, after = (self.noise(r, on, held_out) for r in ({}, reach))
        self.context.record.details["sqnr_db"] = {"before": decibels(before), "fitted": decibels(after)}
        if reach and after > GAIN * before:
            self._stay("others did not help held-out samples")
            return {}
        return reach

    def _stay(self, why: str) -> None:
        self.context.note(self.graph.source, f"ranges stay as they were calibrated: {why}")

    def _cured(self) -> Reach:
        """Reach of those that ruin the outputs, fitted alone, where it ends that."""
        reach: Reach = {}
        for name in self.ranked[: self.options.most]:
            if not self._is_sound(self.alone[name]):
                noise = self.noise({}, [name], self.wanted)
                found, noise = self._fitted(name, {}, noise, [name])
                found, noise = self._fitted(name, found, noise, [name], FINE)
                reach |= found if self._is_sound(noise) else {}
        return reach

    def _is_sound(self, noise: float) -> bool:
        return decibels(noise) >= RUINOUS

    def _outputs(self, samples: Iterable[Sample]) -> FloatOutputs:
        return FloatOutputs(self.graph, [s.feeds for s in samples], threads=cores())

    @cached_property
    def alone(self) -> dict[str, float]:
        """Noise of each wider group alone."""
        return {
            name: self.wanted.noise(self.board.quantized(self.table, groups), RANKED_ON)
            for name, groups in self.members.items()
        }

    @cached_property
    def ranked(self) -> list[str]:
        """All of them, the noisiest first."""
        return sorted(self.alone, key=lambda name: -self.alone[name])

    def noise(self, reach: Reach, on: Iterable[str], wanted: FloatOutputs) -> float:
        """Noise of the outputs with some wider groups on."""
        groups = set().union(*(self.members[name] for name in on))
        return wanted.noise(self.board.quantized(_scaled(self.table, self.placement, reach), groups))

    def _fitted(
        self, name: str, reach: Reach, least: float, on: Sequence[str], steps: Sequence[float] = COARSE
    ) -> tuple[Reach, float]:
        """Make one range smaller, or else larger, until that has not helped `PATIENCE` times running."""
        before = reach
        for step in steps:
            share, misses = reach.get(name, 1.0), 0
            while misses < PATIENCE and LEAST <= (share := share * step) <= LARGEST:
                noise = self.noise({**reach, name: share}, on, self.wanted)
                if noise < least:
                    reach, least, misses = {**reach, name: share}, noise, 0
                else:
                    misses += 1
            if reach is not before:
                break
        return reach, least


def _scaled(table: CalibrationTable, placement: Placement, reach: Reach) -> CalibrationTable:
    """The ranges of a placement, some of them with a share of their reach."""
    scaled = CalibrationTable(table.model)
    for tensor in placement.tensors.values():
        entry, share = table[tensor.name], reach.get(tensor.wider, 1.0)
        if share != 1.0:
            end = share * max(-entry.low, entry.high)
            low, high = (
                (max(entry.low, -end), min(entry.high, end)) if share < 1 else (entry.low * share, entry.high * share)
            )
            entry = CalibrationEntry(low, high, FITTED, entry.images)
        scaled[tensor.name] = entry
    return scaled


def _unfitted(reach: Reach, placement: Placement, table: CalibrationTable) -> Reach:
    """Without those whose ranges the user's table has as they were fitted: a share applies once."""
    fitted = {t.wider for t in placement.tensors.values() if table[t.name].method == FITTED}
    return {name: share for name, share in reach.items() if name not in fitted}


def _parsed(shares: tuple[str, ...], placement: Placement) -> Reach:
    """Read what was given.

    Raises:
        UsageError: It is no tensor and number, or no tensor that is quantized.
    """
    known = {t.wider for t in placement.tensors.values()}
    reach: Reach = {}
    for text in shares:
        name, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf:
            raise UsageError(f"fit-ranges: '{text}' should be a tensor and a share of its range, such as 'x=0.8'")
        if name not in known:
            raise UsageError(f"fit-ranges: no quantizer of a tensor '{name}' at this place in the pipeline")
        reach[name] = share
    return reach
