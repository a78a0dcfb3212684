"""From a table that the user keeps to one that a placement can use: what is there is taken, what is missing measured.

1. `open_table` begins with what the user's file holds, if it belongs to this model, and else with nothing.
2. `complete` measures what a placement needs beyond that, in one sweep, and writes the file if there was none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from onnxopt.analysis.cost import WEIGHTED
from onnxopt.analysis.shapes import RunShapes
from onnxopt.calibration.measure import Ranging, measure_ranges
from onnxopt.calibration.table import CalibrationTable
from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.pass_api import Context

SHOWN = 3  # names of tensors in a note


@dataclass(frozen=True)
class TableFile:
    """Artefact: the file in which the user keeps the calibration table.

    Attributes:
        path: The file.
        found: What it held when the run began; None where it was not there, so that the run writes it.
    """

    path: Path
    found: CalibrationTable | None

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Read the file if there is one.

        Raises:
            UsageError: It is no calibration table, or damaged.
        """
        path = Path(path)
        return cls(path, CalibrationTable.load(path) if path.exists() else None)

    def identify(self, table: CalibrationTable) -> dict[str, str]:
        """As the report has it: the file, and the SHA-256 of the ranges that were used."""
        return {"file": str(self.path), "digest": hashlib.sha256(table.to_json().encode()).hexdigest()}


def weights_digest(graph: Graph) -> str:
    """SHA-256 of the weights of all Conv, ConvTranspose, Gemm and MatMul, whatever their order.

    It tells a model from its fine-tuned or pruned self, whose tensors have the same names and other ranges; and it
    stays the same when only the operators around the weights are rewritten, as for another target.
    """
    digests = []
    for node in graph.walk():
        values = graph.constant(node.inputs[1]) if node.op in WEIGHTED and len(node.inputs) > 1 else None
        if values is not None:
            digest = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
            digest.update(values.tobytes())
            digests.append(digest.hexdigest())
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()


def open_table(graph: Graph, names: Sequence[str], context: Context) -> CalibrationTable:
    """The ranges that the user's file holds; an empty table where there is no file.

    Args:
        graph: The model that will be quantized.
        names: Tensors that need a range.
        context: Holds the `TableFile`, if there is one.

    Raises:
        UsageError: The file belongs to another model.
    """
    digest = weights_digest(graph)
    file = context.get(TableFile) if context.has(TableFile) else None
    table = CalibrationTable(digest)
    if file is None or file.found is None:
        return table
    advice = "give the table of this model, or delete the file to have it written anew"
    if file.found.model not in {None, digest}:
        raise UsageError(f"{file.path}: the ranges are of other weights (another model, or other passes); {advice}")
    if file.found.model is None and names and len(file.found.missing(names)) == len(names):
        raise UsageError(f"{file.path}: not one of its tensors is quantized in {graph.source}; {advice}")
    for name in file.found:
        table[name] = file.found[name]
    return table


def complete(
    graph: Graph, names: Sequence[str], table: CalibrationTable, ranging: Ranging, context: Context
) -> tuple[int, int]:
    """Add the ranges that a table lacks, and write the user's file if it was not there.

    Args:
        graph: The float model.
        names: Tensors that need a range.
        table: What is known; changed in place.
        ranging: How ranges are chosen.
        context: Samples, target and file.

    Returns:
        How many ranges were measured, and how many more follow from others.

    Raises:
        UsageError: Something is missing and there are no samples, or the file cannot be written.
    """
    missing = table.missing(names)
    file = context.get(TableFile) if context.has(TableFile) else None
    if missing:
        if context.fit is None:
            raise UsageError(_why_not(missing, file, context))
        new, _ = measure_ranges(graph, missing, context.fit, context.get(RunShapes), context.target, ranging)
        for name in missing:
            table[name] = new[name]
        table.statistics |= new.statistics
    if file is not None and file.found is None:
        table.save(file.path)
    elif file is not None and missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        shown = ", ".join(missing[:SHOWN]) + more
        samples = "made-up samples" if context.synthetic else "the samples"
        context.note(str(file.path), f"has no range for {shown}: measured on {samples}, the file is left as it is")
    derived = sum(bool(table[name].derived_from) for name in missing)
    return len(missing) - derived, derived


def replace_ranges(table: CalibrationTable, found: CalibrationTable, context: Context) -> None:
    """Put other ranges into a table, and into the user's file if this run writes it.

    Raises:
        UsageError: The file cannot be written.
    """
    for name in found:
        table[name] = found[name]
    file = context.get(TableFile) if context.has(TableFile) else None
    if file is not None and file.found is None:
        table.save(file.path)


def _why_not(missing: Sequence[str], file: TableFile | None, context: Context) -> str:
    why = ""
    if file is not None and file.found is not None:
        why = f", for {file.path} has no range for tensor '{missing[0]}'"
    what = f"{context.record.name} has to run the model on samples{why}"
    if context.cannot_run:
        return f"{what}, and that is not possible: {context.cannot_run}"
    return f"{what}; give --data"
