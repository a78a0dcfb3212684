"""Numbered text dumps of the graph: `00-input.onnxtxt`, `01-prune.onnxtxt`, …, one for each pass that changed it.

Large weights are shown by type, shape and digest, so that dumps stay small and can be compared with `diff`. The text
is that of `onnx.printer`; `onnx.parser` reads it back, without the large weights.
"""

import hashlib
from pathlib import Path

import onnx
from onnx import numpy_helper, printer

from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.graph_proto import tensor_proto
from onnxopt.manager import Watcher
from onnxopt.model_io import write_text
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Entry

SHOWN = 16  # elements; a larger weight is elided


class Dump(Watcher):
    """Writes a dump before the first pass, and after each pass that changed the graph.

    Args:
        folder: Where to; made where it is missing.

    Raises:
        UsageError: The folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._written = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self._folder}: dumps cannot be written there ({error.strerror})") from None

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:  # noqa: ARG002
        """Dump the input, once."""
        if not self._written:
            self._write("input", "the input", graph)

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:  # noqa: ARG002
        """Dump what a pass made."""
        if context.record.changed:
            self._write(step.name, f"after {Entry(step.name, step.option_values())}", after)

    def _write(self, name: str, title: str, graph: Graph) -> None:
        file = self._folder / f"{self._written:02}-{name}.onnxtxt"
        write_text(file, f"# {title}\n{dump_text(graph)}")
        self._written += 1


def dump_text(graph: Graph) -> str:
    """Text of a graph; each initializer above `SHOWN` elements is a line with its digest instead of its values."""
    model = graph.to_proto(weights=False)
    values = {c.name: c for c in [*graph.initializers(), *graph.unused_initializers]}
    shown, elided = [], []
    for tensor in model.graph.initializer:
        if _elements(tensor) <= SHOWN:
            shown.append(onnx.TensorProto.FromString(tensor.SerializeToString()))
            continue
        elided.append(_digest_line(tensor_proto(values[tensor.name], weights=True)))
        _declare(model, tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(shown)
    return printer.to_text(model) + "\n" + "".join(f"# {line}\n" for line in elided)


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _declare(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    """Keep type and shape of an elided weight as a value info, unless they stand there already."""
    known = [*model.graph.input, *model.graph.value_info]
    if all(value.name != tensor.name for value in known):
        model.graph.value_info.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def _digest_line(tensor: onnx.TensorProto) -> str:
    data = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()
    kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    sizes = ",".join(map(str, tensor.dims))
    return f"{tensor.name}: {kind}[{sizes}] sha256 {hashlib.sha256(data).hexdigest()[:16]}"
