"""Grid cells of one-stage detectors: how many an input has, and where a raw head's boxes lie."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from onnxopt.data import Array

_STRIDES = (4, 8, 16, 32, 64)


def cell_counts(size: tuple[int, int]) -> dict[int, tuple[int, ...]]:
    """Return the strides, finest first, by the number of grid points that they make of an input (height, width)."""
    return dict(_grids(size))


def _grids(size: tuple[int, int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield sets of scales, the most usual (8, 16, 32) last, so that it wins where two have equally many cells."""
    spans = sorted(combinations(range(len(_STRIDES) + 1), 2), key=lambda span: span == (1, 4))
    for start, stop in spans:
        strides = _STRIDES[start:stop]
        # A single scale would take any feature map for a detector.
        if len(strides) >= 2 and size[0] % strides[-1] == 0 and size[1] % strides[-1] == 0:
            yield sum((size[0] // stride) * (size[1] // stride) for stride in strides), strides


def from_cells(boxes: Array, size: tuple[int, int], strides: tuple[int, ...]) -> Array:
    """Return centres and sizes in pixels of a raw YOLOX head, float64[n, 4].

    Ge et al. 2021, "YOLOX: Exceeding YOLO Series in 2021": centre = (t_xy + cell) · stride,
    size = exp(t_wh) · stride; cells row by row, finest scale first.
    """
    height, width = size
    cells, strides_of = [], []
    for stride in strides:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides_of.append(np.full((x.size, 1), float(stride)))
    cell, stride_of = np.concatenate(cells), np.concatenate(strides_of)
    # Sizes beyond e^20 pixels are nonsense already; the bound keeps them from becoming infinite.
    extent = np.exp(np.minimum(boxes[:, 2:], 20.0)) * stride_of
    return np.concatenate([(boxes[:, :2] + cell) * stride_of, extent], axis=1)
