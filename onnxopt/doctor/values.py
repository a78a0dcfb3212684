"""The usual ranges in which models want their pixels, as rows; and which of them arrays are in.

Every preparation maps a pixel 0..255 to `pixel * factor + shift` per channel; what that comes to is all that a model
sees, however it is written.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxopt.data import Array, Preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RANGES: Mapping[str, Preprocess] = {
    "0..255": Preprocess(scale=1.0),
    "0..1": Preprocess(),
    "values normalized by ImageNet's mean and deviation": Preprocess(mean=IMAGENET[0], std=IMAGENET[1]),
    "-1..1": Preprocess(mean=(0.5,), std=(0.5,)),
}
# Nobody wants these; data come in them by mistake.
MISTAKES: Mapping[str, Preprocess] = {
    "values divided by 255 twice": Preprocess(scale=1 / 255**2),
    "values normalized without being divided by 255": Preprocess(scale=1.0, mean=IMAGENET[0], std=IMAGENET[1]),
    "normalized values divided by 255": Preprocess(mean=IMAGENET[0], std=tuple(255 * s for s in IMAGENET[1])),
    "normalized values times 255": Preprocess(mean=IMAGENET[0], std=tuple(s / 255 for s in IMAGENET[1])),
    "-1..1 divided by 255": Preprocess(mean=(0.5,), std=(127.5,)),
    "0..255 times 255": Preprocess(scale=255.0),
}
FAR_APART = 20.0  # times the spread: another range, not another normalization
SPANNED = 0.5  # of a range, by arrays that are in it; photographs nearly always hold black and white


def affine(preprocess: Preprocess, channels: int = 3) -> tuple[Array, Array]:
    """Return factor and shift of each channel, float64[channels], in the order in which the model sees them."""
    mean, std = (
        np.broadcast_to(np.asarray(v), channels) if len(v) in {1, channels} else np.full(channels, np.mean(v))
        for v in (preprocess.mean, preprocess.std)
    )
    return preprocess.scale / std, 0.0 - mean / std


def same_values(a: Preprocess, b: Preprocess) -> bool:
    """Whether both map pixels to the same values, but for what rounding in how they are written explains."""
    return all(np.allclose(x, y, rtol=0.01, atol=1e-6) for x, y in zip(affine(a), affine(b), strict=True))


def with_values(preprocess: Preprocess, values: Preprocess) -> Preprocess:
    """Return a preparation with the range of another."""
    return replace(preprocess, scale=values.scale, mean=values.mean, std=values.std)


def range_name(preprocess: Preprocess) -> str:
    """Return the range in words."""
    for name, row in {**RANGES, **MISTAKES}.items():
        if same_values(row, preprocess):
            return name
    factor, shift = affine(preprocess)
    return f"{shift.min():.3g}..{(255 * factor + shift).max():.3g}"


def is_far(a: Preprocess, b: Preprocess) -> bool:
    """Whether two ranges differ by more than a normalization does."""
    ratio = float(np.mean(affine(a)[0]) / np.mean(affine(b)[0]))
    return not 1 / FAR_APART < ratio < FAR_APART


def range_of(low: float, high: float) -> Preprocess | None:
    """Return the narrowest range that holds all values of arrays, or None if they fill none of those known."""
    fitting = []
    for row in (*RANGES.values(), *MISTAKES.values()):
        factor, shift = affine(row)
        bottom, top = float(shift.min()), float((255 * factor + shift).max())
        margin = 0.01 * (top - bottom)
        if bottom - margin <= low and high <= top + margin and high - low >= SPANNED * (top - bottom):
            fitting.append((top - bottom, row))
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None
