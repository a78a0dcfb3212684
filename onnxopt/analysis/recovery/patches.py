"""A weighted layer as a matrix product: rows of input values, grouped, and the outputs that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxopt.graph import Array, Node

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """How a Conv, Gemm or MatMul reads and writes.

    Attributes:
        op: Its op type.
        weight_shape: Shape of its weights.
        axis: The weights' axis of output channels.
        group: Groups of a Conv.
        kernel: Kernel per spatial axis.
        strides: Strides per spatial axis.
        dilations: Dilations per spatial axis.
        pads: Zeros before and after each spatial axis, as in ONNX: all befores, then all afters.
        most: Rows taken of a sample, spread evenly over its places.
    """

    op: str
    weight_shape: tuple[int, ...]
    axis: int
    group: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    most: int = 512

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, output channels per group, and length of a patch."""
        columns = self.weight_shape[self.axis] // self.group
        return self.group, columns, int(np.prod(self.weight_shape)) // (columns * self.group)

    def matrix(self, weight: Array) -> Array:
        """Weights as [groups, columns, length]; a view or copy of the same type."""
        return np.moveaxis(weight, self.axis, 0).reshape(self.shape)

    def weight(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        moved = np.moveaxis(np.empty(self.weight_shape, np.bool_), self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.axis))

    def rows(self, values: Float32Array, wanted: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Some rows of a sample, [groups, rows, length], and the outputs at these places, [groups, rows, columns]."""
        if self.op != "Conv":
            flat, outputs = values.reshape(-1, values.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
            chosen = _spread(len(flat), self.most)
            return flat[None, chosen], outputs[None, chosen]
        groups, columns, _ = self.shape
        places = _spread(wanted.shape[0] * int(np.prod(wanted.shape[2:])), self.most)
        image, *spots = np.unravel_index(places, (wanted.shape[0], *wanted.shape[2:]))
        taken = self._windows(values, image, spots)
        rows = taken.reshape(len(places), groups, -1).transpose(1, 0, 2)
        given = _at(wanted, image, spots)
        targets = given.reshape(len(places), groups, columns).transpose(1, 0, 2)
        return np.ascontiguousarray(rows), np.ascontiguousarray(targets)

    def _windows(self, values: Float32Array, image: Array, spots: Sequence[Array]) -> Float32Array:
        rank = len(self.kernel)
        widths = [(0, 0), (0, 0), *((self.pads[i], self.pads[i + rank]) for i in range(rank))]
        padded = np.pad(values, widths) if any(self.pads) else values
        corners = [s * stride for s, stride in zip(spots, self.strides, strict=True)]
        if all(k == 1 for k in self.kernel):
            return _at(padded, image, corners)
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
        steps: tuple[Any, ...] = (..., *(slice(None, None, d) for d in self.dilations))
        return _at(windows[steps], image, corners)


def read_patches(node: Node, weight_shape: tuple[int, ...], *, most: int = 512) -> Patches | None:
    """How a node reads and writes; None where it is none of Conv, Gemm and MatMul by a matrix, or oddly padded."""
    if node.op == "MatMul":
        return Patches("MatMul", weight_shape, 1, most=most) if len(weight_shape) == 2 else None
    if node.op == "Gemm":
        plain = node.attrs.get("alpha", 1.0) == 1.0 and not node.attrs.get("transA", 0)
        return Patches("Gemm", weight_shape, 0 if node.attrs.get("transB", 0) else 1, most=most) if plain else None
    rank = len(weight_shape) - 2
    if node.op != "Conv" or node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    ones = (1,) * rank
    return Patches(
        op="Conv",
        weight_shape=weight_shape,
        axis=0,
        group=int(node.attrs.get("group", 1)),
        kernel=tuple(weight_shape[2:]),
        strides=tuple(node.attrs.get("strides", ones)),
        dilations=tuple(node.attrs.get("dilations", ones)),
        pads=tuple(node.attrs.get("pads", (0,) * 2 * rank)),
        most=most,
    )


def _at(values: Float32Array, image: Array, spots: Sequence[Array]) -> Float32Array:
    """All channels at some places, [places, channels, …]."""
    index: tuple[Any, ...] = (image, slice(None), *spots)
    taken: Float32Array = values[index]
    return taken


def _spread(count: int, most: int) -> Array:
    """Up to `most` of `count` indices, ascending, spread evenly but without a fixed stride, which would follow rows."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(count).choice(count, most, replace=False))
