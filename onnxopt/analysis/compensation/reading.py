"""Nodes that sum over channels: their inputs as rows of a matrix, and which channel each column belongs to.

Conv, ConvTranspose, Gemm and MatMul by a constant compute y = W p + b, where p is a patch of the input (im2col). A
ConvTranspose is a Conv over its input with zeros put between the values, the kernel turned round.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxopt.analysis.channels import ChannelGroups, Group
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.recovery.patches import Patches, read_patches
from onnxopt.graph import Array, Graph, Node, is_standard

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

BIASED = ("Conv", "ConvTranspose", "Gemm")
SPATIAL = 2  # axes of a Conv's input before those of the picture


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that sums over channels.

    Attributes:
        position: Of the node in `graph.nodes`, in the graph that was analysed and in every copy of it.
        roots: The root atom that each column of a patch belongs to, int64[groups, length].
        patches: How it reads and writes; that of the Conv it equals for a ConvTranspose.
        same: `upper` or `lower` where its padding follows the input's size (`auto_pad`).
        stuffing: Strides of a ConvTranspose; empty for others.
    """

    position: int
    roots: IntArray
    patches: Patches
    same: str = ""
    stuffing: tuple[int, ...] = ()

    def node(self, graph: Graph) -> Node:
        """The node in a copy of the graph."""
        return graph.nodes[self.position]

    def input(self, graph: Graph) -> str:
        """Name of the tensor it reads."""
        return str(self.node(graph).inputs[0].name)

    def output(self, graph: Graph) -> str:
        """Name of the tensor it writes."""
        return str(self.node(graph).outputs[0].name)

    def rows(self, values: Array, wanted: Array, most: int) -> tuple[Float32Array, Float32Array]:
        """Up to `most` rows of a sample, [groups, rows, length], and its outputs there, [groups, rows, columns]."""
        values, wanted = np.asarray(values, np.float32), np.asarray(wanted, np.float32)
        patches = replace(self.patches, most=most)
        if self.same:
            patches = replace(patches, pads=_same_pads(patches, values.shape, wanted.shape, self.same))
        return patches.rows(_stuffed(values, self.stuffing) if self.stuffing else values, wanted)

    def matrix(self, graph: Graph) -> FloatArray:
        """Weights as float64[groups, columns, length]."""
        value = graph.constant(self.node(graph).inputs[1])
        assert value is not None
        values = np.asarray(value, np.float64)
        if self.stuffing:
            values = _turned(values, self.patches.group)
        return np.asarray(self.patches.matrix(values))

    def bias(self, graph: Graph) -> FloatArray | None:
        """Bias as float64[groups, columns]; None where it has none."""
        node = self.node(graph)
        if len(node.inputs) < 3 or not node.inputs[2].name:
            return None
        value = graph.constant(node.inputs[2])
        shape = self.patches.shape[:2]
        if value is None or value.size != shape[0] * shape[1] or value.shape[-1:] != (value.size,):
            return None
        return np.asarray(value, np.float64).reshape(shape)

    def own(self, graph: Graph) -> None:
        """Give it constants that nobody else reads."""
        node = self.node(graph)
        for index in range(1, len(node.inputs)):
            if graph.constant(node.inputs[index]) is not None:
                graph.own_constant(node, index)

    def write(self, graph: Graph, matrix: FloatArray, bias: FloatArray | None) -> None:
        """Give it new numbers; constants that others read too are copied first."""
        node = self.node(graph)
        values = self.patches.weight(matrix)
        if self.stuffing:
            values = _turned(values, self.patches.group)
        _set(graph, node, 1, values)
        if bias is not None:
            _set(graph, node, 2, bias.reshape(-1))


def find_readers(graph: Graph, found: ChannelGroups, groups: Sequence[Group]) -> list[Reader]:
    """The nodes that sum over channels of some groups and can be refitted, in order of execution."""
    wanted = np.concatenate([np.empty(0, np.int64), *(g.roots for g in groups)])
    relations = found.relations
    weighted = {s.node: s for s in relations.sites if s.role == "in"}
    readers = []
    for place in relations.sums:
        site = weighted.get(place.node)
        if site is None or place.input != 0 or site.input != 1:
            continue
        roots = relations.atoms.roots(place.atoms)
        reader = read(graph, place.node, roots) if np.isin(roots, wanted).any() else None
        if reader is not None:
            readers.append(reader)
    return sorted(readers, key=lambda r: r.position)


