"""Compute beforehand what does not depend on the input.

1. A node whose inputs are all constant is computed by ONNX Runtime, optimizations off, so that the stored value is
   the one the runtime would compute; a `Constant` node becomes an initializer.
2. Sizes that are known are constants: Shape of a static tensor, and, where only some dimensions are known, what
   Gather, Slice, Concat, Squeeze, Unsqueeze, Cast and integer arithmetic make of the known ones.
3. The target of a Reshape that is put together at run time becomes a constant: a dimension known to equal the
   input's own at that place is 0 ("as it was"), one other unknown is -1 ("what is left").
4. The file grows by no more than `max_bytes` over a whole run: values are stored where the rest of the graph reads
   them, nearest the outputs first, and counted less the initializers that they make superfluous.

Left alone: random operators; quantization of weights (int8 weights behind DequantizeLinear are the point of a
quantized file); operators of other domains; nested graphs and local functions; initializers that a caller may
override; graph outputs, which stay the output of a node.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from onnxopt import Context, Graph, OptimizationError, Pass, option
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Array, Constant, Node, Tensor, is_standard, onnx_dtype
from onnxopt.runtime.ort import OrtSession

RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}
QUANTIZATION = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
NESTED = {"If", "Loop", "Scan", "SequenceMap"}
UNTOUCHED = frozenset(RANDOM | QUANTIZATION | NESTED)
NUMERIC = "biuf"  # kinds of numpy dtypes that ONNX Runtime takes as they are
INFERENCE_LIMIT = 1024  # bytes; larger values say nothing about a node's output shape
MOST_SIZES = 64  # a longer vector is no shape
WIDEST = 2**31 - 1  # larger numbers mean "to the end" and are no sizes


Size = int | str | None


@dataclass(frozen=True)
class FoldedBytes:
    """By how many bytes folding has let the model grow so far in this run."""

    total: int


class FoldConstants(Pass):
    """Compute beforehand what does not depend on the input, shape arithmetic included.

    When to use it: first of all; exports are full of shape arithmetic that hides from other passes what a Reshape or
    a Slice does. `simplify` runs it for you.

    Example:
        before: `s = Shape (x)`, `c = Gather (s, 1)`, `h = Div (c, 2)`, …, `y = Slice (x, 0, h, 1)`, x: [1,64,8,8]
        after:  `y = Slice (x, 0, 32, 1)`

    Effect: exact. ONNX Runtime itself computes the stored values.
    """

    name = "fold-constants"
    effect = "exact"

    max_bytes: int = option(default=1 << 20, help="Let the file grow by no more than so many bytes.", low=0)

    def run(self, graph: Graph, context: Context) -> bool:
        """Evaluate forward, decide backward what to store, then rewrite Reshape targets."""
        graph.sort()
        spent = context.get(FoldedBytes).total if context.has(FoldedBytes) else 0
        known = _Known(graph, context, self.max_bytes)
        choice = _choose(graph, context, known, self.max_bytes - spent)
        for tensor, values in choice.stored:
            graph.replace_uses(tensor, Constant(tensor.name, values))
        targets = sum(_fix_target(graph, n, known) for n in graph.nodes_of("Reshape") if id(n) not in choice.gone)
        graph.remove(*(n for n in graph.nodes if id(n) in choice.gone))
        context.put(FoldedBytes(spent + choice.growth))
        _report(graph, context)
        if choice.gone:
            context.count("nodes folded", len(choice.gone))
        if targets:
            context.count("Reshape targets made constant", targets)
        return bool(choice.gone or targets)


def _report(graph: Graph, context: Context) -> None:
    """Say what kinds of things are left as they are."""
    for node in graph.nodes_of(*NESTED):
        context.note(node, "what stands inside a nested graph is left as it is")
    if graph.functions:
        context.note("model", f"{graph.functions} local functions are left as they are")
    weights = [n for n in graph.nodes_of(*QUANTIZATION) if graph.constant(n.inputs[0]) is not None]
    if weights:
        context.note("model", f"{len(weights)} quantized weights stay quantized")


class _Known:
    """What is known beforehand: whole values, and sizes of which some are known.

    Attributes:
        nodes: Identities of the nodes all of whose outputs are known.
    """

    def __init__(self, graph: Graph, context: Context, limit: int) -> None:
        self._graph = graph
        self._context = context
        self._limit = limit
        self._shapes = context.get(Shapes)
        self._symbols = _symbols(graph)
        self._values: dict[int, Array] = {}
        self._sizes: dict[int, Sizes] = {}
        self._inferred: dict[int, Shape] = {}
        self._absorbed: dict[int, int] = {}
        self.nodes: set[int] = set()
        for node, proto in zip(graph.nodes, graph.to_proto(weights=False).graph.node, strict=True):
            self._visit(node, proto)

    def value(self, tensor: Tensor) -> Array | None:
        """Values of a tensor, where known beforehand."""
        if id(tensor) in self._values:
            return self._values[id(tensor)]
        return self._graph.constant(tensor) if isinstance(tensor, Constant) else None

    def sizes(self, tensor: Tensor) -> "Sizes | None":
        """What is known of a scalar or vector of integers."""
        values = self.value(tensor)
        if values is None:
            return self._sizes.get(id(tensor))
        if values.dtype not in (np.int64, np.int32) or values.ndim > 1 or values.size > MOST_SIZES:
            return None
        return Sizes(tuple(int(v) for v in values.ravel()), values.dtype, scalar=values.ndim == 0)

    def dims(self, tensor: Tensor) -> Shape | None:
        """Dimensions of a tensor: a number, a symbol that stands for one number throughout, or None."""
        shape = self._inferred.get(id(tensor), self._shapes.shape(tensor))
        if shape is None:
            return None
        return tuple(d if d in self._symbols or (isinstance(d, int) and d >= 0) else None for d in shape)

    def absorbed(self, node: Node) -> int:
        """Bytes of initializers that nothing needs any more once the outputs of a known node are stored."""
        return self._absorbed.get(id(node), 0)

    def _visit(self, node: Node, proto: onnx.NodeProto) -> None:
        if not is_standard(node) or node.op in UNTOUCHED:
            return
        rule = SIZE_RULES.get(node.op)
        sizes = rule(node, self) if rule is not None else None
        if sizes is not None:
            self._sizes[id(node.outputs[0])] = sizes
        values = [sizes.array()] if sizes is not None and sizes.complete() else self._compute(node, proto)
        if values is None:
            self._infer(node, proto)
            return
        self._values.update({id(t): v for t, v in zip(node.outputs, values, strict=True)})
        self.nodes.add(id(node))
        self._absorbed[id(node)] = sum(self._bytes_behind(t) for t in {id(t): t for t in node.inputs}.values())
        if node.op == "Constant":
            self._absorbed[id(node)] = values[0].nbytes

    def _infer(self, node: Node, proto: onnx.NodeProto) -> None:
        """Find shapes that follow from sizes known here, which the inference of the whole graph did not see."""
        if all((dims := self.dims(t)) is not None and None not in dims for t in node.outputs if t.name):
            return
        types, data = {}, {}
        for tensor in node.inputs:
            dims, dtype = self.dims(tensor), self._shapes.dtype(tensor)
            if tensor.name and dtype is None:
                return  # behind a custom operator
            if tensor.name:
                types[tensor.name] = helper.make_tensor_type_proto(onnx_dtype(dtype), dims)
            values = self.value(tensor)
            if values is not None and values.nbytes <= INFERENCE_LIMIT:
                data[tensor.name] = numpy_helper.from_array(values, tensor.name)
        try:
            schema = onnx.defs.get_schema(node.op, self._graph.opset, "")
            imports = [helper.make_opsetid("", self._graph.opset)]
            found = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
        except (onnx.defs.SchemaError, shape_inference.InferenceError):
            return
        for tensor in node.outputs:
            kind = found.get(tensor.name, onnx.TypeProto()).tensor_type
            if kind.HasField("shape"):
                self._inferred[id(tensor)] = tuple(_dim(d) for d in kind.shape.dim)

    def _bytes_behind(self, tensor: Tensor) -> int:
        if len(tensor.outputs) != 1 or self._graph.is_output(tensor) or self.value(tensor) is None:
            return 0
        producer = self._graph.producer(tensor)
        return _nbytes(tensor) if producer is None else self.absorbed(producer)

    def _compute(self, node: Node, proto: onnx.NodeProto) -> list[Array] | None:
        """Values of a node's outputs, None where the inputs are not known or the node is not computed."""
        if node.op == "Constant":
            value = self._graph.constant(node.outputs[0])
            return None if value is None or value.dtype.kind not in NUMERIC else [value]
        inputs = {t.name: self.value(t) for t in node.inputs if t.name}
        arrays = {name: v for name, v in inputs.items() if v is not None and v.dtype.kind in NUMERIC}
        if not inputs or len(arrays) < len(inputs):
            return None
        try:
            return _run(proto, arrays, self._graph.opset, self._limit)
        except OptimizationError as error:
            self._context.note(node, str(error))
            return None


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Size:
    return int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None


