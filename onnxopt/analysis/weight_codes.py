"""Weights as 8- or 4-bit codes, and back.

    codes = saturate(round_half_even(w / scale) + zero),   w ≈ (codes - zero) · scale

with one scale for `block` neighbours along the summed axis and one output column, or for a whole column. Symmetric
codes have zero point 0. With 4 bits the largest weights of a block cost the others their accuracy: of a few scales,
from that which holds them all down to 0.7 of it, the one with the least squared error is taken.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from onnxopt.graph import Array

Float32Array = npt.NDArray[np.float32]
SHRINK = tuple(np.float32(f) for f in (1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85, 0.8, 0.75, 0.7))
TYPES = {
    (bits, symmetric): helper.tensor_dtype_to_np_dtype(kind)
    for bits, symmetric, kind in (
        (8, True, TensorProto.INT8),
        (8, False, TensorProto.UINT8),
        (4, True, TensorProto.INT4),
        (4, False, TensorProto.UINT4),
    )
}


@dataclass(frozen=True)
class WeightCodes:
    """A matrix in codes.

    Attributes:
        values: Codes of shape [K, N].
        scale: float32 of shape [K / block, N] (rounded up), or [N].
        zeros: Zero points, of the type of the codes and the shape of the scale.
        block: Neighbours along K that share a scale; 0: all.
    """

    values: Array
    scale: Float32Array
    zeros: Array
    block: int

    def decoded(self) -> Float32Array:
        """The matrix that the codes stand for, float32[K, N], as DequantizeLinear computes it."""
        length = self.values.shape[0]
        repeated = [
            np.repeat(a.astype(np.float32), self.block, axis=0)[:length] if self.block else a.astype(np.float32)
            for a in (self.zeros, self.scale)
        ]
        return (self.values.astype(np.float32) - repeated[0]) * repeated[1]


def encode(weight: Float32Array, bits: int, block: int, *, symmetric: bool) -> WeightCodes:
    """Find the codes of a matrix.

    Args:
        weight: float32[K, N], finite.
        bits: 8 or 4.
        block: Neighbours along K that share a scale; 0: all.
        symmetric: Whether the zero point is 0.
    """
    length, columns = weight.shape
    size = block or length
    count = -(-length // size)
    blocks = np.zeros((count, size, columns), np.float32)
    blocks.reshape(-1, columns)[:length] = weight
    codes, scale, zeros = _least_error(blocks, bits, symmetric)
    kind = TYPES[bits, symmetric]
    codes, zeros = codes.astype(kind), zeros.astype(kind)
    values = codes.reshape(-1, columns)[:length]
    return WeightCodes(values, scale if block else scale[0], zeros if block else zeros[0], block)


def _least_error(blocks: Float32Array, bits: int, symmetric: bool) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Codes [blocks, size, columns], scales and zero points [blocks, columns], all float32."""
    scale, zero, low, high = _whole_range(blocks, bits, symmetric)
    chosen_error = np.full(scale.shape, np.inf)
    chosen, chosen_scale = np.zeros_like(blocks), scale
    for factor in SHRINK if bits == 4 else SHRINK[:1]:
        step = scale * factor
        codes = np.clip(np.rint(blocks / step[:, None]) + zero[:, None], low, high)
        difference = (codes - zero[:, None]) * step[:, None] - blocks
        error = np.einsum("bkn,bkn->bn", difference, difference, dtype=np.float64)
        better = error < chosen_error
        chosen_error = np.where(better, error, chosen_error)
        chosen = np.where(better[:, None], codes, chosen)
        chosen_scale = np.where(better, step, chosen_scale)
    return chosen, chosen_scale, zero


def _whole_range(blocks: Float32Array, bits: int, symmetric: bool) -> tuple[Float32Array, Float32Array, float, float]:
    """Scale and zero point that hold every weight, and the smallest and the largest code."""
    top = 2 ** (bits - 1) - 1
    if symmetric:
        scale = _usable(np.abs(blocks).max(axis=1) / np.float32(top))
        return scale, np.zeros_like(scale), -top - (bits == 4), top
    lowest, highest = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    levels = 2**bits - 1
    scale = _usable((highest - lowest) / np.float32(levels))
    return scale, np.clip(np.rint(-lowest / scale), 0, levels), 0, levels


def _usable(scale: Float32Array) -> Float32Array:
    """Scales, 1 in place of those of blocks that hold nothing but 0."""
    return np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
