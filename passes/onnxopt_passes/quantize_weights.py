"""Store the weights of MatMul and Gemm in 8 or 4 bits; activations stay float.

The form is the one that ONNX Runtime fuses into MatMulNBits, a DequantizeLinear of its own before each layer:

1. `bits=8`: one scale per output column (opset 13);
2. `bits=4`: one scale per `block` weights along the summed axis and output column (opset 21);
3. Gemm loses transB, which is applied to the weights, and its bias gets one axis: the fusion knows no others;
4. for `ort`, a Relu or Clip behind such a layer becomes Max and Min: the fusion takes a Relu or Clip there for the
   beginning of a quantized layer, and gives up (seen in 1.31);
5. layers that it would not fuse stay: there, the runtime would decode the whole weight in each run. A weight that
   several layers read is encoded once for each.

`embeddings`: rows of a table that Gather picks get one scale each; only the rows picked are decoded.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt import Context, Graph, Node, Pass, UsageError, option
from onnxopt.analysis.scope import Scope
from onnxopt.analysis.shapes import Shapes
from onnxopt.analysis.weight_codes import WeightCodes, encode
from onnxopt.graph import Array, Variable, is_standard

LAYERS = ("MatMul", "Gemm")
FLOORS = {8: 13, 4: 21}


class QuantizeWeights(Pass):
    """Store the weights of MatMul and Gemm in 8 or 4 bits; activations stay float.

    When to use it: for transformers and large Gemms. The file shrinks to a quarter or an eighth; ONNX Runtime runs
    MatMulNBits, which is faster than float where few rows are multiplied at a time (weights then come from memory
    faster), and may be slower where many are. Int4 needs opset 21.

    Example:
        before: `y = MatMul (x, w)`
        after:  `d = DequantizeLinear <axis = 1> (w_int8, scale)`, `y = MatMul (x, d)`

    Effect: lossy. Weights have 256 or 16 values; ONNX Runtime also rounds activations to 8 bits per block.
    """

    name = "quantize-weights"
    effect = "lossy"

    bits: int = option(default=8, help="Bits per weight.", choices=(8, 4))
    block: int = option(
        default=32,
        help="Weights that share a scale, with 4 bits; with 8, a whole column does.",
        choices=(16, 32, 64, 128, 256),
    )
    symmetric: bool = option(default=True, help="Zero point 0; false gives each scale a zero point of its own.")
    scope: tuple[str, ...] = option(default=(), help="Name patterns of the only nodes to quantize.")
    ignore: tuple[str, ...] = option(default=(), help="Name patterns of nodes to leave alone.")
    min_elements: int = option(default=16384, help="Leave weights with fewer elements alone.", low=0)
    embeddings: bool = option(default=False, help="Store tables that Gather reads rows of in 8 bits, too.")

    def run(self, graph: Graph, context: Context) -> bool:
        """Quantize each layer that would be fused."""
        layers = list(self._layers(graph, context))
        tables = list(self._tables(graph, context)) if self.embeddings else []
        if (layers or tables) and graph.opset < FLOORS[self.bits]:
            floor = FLOORS[self.bits]
            raise UsageError(
                f"weights of {self.bits} bits need opset {floor} and {graph.source} has {graph.opset}; "
                f"run upgrade-opset{{floor={floor}}} before"
            )
        for node, weight in layers:
            block = self.block if self.bits == 4 else 0
            _emit(graph, node, encode(weight, self.bits, block, symmetric=self.symmetric), symmetric=self.symmetric)
            if context.target.clip_as_max_min and _free_of_clip(graph, node):
                context.count("Relu and Clip written as Max and Min")
        for node, table in tables:
            _emit_rows(graph, node, table)
        for what, found in (("layers with quantized weights", layers), ("tables quantized", tables)):
            if found:
                context.count(what, len(found))
        return bool(layers or tables)

    def reference(self, before: Graph, after: Graph) -> Graph | None:  # noqa: ARG002
        """The same weights decoded."""
        return _decoded(after)

    def _layers(self, graph: Graph, context: Context) -> Iterator[tuple[Node, Array]]:
        nodes = [n for n in graph.nodes_of(*LAYERS) if is_standard(n)]
        names = [n.name for n in graph.nodes_of(*LAYERS, "Gather")]
        Scope(self.scope, self.ignore).check(self.name, names, "MatMul, Gemm or Gather")
        for node in nodes:
            weight = graph.constant(node.inputs[1])
            reason = self._unwanted(node, weight) or _unfused(graph, node, context.get(Shapes))
            if reason:
                context.note(node, reason)
            elif weight is not None:
                yield node, weight.T if node.attrs.get("transB", 0) else weight

    def _tables(self, graph: Graph, context: Context) -> Iterator[tuple[Node, Array]]:
        for node in graph.nodes_of("Gather"):
            table = graph.constant(node.inputs[0])
            if (
                table is None
                or table.dtype != np.float32
                or table.ndim != 2
                or node.attrs.get("axis", 0) not in {0, -2}
            ):
                continue
            reason = self._unwanted(node, table)
            if reason:
                context.note(node, reason)
            else:
                yield node, table

    def _unwanted(self, node: Node, weight: Array | None) -> str:
        reason = Scope(self.scope, self.ignore).why_not([node.name])
        if reason:
            return reason
        if weight is None:
            return "its second input is no constant"
        if weight.dtype != np.float32:
            return f"its weights are {weight.dtype}, not float32"
        if weight.size < self.min_elements:
            return f"{weight.size} weights are fewer than min_elements={self.min_elements}"
        return "" if np.isfinite(weight).all() else "its weights are not finite"


def _unfused(graph: Graph, node: Node, shapes: Shapes) -> str:
    """Why ONNX Runtime would not make a MatMulNBits of a layer; "" where it would."""
    weight = graph.constant(node.inputs[1])
    if weight is None or weight.ndim != 2 or 0 in weight.shape:
        return "its weights are no matrix"
    if node.op == "MatMul":
        return ""
    if node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1.0:
        return "a Gemm with transA or alpha is not fused"
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2].name)
    return _unfused_bias(graph, node, weight.shape[0 if node.attrs.get("transB", 0) else 1], shapes) if has_bias else ""


def _unfused_bias(graph: Graph, node: Node, columns: int, shapes: Shapes) -> str:
    if node.attrs.get("beta", 1.0) != 1.0:
        return "a Gemm with beta is not fused"
    bias = graph.constant(node.inputs[2])
    if bias is None:
        known = shapes.static(node.inputs[2]) == (columns,)
        return "" if known else "a Gemm whose bias is not one number per column is not fused"
    return "" if bias.size in {1, columns} and bias.shape[-1:] in {(), (1,), (columns,)} else "its bias is a matrix"


def _emit(graph: Graph, node: Node, codes: WeightCodes, *, symmetric: bool) -> None:
    name = node.inputs[1].name
    inputs = [graph.add_constant(f"{name}_quantized", codes.values), graph.add_constant(f"{name}_scale", codes.scale)]
    if not symmetric:
        inputs.append(graph.add_constant(f"{name}_zero_point", codes.zeros))
    attrs = {"axis": 0, "block_size": codes.block} if codes.block else {"axis": 1}
    decoded = Variable(graph.unique_name(f"{name}_dequantized"))
    graph.add_node("DequantizeLinear", inputs, attrs, outputs=[decoded], name=f"{name}_DequantizeLinear", before=node)
    node.inputs[1] = decoded
    node.attrs.pop("transB", None)
    bias = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    columns = codes.values.shape[1]
    if bias is not None and bias.shape != (columns,):
        node.inputs[2] = graph.add_constant(node.inputs[2].name, np.broadcast_to(bias.reshape(-1), (columns,)).copy())


def _free_of_clip(graph: Graph, layer: Node) -> bool:
    """Write a Relu or Clip behind a layer as Max and Min; whether there was one."""
    output = layer.outputs[0]
    while len(readers := graph.consumers(output)) == 1 and not graph.is_output(output):
        reader = readers[0]
        if reader.op in {"Relu", "Clip"} and is_standard(reader):
            _as_max_min(graph, reader)
            return True
        # ONNX Runtime takes these into the layer before it fuses it.
        if reader.op != "Identity" and not (
            reader.op == "Add" and any(graph.constant(t) is not None for t in reader.inputs)
        ):
            return False
        output = reader.outputs[0]
    return False


def _as_max_min(graph: Graph, clip: Node) -> None:
    zero = graph.add_constant(f"{clip.name or 'Relu'}_zero", np.zeros((), np.float32))
    low, high = (zero, None) if clip.op == "Relu" else ((*clip.inputs[1:], None, None)[:2])
    bounds = [(op, t) for op, t in (("Max", low), ("Min", high)) if t is not None and t.name]
    clip.attrs.clear()
    if not bounds:
        clip.op, clip.inputs = "Max", clip.inputs[:1]
        return
    for op, bound in bounds[:-1]:
        source = graph.add_node(op, [clip.inputs[0], bound], name=f"{clip.name}_{op}", before=clip).outputs[0]
        clip.inputs = [source, *clip.inputs[1:]]
    clip.op, clip.inputs = bounds[-1][0], [clip.inputs[0], bounds[-1][1]]


def _emit_rows(graph: Graph, node: Node, table: Array) -> None:
    codes = encode(np.ascontiguousarray(table.T), 8, 0, symmetric=True)  # one scale per row of the table
    name, output = node.inputs[0].name, node.outputs[0]
    rows = graph.add_constant(f"{name}_quantized", np.ascontiguousarray(codes.values.T))
    scales = graph.add_constant(f"{name}_scale", codes.scale[:, None])
    indices, axis = node.inputs[1], {"axis": 0}
    picked = graph.add_node("Gather", [rows, indices], axis, name=node.name, before=node).outputs[0]
    scale = graph.add_node("Gather", [scales, indices], axis, name=f"{node.name}_scale", before=node).outputs[0]
    cast = graph.add_node("Cast", [picked], {"to": 1}, name=f"{node.name}_cast", before=node).outputs[0]
    node.outputs.clear()
    graph.add_node("Mul", [cast, scale], outputs=[output], name=f"{node.name}_scaled", before=node)
    graph.remove(node)


def _decoded(graph: Graph) -> Graph:
    """Copy with each DequantizeLinear of a constant matrix computed."""
    copy = graph.copy()
    for node in copy.nodes_of("DequantizeLinear"):
        values, scale, *zeros = (copy.constant(t) for t in node.inputs)
        if values is None or scale is None or values.ndim != 2 or scale.ndim == 0:
            continue
        block = int(node.attrs.get("block_size", 0))
        if node.attrs.get("axis", 1) != (0 if block else 1):
            continue
        zero = zeros[0] if zeros and zeros[0] is not None else np.zeros(scale.shape, np.int8)
        codes = WeightCodes(values, scale.astype(np.float32), zero, block)
        copy.replace_uses(node.outputs[0], copy.add_constant(node.outputs[0].name, codes.decoded()))
        copy.remove(node)
    return copy
