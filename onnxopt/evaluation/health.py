"""Is the model worth touching? What would make every later number meaningless is refused here."""

from collections.abc import Iterator

import numpy as np
import onnx

from onnxopt.errors import UsageError
from onnxopt.graph import Array, Graph, Tensor, is_standard, label

_ONNX = "ai.onnx."
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check_weights(graph: Graph) -> list[str]:
    """Look through all float constants.

    Returns:
        Remarks: constants with infinities outside of weights (attention masks have them), custom operators.

    Raises:
        UsageError: NaN anywhere, or an infinity in the weights of Conv, Gemm or MatMul.
    """
    remarks = []
    weights = {id(_origin(t)): n for n in graph.walk() if n.op in _WEIGHTED for t in n.inputs[1:]}
    for tensor, values in _float_constants(graph):
        if bool(np.isfinite(values).all()):
            continue
        node = weights.get(id(tensor)) or next(iter(tensor.outputs), None)
        where = f"{graph.source}: '{tensor.name}'" + (f" of {label(node)}" if node is not None else "")
        if np.isnan(values).any():
            raise UsageError(f"{where} holds NaN; the model is broken, export it from an intact checkpoint")
        if id(tensor) in weights:
            raise UsageError(
                f"{where} holds infinite weights; the model is broken, export it from an intact checkpoint"
            )
        remarks.append(f"{where} holds infinities; kept as they are")
    custom = custom_operators(graph)
    if custom:
        remarks.append(f"custom operators are carried through untouched: {', '.join(custom)}")
    misplaced = [name.removeprefix(_ONNX) for name in custom if name.startswith(_ONNX)]
    if misplaced:
        remarks.append(
            f"ONNX has no operator {', '.join(misplaced)}: such a model runs only where a plug-in has that name; "
            "where none is meant, export it again"
        )
    return remarks


def custom_operators(graph: Graph) -> list[str]:
    """Operators that are neither ONNX's nor ONNX Runtime's, as `domain.name`, sorted.

    Exporters for TensorRT write plug-ins into ONNX's own domain; those count.
    """
    known = {"ai.onnx.ml", "com.microsoft"}
    return sorted(
        {
            f"{n.domain or _ONNX[:-1]}.{n.op}"
            for n in graph.walk()
            if (not onnx.defs.has(n.op) if is_standard(n) else n.domain not in known)
        }
    )


def _float_constants(graph: Graph) -> Iterator[tuple[Tensor, Array]]:
    """Initializers, used or not, and what `Constant` nodes hold, as far as NumPy knows the type."""
    for constant in [*graph.initializers(), *graph.unused_initializers]:
        if not isinstance(constant.dtype, int) and np.dtype(constant.dtype).kind == "f":
            yield constant, constant.values
    for node in graph.walk():
        value = graph.constant(node.outputs[0]) if node.op == "Constant" and is_standard(node) else None
        if value is not None and value.dtype.kind == "f":
            yield node.outputs[0], value


def _origin(tensor: Tensor) -> Tensor:
    """What a tensor is a copy of."""
    while tensor.inputs and tensor.inputs[0].op == "Identity" and is_standard(tensor.inputs[0]):
        tensor = tensor.inputs[0].inputs[0]
    return tensor