def read(graph: Graph, position: int, roots: IntArray) -> Reader | None:
    """How a node reads; None where it does so in a way that is not understood."""
    node = graph.nodes[position]
    weight = graph.constant(node.inputs[1])
    if weight is None or weight.dtype.kind != "f" or (node.op == "Gemm" and node.attrs.get("beta", 1.0) != 1.0):
        return None
    if node.op == "ConvTranspose":
        return _read_transposed(node, position, weight.shape, roots)
    same = str(node.attrs.get("auto_pad", "NOTSET"))
    if same.startswith("SAME"):
        plain = Node(node.op, node.name, {k: v for k, v in node.attrs.items() if k != "auto_pad"})
        patches = read_patches(plain, weight.shape)
        same = same.removeprefix("SAME_").lower()
    else:
        patches, same = read_patches(node, weight.shape), ""
    if patches is None:
        return None
    return Reader(position, _columns(patches, roots), patches, same)


def give_bias(graph: Graph, node: Node) -> bool:
    """Give a layer a bias of zeros where it has none and may have one; returns whether it did."""
    if node.op not in BIASED or not is_standard(node) or (len(node.inputs) > 2 and node.inputs[2].name):
        return False
    weight = graph.constant(node.inputs[1])
    if weight is None:
        return False
    zeros = graph.add_constant(f"{node.outputs[0].name}_bias", np.zeros(_outputs(node, weight), weight.dtype))
    if len(node.inputs) > 2:
        node.inputs[2] = zeros
    else:
        node.inputs.append(zeros)
    return True


def _outputs(node: Node, weight: Array) -> int:
    if node.op == "Gemm":
        return int(weight.shape[0 if node.attrs.get("transB") else 1])
    return int(weight.shape[0] if node.op == "Conv" else weight.shape[1] * node.attrs.get("group", 1))


def _set(graph: Graph, node: Node, index: int, values: Array) -> None:
    own = graph.own_constant(node, index)
    old = own.values
    own.values = np.asarray(values, old.dtype).reshape(old.shape)


def _columns(patches: Patches, roots: IntArray) -> IntArray:
    groups, _, length = patches.shape
    channels = roots.reshape(groups, -1)
    return np.repeat(channels, length // channels.shape[1], axis=1)


def _read_transposed(node: Node, position: int, shape: tuple[int, ...], roots: IntArray) -> Reader | None:
    rank = len(shape) - SPATIAL
    ones, group = (1,) * rank, int(node.attrs.get("group", 1))
    if node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or "output_shape" in node.attrs:
        return None
    dilations = tuple(node.attrs.get("dilations", ones))
    pads = tuple(node.attrs.get("pads", (0,) * 2 * rank))
    extra = tuple(node.attrs.get("output_padding", (0,) * rank))
    reach = [(k - 1) * d for k, d in zip(shape[SPATIAL:], dilations, strict=True)]
    around = [reach[i] - pads[i] for i in range(rank)] + [reach[i] - pads[rank + i] + extra[i] for i in range(rank)]
    if min(around) < 0:
        return None
    patches = Patches(
        op="Conv",
        weight_shape=(shape[1] * group, shape[0] // group, *shape[SPATIAL:]),
        axis=0,
        group=group,
        kernel=tuple(shape[SPATIAL:]),
        strides=ones,
        dilations=dilations,
        pads=tuple(around),
    )
    return Reader(position, _columns(patches, roots), patches, stuffing=tuple(node.attrs.get("strides", ones)))


def _turned(weight: Array, groups: int) -> Array:
    """Weight of a Conv from that of a ConvTranspose, and back: channels change places, the kernel turns round."""
    grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    kernel: tuple[Any, ...] = (..., *(slice(None, None, -1) for _ in weight.shape[SPATIAL:]))
    return np.ascontiguousarray(grouped.reshape(-1, *grouped.shape[2:])[kernel])


def _stuffed(values: Float32Array, strides: Sequence[int]) -> Float32Array:
    """Zeros between values, stride - 1 of them along each spatial axis."""
    sizes = [(n - 1) * s + 1 for n, s in zip(values.shape[SPATIAL:], strides, strict=True)]
    out = np.zeros((*values.shape[:SPATIAL], *sizes), np.float32)
    places: tuple[Any, ...] = (..., *(slice(None, None, s) for s in strides))
    out[places] = values
    return out


def _same_pads(patches: Patches, source: Sequence[int], result: Sequence[int], same: str) -> tuple[int, ...]:
    """Padding that gives the output its size; an odd one is at the end for `upper`, in front for `lower`."""
    befores, afters = [], []
    for axis, (k, s, d) in enumerate(zip(patches.kernel, patches.strides, patches.dilations, strict=True), SPATIAL):
        total = max(0, (result[axis] - 1) * s + (k - 1) * d + 1 - source[axis])
        small, large = total // 2, total - total // 2
        befores.append(small if same == "upper" else large)
        afters.append(large if same == "upper" else small)
    return (*befores, *afters)
