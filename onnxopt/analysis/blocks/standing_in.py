"""What is put in the place of a block y = x + f(x), by least squares on what x is and y was.

1. `nothing`: y = x.
2. `readers`: y = x, and convolutions and matrix products that read y directly make up for what is missing: with
   y ≈ M x + b, their weights W become W M and their biases gain W b.
3. `affine`: y = s ∘ x + t, a factor and a shift per channel.
4. `conv`: y = M x + b, a 1x1 convolution or, with channels last, a matrix product. Where x is made by a convolution
   that nothing else reads, it is taken into that one and costs nothing.

With C = Cov(x) and D a ridge, M = I + Cov(y - x, x) (C + D)⁻¹, and b makes the means equal. A block of few samples is
held towards the identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.blocks.finding import Block, name_of
from onnxopt.analysis.compensation.fitting import ridge_of
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import FloatArray
from onnxopt.graph import Array, Graph, Node, is_standard

FORMS = ("nothing", "readers", "affine", "conv")
FREE = FORMS[:2]
RIDGE = 0.1


@dataclass(frozen=True)
class StandIn:
    """A block's stand-in.

    Attributes:
        form: One of `FORMS`.
        matrix: M, float64[channels, channels]; the best there is, whatever the form.
        shift: b, float64[channels].
        factor: s, float64[channels].
        offset: t, float64[channels].
    """

    form: str
    matrix: FloatArray
    shift: FloatArray
    factor: FloatArray
    offset: FloatArray

    @classmethod
    def fit(cls, form: str, moments: Moments) -> "StandIn":
        """Fit one to moments of x with y as what is wanted."""
        assert moments.products is not None
        assert moments.wanted is not None
        covariance, mean, wanted = moments.covariance[0], moments.mean[0], moments.wanted[0]
        ridge = ridge_of(covariance, RIDGE)
        missing = moments.products[0] - covariance
        matrix = np.eye(len(mean)) + np.linalg.solve(covariance + np.diag(ridge), missing.T).T
        factor = 1 + np.diag(missing) / (np.diag(covariance) + ridge)
        return cls(form, matrix, wanted - matrix @ mean, factor, wanted - factor * mean)


def replace_block(graph: Graph, block: Block, stand_in: StandIn) -> None:
    """Let what reads a block read its stand-in, in place; the tensor y keeps its name."""
    add = block.add(graph)
    skip = next(t for t in add.inputs if t.name == block.skip)
    output = add.outputs[0]
    dtype = _dtype(graph, block)
    if stand_in.form in FREE:
        if stand_in.form == "readers":
            _teach_readers(graph, add, block, stand_in)
        add.op, add.inputs = "Identity", [skip]
    elif stand_in.form == "affine":
        shape = [-1 if i == block.axis else 1 for i in range(len(block.shape))][block.axis :]
        factor, offset = (v.astype(dtype).reshape(shape) for v in (stand_in.factor, stand_in.offset))
        scaled = graph.add_node("Mul", [skip, factor], name=f"{block.name}_scale", before=add).outputs[0]
        add.inputs = [scaled, graph.add_constant(f"{block.name}_shift", offset)]
    elif block.axis == 1 and len(block.shape) > 2:
        kernel = stand_in.matrix.reshape(*stand_in.matrix.shape, *(1,) * (len(block.shape) - 2)).astype(dtype)
        add.outputs.clear()
        attrs, name = {"kernel_shape": [1] * (len(block.shape) - 2)}, f"{block.name}_stand_in"
        shift = stand_in.shift.astype(dtype)
        graph.add_node("Conv", [skip, kernel, shift], attrs, outputs=[output], name=name, before=add)
        graph.remove(add)
    else:
        name = f"{block.name}_stand_in"
        product = graph.add_node("MatMul", [skip, stand_in.matrix.T.astype(dtype)], name=name, before=add).outputs[0]
        add.inputs = [product, graph.add_constant(f"{block.name}_shift", stand_in.shift.astype(dtype))]
    remove_unread(graph)


def macs_of(block: Block, stand_in: StandIn) -> int:
    """Multiply-accumulates of a stand-in."""
    return int(np.prod(block.shape)) * block.channels if stand_in.form == "conv" else 0


def settle(graph: Graph, outputs: Sequence[str]) -> int:
    """Take stand-ins, given by their outputs, into the nodes before them where that can be done exactly.

    Returns:
        How many convolutions went into others.
    """
    count = 0
    for output in outputs:
        node = next((n for n in graph.nodes if n.outputs and n.outputs[0].name == output), None)
        if node is None:
            continue  # a block in another one that has gone
        if node.op == "Identity":
            graph.bypass(node, node.inputs[0])
        elif node.op == "Conv":
            count += _merge(graph, node)
    return count


def remove_unread(graph: Graph) -> None:
    """Remove nodes whose outputs nobody reads."""
    while unread := [
        n for n in graph.nodes if not any(graph.consumers(t) or graph.is_output(t) for t in n.outputs if t.name)
    ]:
        graph.remove(*unread)


def _merge(graph: Graph, node: Node) -> bool:
    """Take a 1x1 convolution into the one before it: M (W x + a) + b = (M W) x + (M a + b)."""
    maker = graph.producer(node.inputs[0])
    made = node.inputs[0]
    if maker is None or maker.op != "Conv" or not is_standard(maker):
        return False
    weight = graph.constant(maker.inputs[1])
    biased = len(maker.inputs) > 2 and bool(maker.inputs[2].name)
    bias = graph.constant(maker.inputs[2]) if biased else None
    single = len(graph.consumers(made)) == 1 and not graph.is_output(made)
    if not single or weight is None or maker.attrs.get("group", 1) != 1 or (biased and bias is None):
        return False
    matrix, shift = (np.asarray(graph.constant(t), np.float64) for t in node.inputs[1:3])
    matrix = matrix.reshape(matrix.shape[:2])
    merged = np.einsum("oc,c...->o...", matrix, weight.astype(np.float64))
    total = shift + (0.0 if bias is None else matrix @ bias.astype(np.float64))
    output = node.outputs[0]
    graph.remove(node)
    maker.outputs[0] = output
    maker.inputs[1] = graph.add_constant(maker.inputs[1].name, merged.astype(weight.dtype))
    own = graph.add_constant(f"{output.name}_bias", total.astype(weight.dtype))
    if len(maker.inputs) > 2:
        maker.inputs[2] = own
    else:
        maker.inputs.append(own)
    return True


def _teach_readers(graph: Graph, add: Node, block: Block, stand_in: StandIn) -> None:
    for node in graph.consumers(add.outputs[0]):
        if node.inputs[0] is not add.outputs[0] or not is_standard(node) or len(node.inputs) < 2:
            continue
        weight = graph.constant(node.inputs[1])
        plain = node.op != "Gemm" or (not node.attrs.get("transA") and node.attrs.get("alpha", 1.0) == 1.0)
        if weight is None or weight.dtype.kind != "f" or not plain:
            continue
        if node.op == "Conv" and block.axis == 1 and node.attrs.get("group", 1) == 1:
            _teach(graph, node, np.einsum("oi...,ij->oj...", weight, stand_in.matrix), weight, stand_in.shift, 1)
        elif node.op in {"MatMul", "Gemm"} and block.axis == len(block.shape) - 1 and weight.ndim == 2:
            axis = 1 if node.attrs.get("transB") else 0
            taught = weight @ stand_in.matrix if axis else stand_in.matrix.T @ weight
            _teach(graph, node, taught, weight, stand_in.shift, axis)


def _teach(graph: Graph, node: Node, taught: FloatArray, weight: Array, shift: FloatArray, axis: int) -> None:
    """Give a reader new weights, and the shift to its bias where it has one."""
    node.inputs[1] = graph.add_constant(node.inputs[1].name, taught.astype(weight.dtype))
    bias = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if bias is None or bias.ndim != 1 or node.attrs.get("beta", 1.0) != 1.0:
        return
    gained = np.tensordot(weight.astype(np.float64), shift, axes=([axis], [0]))
    gained = gained.reshape(len(gained), -1).sum(axis=1)
    if gained.shape == bias.shape:
        node.inputs[2] = graph.add_constant(node.inputs[2].name, (bias + gained).astype(bias.dtype))


def _dtype(graph: Graph, block: Block) -> np.dtype[np.generic]:
    """Type of the weights in a block, which is that of its stand-in."""
    nodes = [n for n in graph.nodes if name_of(n) in block.nodes and len(n.inputs) > 1]
    values = [graph.constant(t) for n in nodes for t in n.inputs[1:]]
    kinds = [v.dtype for v in values if v is not None and v.dtype.kind == "f"]
    return kinds[0] if kinds else np.dtype(np.float32)
