"""Whether a pass told the truth: about having changed the graph, and about the analyses that still hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxopt.errors import OptimizationError
from onnxopt.graph import Graph, Node, Tensor
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.pass_api import Analysis, Context, Pass


def check_changed(step: Pass, before: Graph, after: Graph, *, changed: bool) -> None:
    """See that `changed` says what happened. Recorded shapes do not count; nothing is seen above 2 GB.

    Raises:
        OptimizationError: The pass said otherwise.
    """
    if max(before.nbytes(), after.nbytes()) > PROTOBUF_LIMIT:
        return
    really = _essence(before) != _essence(after)
    if changed and not really:
        raise OptimizationError(f"pass {step.name} says that it changed the graph, but it did not")
    if really and not changed:
        raise OptimizationError(f"pass {step.name} changed the graph and says that it did not")


def check_preserved(step: Pass, after: Graph, context: Context) -> None:
    """See that the analyses that the pass declared preserved equal those of the graph it left.

    Raises:
        OptimizationError: One does not.
    """
    for kind in step.preserves:
        if issubclass(kind, Analysis) and not _same(context.get(kind), kind.compute(after, context)):
            raise OptimizationError(f"pass {step.name} declares {kind.__name__} preserved, but it changed")


def _essence(graph: Graph) -> bytes:
    """The file without recorded shapes, and with all initializers in one encoding: reading a value changes it."""
    model = graph.to_proto()
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data") and tensor.data_type != onnx.TensorProto.STRING:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model.SerializeToString(deterministic=True)


def _same(a: Any, b: Any) -> bool:
    """Equality that looks into objects; nodes and tensors are equal if they are the same one."""
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Node | Tensor):
        return False
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return _same(vars(a), vars(b)) if hasattr(a, "__dict__") else bool(a == b)
