"""What a data set is made of: the inputs a model wants, one sample for them, and what is known about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class InputSpec:
    """One input of the model, its shape already resolved to numbers (batch included)."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: the input's shape with a batch of 1; vectors and scalars have no batch axis."""
        return (1, *self.shape[1:]) if len(self.shape) >= 2 else self.shape

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class ImageInfo:
    """Where a picture came from and how it was mapped onto the model's input.

    A point of the original, in pixels, lies at `point * scale + offset` in the input; `scale` and `offset`
    are (x, y). The offset is positive where the picture was padded and negative where it was cropped.
    """

    path: Path
    height: int
    width: int
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_original(self, xyxy: Array) -> Array:
        """Map boxes from input pixels to pixels of the original picture, clipped to its borders.

        Args:
            xyxy: Corners x1, y1, x2, y2 in pixels of the model's input, float[n, 4].

        Returns:
            The same corners in the original picture, float64[n, 4].
        """
        corners = self.points_to_original(np.asarray(xyxy).reshape(-1, 2, 2))
        clipped: Array = np.clip(corners, 0.0, np.asarray([self.width, self.height], np.float64))
        return clipped.reshape(-1, 4)

    def points_to_original(self, points: Array) -> Array:
        """Map points float[..., 2] (x, y) from input pixels to pixels of the original picture, float64, unclipped."""
        moved: Array = (np.asarray(points, np.float64) - np.asarray(self.offset)) / np.asarray(self.scale)
        return moved


@dataclass(frozen=True)
class Categories:
    """The classes of a detection set: `ids[i]` is what its labels call the model's class i.

    COCO has 80 classes with identifiers between 1 and 90; Ultralytics sets count from 0 without gaps.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects in one picture.

    Attributes:
        image_id: Number of the picture, unique within its data set.
        classes: Position of each object's class in `categories`, int64[n].
        xyxy: Corners x1, y1, x2, y2 in pixels of the original picture, float64[n, 4].
        area: Area of each object in square pixels (COCO: of its outline, not of its box), float64[n].
        crowd: True for COCO's crowd regions, which are neither hits nor misses, bool[n].
        categories: The classes of the whole set.
        outlines: Each object's as COCO has it: polygons `[[x1, y1, x2, y2, …], …]` in pixels of the original, or a
            run-length encoding; None where any object has none.
        keypoints: x, y and visibility (0: not labelled, 1: hidden, 2: visible) of each, float64[n, k, 3], or None.
    """

    image_id: int
    classes: Array
    xyxy: Array
    area: Array
    crowd: Array
    categories: Categories
    outlines: Sequence[Any] | None = None
    keypoints: Array | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_corners(cls, image_id: int, classes: Array, xyxy: Array, categories: Categories, **more: Any) -> "Boxes":
        """Return objects none of which is a crowd, the area being that of the box; `more`: outlines, keypoints."""
        xyxy = np.asarray(xyxy, np.float64).reshape(-1, 4)
        area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        crowd = np.zeros(len(xyxy), np.bool_)
        return cls(image_id, np.asarray(classes, np.int64), xyxy, area, crowd, categories, **more)

    def with_area(self, area: Array) -> "Boxes":
        """Return the same objects with other areas, float64[n]."""
        return replace(self, area=area)


@dataclass(frozen=True, eq=False)
class Sample:
    """What the model is fed once, and what is known about it.

    Attributes:
        feeds: One array per model input, of the input's dtype and shape with a batch of 1.
        label: The class number, `Boxes` for detectors, whatever the source gave, or None.
        image: The picture behind the feeds, where there is one.
        where: File and line in which the label stands, for messages; empty where there is no such line.
    """

    feeds: dict[str, Array]
    label: Any = None
    image: ImageInfo | None = None
    where: str = ""

    @property
    def place(self) -> str:
        """What a message about the label names: its line, else the picture, else nothing."""
        return self.where or (str(self.image.path) if self.image is not None else "")