def _nbytes(tensor: Tensor) -> int:
    return tensor.values.nbytes if isinstance(tensor, Constant) else 0


def _symbols(graph: Graph) -> frozenset[str]:
    """Symbols that name one dimension of one input. Exporters also write `?` for each of several dimensions."""
    dims = [d for t in graph.inputs for d in t.shape or () if isinstance(d, str)]
    return frozenset(d for d in dims if dims.count(d) == 1)


def _run(proto: onnx.NodeProto, inputs: dict[str, Array], opset: int, limit: int) -> list[Array]:
    """Outputs of one node, computed by ONNX Runtime as it would compute them in the graph.

    Raises:
        OptimizationError: ORT cannot run it; or its output is larger than its inputs by more than `limit` bytes,
            or of unknown size.
    """
    infos = {name: helper.make_tensor_value_info(name, onnx_dtype(v.dtype), v.shape) for name, v in inputs.items()}
    small = [numpy_helper.from_array(v, name) for name, v in inputs.items() if v.nbytes <= INFERENCE_LIMIT]
    fed = {name: v for name, v in inputs.items() if v.nbytes > INFERENCE_LIMIT}
    outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = helper.make_graph([proto], "node", [infos[name] for name in fed], outputs, small)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    size = _output_bytes(model)
    allowed = limit + sum(v.nbytes for v in inputs.values())
    if size is None:
        raise OptimizationError("how large its output is cannot be told without computing it")
    if size > allowed:
        raise OptimizationError(f"its output of {size} bytes would let the file grow by more than {limit}")
    values = OrtSession(model, optimized=False).run(fed)
    return [values.get(name, np.empty(0)) for name in proto.output]


