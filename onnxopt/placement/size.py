"""Is a weighted layer large enough for a target's int8 kernels?

1. The first layers pass: their few channels are the picture's.
2. Conv, dense: `channels` in and out; or both multiples of `multiple`, one of them at least `channels`, and a square
   kernel. Conv, grouped: `channels` per group and out; or outputs a multiple of `multiple` and a kernel of at least
   `grouped_kernel` on each side.
3. Matrix products: `channels` columns and summed elements, and at least `rows` rows.

The limits are those that NVIDIA's Model Optimizer documents for TensorRT.
"""

from collections.abc import Sequence

from onnxopt.graph import Graph, Node
from onnxopt.targets import SizeLimits


def why_too_small(
    graph: Graph, node: Node, weight: Sequence[int], limits: SizeLimits, output: Sequence[int | str | None] | None
) -> str:
    """Reason for which a weighted layer is too small, "" where it is not.

    Args:
        graph: Where it stands.
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: Shape of its weights.
        limits: The target's.
        output: Shape of its output, where known.
    """
    if not limits.channels or any(t is node.inputs[0] for t in graph.inputs):
        return ""
    if node.op in {"Gemm", "MatMul"}:
        return _why_small_product(node, weight, limits, output)
    group = int(node.attrs.get("group", 1))
    columns = weight[1] * group if node.op == "ConvTranspose" else weight[0]
    summed = weight[0] // group if node.op == "ConvTranspose" else weight[1]
    kernel = list(weight[2:])
    if min(columns, summed) >= limits.channels:
        return ""
    if group > 1:
        passes = columns % limits.multiple == 0 and min(kernel) >= limits.grouped_kernel
    else:
        aligned = columns % limits.multiple == 0 and summed % limits.multiple == 0
        passes = aligned and max(columns, summed) >= limits.channels and len(set(kernel)) == 1
    kind = f"{summed} to {columns} channels" + (f" in {group} groups" if group > 1 else "")
    return "" if passes else f"too small to gain by int8: {kind}"


def _why_small_product(
    node: Node, weight: Sequence[int], limits: SizeLimits, output: Sequence[int | str | None] | None
) -> str:
    summed, columns = weight[-2:] if len(weight) > 1 else (weight[0], 1)
    if node.attrs.get("transB"):
        summed, columns = columns, summed
    if min(summed, columns) < limits.channels:
        return f"too small to gain by int8: a matrix of {summed} by {columns}"
    rows = output[:-1] if output is not None and len(weight) > 1 else None
    if rows is None or not all(isinstance(r, int) for r in rows):
        return ""
    count = 1
    for row in rows:
        count *= int(row or 1)
    return f"too small to gain by int8: a product with {count} row" if count < limits.rows else ""
