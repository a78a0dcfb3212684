"""What a model said of one picture, in pixels of its own input: objects, classes or a text."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from PIL import Image

from onnxopt.data import Array, ImageInfo


@dataclass(frozen=True, eq=False)
class Masks:
    """Outlines as segmenting YOLOs give them: each a mix of prototypes that all objects share.

    A point belongs to an object where coefficients · prototypes > 0, inside the object's box. Bolya et al. 2019,
    "YOLACT: Real-time Instance Segmentation".

    Attributes:
        coefficients: float[n, k].
        prototypes: float[k, h, w]; they cover the model's whole input.
        size: (height, width) of the model's input.
    """

    coefficients: Array
    prototypes: Array
    size: tuple[int, int]

    def drawn(self, image: ImageInfo, xyxy: Array) -> Iterator[Array]:
        """Yield each object's mask, bool[height, width] of the original picture.

        Args:
            image: How the picture lies in the model's input.
            xyxy: The objects' boxes in the original picture, float[n, 4].
        """
        depth, height, width = self.prototypes.shape
        flat = np.asarray(self.prototypes, np.float32).reshape(depth, -1)
        seen = _seen(image, self.size)
        limits = np.array([width, height] * 2)
        for coefficients, box in zip(self.coefficients, xyxy, strict=True):
            mask = np.zeros((image.height, image.width), np.bool_)
            # Whole pixels whose upper left corner is in the box; the rest of a large picture need not be computed.
            low, high = np.maximum(np.ceil(box[:2]), seen[:2]), np.minimum(np.ceil(box[2:]), seen[2:])
            left, top, right, bottom = np.concatenate([low, high]).astype(int).tolist()
            if left < right and top < bottom:
                in_input = np.array([left, top, right, bottom]) * (image.scale * 2) + image.offset * 2
                window = np.clip(in_input * limits / (self.size[::-1] * 2), 0, limits)
                mixed = (np.asarray(coefficients, np.float32) @ flat).reshape(height, width)
                grown = Image.fromarray(mixed).resize(
                    (right - left, bottom - top), Image.Resampling.BILINEAR, box=tuple(window.tolist())
                )
                mask[top:bottom, left:right] = np.asarray(grown) > 0
            yield mask


def _seen(image: ImageInfo, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the whole pixels of the original that the model sees."""
    height, width = size
    low, high = image.to_original(np.array([[0, 0, width, height]])).reshape(2, 2)
    left, top = np.ceil(low - 1e-6).astype(int).tolist()
    right, bottom = np.floor(high + 1e-6).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture, the most confident first.

    Attributes:
        classes: Class numbers, int64[n].
        scores: Confidences in 0..1, float64[n].
        xyxy: Corners x1, y1, x2, y2 of upright boxes in pixels of the model's input, float64[n, 4].
        keypoints: x, y and confidence of each, float64[n, k, 3]; None for models that find none.
        rotated: Centre, size and angle (radians, clockwise as y points down) of rotated boxes, float64[n, 5], around
            which `xyxy` lies; None for upright ones.
        coefficients: Of each object's mask, float[n, k]; None for models that give no outlines.
        prototypes: Of masks, float[k, h, w].
        size: (height, width) of the model's input, where there are masks.
    """

    classes: Array
    scores: Array
    xyxy: Array
    keypoints: Array | None = None
    rotated: Array | None = None
    coefficients: Array | None = None
    prototypes: Array | None = None
    size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def masks(self) -> Masks | None:
        """The objects' outlines, where the model gives them."""
        if self.coefficients is None or self.prototypes is None:
            return None
        return Masks(self.coefficients, self.prototypes, self.size)

    def pick(self, indices: Array) -> "Detections":
        """Return the objects at these places, in this order."""
        picked = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"prototypes", "size"}}
        return replace(self, **{name: values[indices] for name, values in picked.items() if values is not None})


@dataclass(frozen=True, eq=False)
class Classes:
    """Scores of one picture's classes, float[c], the higher the likelier; logits or probabilities."""

    scores: Array


@dataclass(frozen=True)
class Text:
    """What a recognizer read, and its mean confidence per character (1 where it read nothing)."""

    text: str
    confidence: float


Reading: TypeAlias = Detections | Classes | Text


def rotated_corners(rotated: Array) -> Array:
    """Return the corners of rotated boxes float[n, 5], in order around each, float64[n, 4, 2]."""
    centre, half, angle = rotated[:, None, :2], rotated[:, 2:4] / 2, rotated[:, 4]
    along = half[:, :1] * np.column_stack([np.cos(angle), np.sin(angle)])
    across = half[:, 1:] * np.column_stack([-np.sin(angle), np.cos(angle)])
    steps = np.stack([along + across, along - across, -along - across, across - along], axis=1)
    return np.asarray(centre + steps, np.float64)
