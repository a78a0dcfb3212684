"""Is the model worth touching? What would make every later number meaningless is refused here."""

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.graph import Graph, label

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check_weights(graph: Graph) -> list[str]:
    """Look through all float constants.

    Returns:
        Remarks: constants with infinities outside of weights (attention masks have them), custom operators.

    Raises:
        UsageError: NaN anywhere, or an infinity in the weights of Conv, Gemm or MatMul.
    """
    remarks = []
    weights = {id(t): n for n in graph.walk() if n.op in _WEIGHTED for t in n.inputs[1:]}
    for constant in graph.initializers():
        values = constant.values if np.dtype(constant.dtype).kind == "f" else None
        if values is None or bool(np.isfinite(values).all()):
            continue
        node = weights.get(id(constant)) or next(iter(constant.outputs), None)
        where = f"{graph.source}: '{constant.name}'" + (f" of {label(node)}" if node is not None else "")
        if np.isnan(values).any():
            raise UsageError(f"{where} holds NaN; the model is broken, export it from an intact checkpoint")
        if id(constant) in weights:
            raise UsageError(
                f"{where} holds infinite weights; the model is broken, export it from an intact checkpoint"
            )
        remarks.append(f"{where} holds infinities; kept as they are")
    known = {None, "", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
    custom = sorted({f"{n.domain}.{n.op}" for n in graph.walk() if n.domain not in known})
    if custom:
        remarks.append(f"custom operators are carried through untouched: {', '.join(custom)}")
    return remarks
