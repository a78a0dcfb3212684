"""Measure the ranges of the tensors that will get a quantizer.

1. The placement for the target says which tensors those are; nothing else is measured.
2. Ranges that the user's file has (`--calibration-table`) are taken from it (see `calibration.store`).
3. Those of Q/DQ pairs that `strip-qdq` took out are kept (see `calibration.given`).
4. Ranges that follow from another tensor's are derived (see `calibration.derive`).
5. One streaming sweep over the calibration samples serves all of them, in constant memory.
6. Which method makes the better ranges differs from model to model, by eight dB and more. Where none is named, each is
   tried on held-out samples: weights stay float, every quantizer gets a switch (see `evaluation.sensitivity`), and the
   method stays that leaves the outputs the least noise. Quantizers that ruin the outputs alone are off meanwhile; they
   would drown all others, and `keep-float` takes care of them.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.shapes import Shapes
from onnxopt.calibration.given import GivenRanges, entries
from onnxopt.calibration.measure import Ranging, choose_ranges
from onnxopt.calibration.methods import DEFAULT_METHOD, DEFAULT_PERCENTILE, METHODS, Method
from onnxopt.calibration.store import complete, open_table, replace_ranges
from onnxopt.calibration.table import CalibrationTable
from onnxopt.evaluation.agreement import decibels
from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.evaluation.sensitivity import Alone, Switchboard
from onnxopt.placement import Placement, check_ignored, plan
from onnxopt.placement.emit import group_parameters
from onnxopt.runtime.host import cores

RANKED_ON, JUDGED_ON = 1, 16  # held-out samples
RUINOUS = 12.0  # dB of the outputs with one quantizer alone
GAIN = 0.5  # dB by which a method must be better than the usual one; less is chance


class Calibrate(Pass):
    """Measure the ranges of the tensors that will be quantized, on the calibration samples.

    When to use it: before `insert-qdq`; the pipeline `quantize` runs both. The table it makes may be used by any
    later pass. With `--calibration-table FILE` ranges that the file has are taken from it and only the others are
    measured; a file that is not there is written.

    Example:
        calibrate{method=percentile, percentile=99.99}

    Effect: exact. The graph is not touched; the result is a `CalibrationTable` on the context.
    """

    name = "calibrate"
    effect = "exact"
    provides = (CalibrationTable, Ranging)
    needs_data = True

    method: str | None = option(
        default=None,
        help="How far a range reaches; default: by the method that keeps held-out outputs closest.",
        choices=METHODS,
    )
    percentile: float = option(
        default=DEFAULT_PERCENTILE, help="Share of values kept, in percent, by percentile and auto.", low=50, high=100
    )
    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes that stay float, as in insert-qdq.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Sweep once and leave the table."""
        check_ignored(self.name, graph, self.ignore)
        placement = plan(graph, context.target, context.get(Shapes), self.ignore)
        if self.percentile != DEFAULT_PERCENTILE and self.method not in {None, "percentile", "auto"}:
            context.note(graph.source, f"percentile={self.percentile:g} has no effect with method={self.method}")
        names = list(placement.tensors)
        table = open_table(graph, names, context)
        read = len(names) - len(table.missing(names))
        if self.method is not None and names and read == len(names):
            context.note(graph.source, f"method={self.method} has no effect: the calibration table has all ranges")
        known = _given(graph, table, context)
        kept = sum(name in known for name in names)
        choose = self.method is None and _can_choose(graph, context, placement, table)
        ranging = Ranging(cast("Method", self.method or DEFAULT_METHOD), self.percentile, histogram=choose)
        measured, derived = complete(graph, names, table, ranging, context)
        if self.method is None:
            ranging = _Choice(graph, context, placement, table).run(ranging) if choose else ranging
            context.resolve(method=ranging.method)
        context.put(table)
        context.put(ranging)
        if read:
            context.count("ranges read", read)
        if kept:
            context.count("ranges kept from the given pairs", kept)
        context.count("tensors measured", measured)
        context.count("tensors derived", derived)
        return False


def _given(graph: Graph, table: CalibrationTable, context: Context) -> set[str]:
    """Add to the table what the pairs of the given model said and the user's file does not; returns the names."""
    if not context.has(GivenRanges):
        return set()
    graph.sort()
    known = entries(graph, context.get(GivenRanges), context.target.activation)
    names = table.missing(known)
    for name in names:
        table[name] = known[name]
    return set(names)


def _can_choose(graph: Graph, context: Context, placement: Placement, table: CalibrationTable) -> bool:
    """Whether there is something to choose and to judge by."""
    if context.synthetic or context.fit is None or context.holdout is None:
        return False
    return bool(placement.weights and table.missing(placement.tensors)) and graph.opset >= context.target.opset_floor


class _Choice:
    """Which method is the best one for a model whose tensors have been measured with histograms."""

    def __init__(self, graph: Graph, context: Context, placement: Placement, table: CalibrationTable) -> None:
        assert context.holdout is not None
        self.graph, self.context, self.placement, self.table = graph, context, placement, table
        self.boards: dict[tuple[np.dtype[Any], ...], Switchboard] = {}
        self.wanted = FloatOutputs(graph, [s.feeds for s in context.holdout.take(JUDGED_ON)], threads=cores())

    def run(self, usual: Ranging) -> Ranging:
        """Try all, put the ranges of the best one into the table, and into the user's file if this run writes it."""
        off: frozenset[str] = frozenset()
        noise = {usual: self.noise(self.table, off)}
        if decibels(noise[usual]) < RUINOUS:
            off = self._ruinous()
            noise = {usual: self.noise(self.table, off)}
        others = {m: self._ranges(Ranging(m, usual.percentile)) for m in METHODS if m != usual.method}
        noise |= {Ranging(m, usual.percentile): self.noise(table, off) for m, table in others.items()}
        self.context.record.details["sqnr_db"] = {r.method: decibels(n) for r, n in noise.items()}
        best = min(noise, key=lambda r: noise[r])
        if best == usual or decibels(noise[best]) < decibels(noise[usual]) + GAIN:
            return usual
        replace_ranges(self.table, others[best.method], self.context)
        return best

    def noise(self, table: CalibrationTable, off: frozenset[str]) -> float:
        """Noise of held-out outputs with the ranges of a table, all quantizers on but some."""
        board = self._board(table)
        return self.wanted.noise(board.quantized(table, set(board.groups) - off))

    def _board(self, table: CalibrationTable) -> Switchboard:
        """One that has the number formats that a table asks for; most tables ask for the same."""
        target, groups = self.context.target, self.placement.groups
        formats = tuple(group_parameters(target, self.placement, table, group)[1].dtype for group in groups)
        if formats not in self.boards:
            self.boards[formats] = Switchboard(self.graph, target, self.placement, table, threads=cores())
        return self.boards[formats]

    def _ruinous(self) -> frozenset[str]:
        """Groups of tensors that ruin the outputs alone."""
        alone = self._board(self.table).alone(self.wanted, self.table, RANKED_ON)
        self.context.put(Alone.of(alone, self.table))
        return frozenset(g for g, noise in alone.items() if decibels(noise) < RUINOUS)

    def _ranges(self, ranging: Ranging) -> CalibrationTable:
        """A copy of the table with ranges chosen by another method where they were measured."""
        found = choose_ranges(self.graph, self.table.statistics, self.context.target, ranging, self._sources)
        copy = CalibrationTable(self.table.model)
        for name in self.table:
            copy[name] = found[name] if name in found else self.table[name]
        return copy

    @property
    def _sources(self) -> Mapping[str, tuple[str, ...]]:
        return {name: self.table[name].derived_from for name in self.table}
