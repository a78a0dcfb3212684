"""Several views of each picture: more for least squares to learn from, at no cost in labels or pictures.

The first view is the picture. Of the others every second is mirrored, and each shows a window of 70 to 100 % of the
height and width, enlarged to the size of the picture. Inputs that are no pictures have one view.
"""

from collections.abc import Iterator

import numpy as np

from onnxopt.data import Feeds
from onnxopt.graph import Array

COLOURS = (1, 3, 4)
LEAST = 0.7  # of height and width that a window shows
SMALLEST = 32  # pixels; smaller pictures are signs and digits, which a window would spoil


def views(feeds: Feeds, count: int, seed: int) -> Iterator[Feeds]:
    """Yield up to `count` views of a sample, the sample itself first."""
    yield feeds
    pictures = {name for name, values in feeds.items() if _is_picture(values)}
    if not pictures:
        return
    generator = np.random.default_rng(seed)
    for number in range(1, count):
        sides = generator.uniform(LEAST, 1.0) if number > 1 else 1.0
        corner = generator.uniform(0.0, 1.0, 2)
        yield {
            name: _view(values, sides, corner, mirrored=number % 2 == 1) if name in pictures else values
            for name, values in feeds.items()
        }


def _is_picture(values: Array) -> bool:
    shape = values.shape
    return values.ndim == 4 and values.dtype.kind == "f" and shape[1] in COLOURS and min(shape[2:]) >= SMALLEST


def _view(values: Array, sides: float, corner: Array, *, mirrored: bool) -> Array:
    for axis, place in zip((2, 3), corner, strict=True):
        values = _enlarged(values, axis, sides, float(place))
    return np.ascontiguousarray(values[..., ::-1] if mirrored else values)


def _enlarged(values: Array, axis: int, side: float, place: float) -> Array:
    """A window along one axis, stretched to the whole by linear interpolation."""
    size = values.shape[axis]
    if side == 1.0:
        return values
    start = place * (1 - side) * (size - 1)
    at = start + np.arange(size) * side
    low = np.minimum(at.astype(np.int64), size - 2)
    share = (at - low).astype(values.dtype).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    first, second = np.take(values, low, axis), np.take(values, low + 1, axis)
    return np.asarray(first * (1 - share) + second * share)