def _output_bytes(model: onnx.ModelProto) -> int | None:
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph.output
    except shape_inference.InferenceError:
        return None
    total = 0
    for value in inferred:
        kind = value.type.tensor_type
        if not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
            return None
        count = prod(d.dim_value for d in kind.shape.dim)
        total += count * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return total


@dataclass
class _Choice:
    """Which known tensors to store, which nodes that makes superfluous, and by how many bytes the file grows."""

    stored: list[tuple[Tensor, Array]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    growth: int = 0


def _choose(graph: Graph, context: Context, known: _Known, budget: int) -> _Choice:
    choice = _Choice()
    for node in reversed(graph.nodes):
        if id(node) not in known.nodes:
            continue
        needed = [t for t in node.outputs if graph.is_output(t) or any(id(c) not in choice.gone for c in t.outputs)]
        if any(graph.is_output(t) for t in needed):
            context.note(node, "a graph output stays the output of a node")
            continue
        if needed and node.op == "Identity":
            continue  # what it repeats is stored instead; `eliminate-identity` removes it
        values = [(t, v) for t in needed if (v := known.value(t)) is not None]
        cost = sum(v.nbytes for _, v in values) - known.absorbed(node)
        if cost > max(budget - choice.growth, 0):
            context.note(node, f"storing its output would let the file grow by {cost} bytes; max_bytes forbids it")
            continue
        choice.growth += max(cost, 0)
        choice.stored += values
        choice.gone.add(id(node))
    return choice


def _fix_target(graph: Graph, node: Node, known: _Known) -> bool:
    """Give a Reshape a constant target where all but one of its unknown sizes are the input's own."""
    if graph.constant(node.inputs[1]) is not None:
        return False
    sizes, dims = known.sizes(node.inputs[1]), known.dims(node.inputs[0])
    if sizes is None or sizes.scalar:
        return False
    literal_zero = bool(node.attrs.get("allowzero", 0))
    target: list[int] = []
    for place, size in enumerate(sizes.values):
        if isinstance(size, int):
            target.append(size)
        elif size is not None and dims is not None and dims[place : place + 1] == (size,) and not literal_zero:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1 or (literal_zero and 0 in target):
        return False
    node.inputs[1] = graph.add_constant(node.inputs[1].name, np.array(target, np.int64))
    return True


@dataclass(frozen=True)
class Sizes:
    """Integers of which some are known: a scalar or a vector.

    Attributes:
        values: Per element a number, a symbol that stands for one number throughout, or None.
        dtype: int64 or int32.
        scalar: A scalar and not a vector of one.
    """

    values: tuple[Size, ...]
    dtype: Any = np.int64
    scalar: bool = False

    def complete(self) -> bool:
        """Whether all numbers are known."""
        return all(isinstance(v, int) for v in self.values)

    def array(self) -> Array:
        """The numbers, all of them known."""
        array = np.array(self.values, self.dtype)
        return array.reshape(()) if self.scalar else array


def _shape(node: Node, known: _Known) -> Sizes | None:
    dims = known.dims(node.inputs[0])
    return None if dims is None else Sizes(dims[slice(node.attrs.get("start", 0), node.attrs.get("end"))])


def _gather(node: Node, known: _Known) -> Sizes | None:
    data, places = known.sizes(node.inputs[0]), known.sizes(node.inputs[1])
    if data is None or data.scalar or places is None or not places.complete():
        return None
    count = len(data.values)
    picked = [data.values[p] for p in places.values if isinstance(p, int) and -count <= p < count]
    return Sizes(tuple(picked), data.dtype, places.scalar) if len(picked) == len(places.values) else None


def _slice(node: Node, known: _Known) -> Sizes | None:
    data = known.sizes(node.inputs[0])
    starts, ends = _numbers(node, known, "starts", 1), _numbers(node, known, "ends", 2)
    stepped = len(node.inputs) > 4 and _numbers(node, known, "steps", 4) != [1]
    if data is None or data.scalar or stepped or not starts or not ends:
        return None
    return replace(data, values=data.values[starts[0] : ends[0]])


def _concat(node: Node, known: _Known) -> Sizes | None:
    parts = [known.sizes(t) for t in node.inputs]
    if not all(p is not None and not p.scalar for p in parts):
        return None
    values = tuple(v for p in parts if p is not None for v in p.values)
    return Sizes(values, parts[0].dtype) if parts[0] and len(values) <= MOST_SIZES else None


def _numbers(node: Node, known: _Known, name: str, place: int) -> list[int] | None:
    """A list that is an attribute in old operator sets and an input in new ones; None where absent or unknown."""
    if name in node.attrs:
        return list(node.attrs[name])
    if place >= len(node.inputs) or not node.inputs[place].name:
        return None
    given = known.sizes(node.inputs[place])
    return [v for v in given.values if isinstance(v, int)] if given is not None and given.complete() else None


def _rewrap(node: Node, known: _Known) -> Sizes | None:
    """Unsqueeze of a scalar, Squeeze of a vector of one."""
    data = known.sizes(node.inputs[0])
    if data is None or len(data.values) != 1 or data.scalar != (node.op == "Unsqueeze"):
        return None
    if _numbers(node, known, "axes", 1) not in ([0], [-1]):
        return None
    return replace(data, scalar=not data.scalar)


def _cast(node: Node, known: _Known) -> Sizes | None:
    data = known.sizes(node.inputs[0])
    dtype = {onnx.TensorProto.INT64: np.int64, onnx.TensorProto.INT32: np.int32}.get(node.attrs["to"])
    if data is None or dtype is None or not all(isinstance(v, str | None) or abs(v) <= WIDEST for v in data.values):
        return None
    return replace(data, dtype=dtype)


def _arithmetic(node: Node, known: _Known) -> Sizes | None:
    first, second = (known.sizes(t) for t in node.inputs)
    if first is None or second is None:
        return None
    counts = {len(first.values), len(second.values)}
    if len(counts - {1}) > 1:
        return None
    length = max(counts)
    pairs = zip(_stretch(first, length), _stretch(second, length), strict=True)
    return Sizes(tuple(_combine(node.op, a, b) for a, b in pairs), first.dtype, first.scalar and second.scalar)


def _stretch(sizes: Sizes, length: int) -> tuple[Size, ...]:
    return sizes.values if len(sizes.values) == length else sizes.values * length


def _combine(op: str, a: Size, b: Size) -> Size:
    """One element of integer arithmetic; Div rounds to zero, which for sizes is downward."""
    if not isinstance(a, int) or not isinstance(b, int):
        return a if (op, b) in {("Mul", 1), ("Div", 1), ("Add", 0), ("Sub", 0)} else None
    if op == "Div":
        return a // b if a >= 0 and b > 0 else None
    result = {"Add": a + b, "Sub": a - b, "Mul": a * b}[op]
    return result if abs(result) <= WIDEST else None


SIZE_RULES: dict[str, Callable[[Node, _Known], Sizes | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _rewrap,
    "Unsqueeze": _rewrap,
    "Cast": _cast,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
}
