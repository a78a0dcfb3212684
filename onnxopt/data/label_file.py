"""A label file of Ultralytics' format: one object a line, a class and then numbers in shares of the picture's size.

1. 4 numbers: a box, as centre and size. https://docs.ultralytics.com/datasets/detect
2. 6, 8, 10 … numbers: an outline, x and y of each corner; of a rotated box the four corners.
   https://docs.ultralytics.com/datasets/segment and /obb
3. Where the yaml says `kpt_shape: [k, d]`, 4 + k·d: a box, then x, y and for d = 3 visibility of each keypoint.
   https://docs.ultralytics.com/datasets/pose
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxopt.data.sample import Array, Boxes, Categories, ImageInfo
from onnxopt.errors import UsageError

MOST_OF_BOX = 1.01  # share of the picture that a centre or size comes to, rounding included
MOST_OF_CORNER = 2.0  # corners and keypoints of objects at the border may lie outside of the picture
PERSON_SHARE = 0.53  # of its box that an object with keypoints covers, for OKS, as Ultralytics has it


@dataclass(frozen=True)
class LabelFile:
    """The label file of one picture; a missing one means a picture without objects.

    Attributes:
        path: The file.
        image_id: Number of the picture.
        categories: The classes of the set.
        keypoints: Their number and how many values each has, where the set has keypoints.
    """

    path: Path
    image_id: int
    categories: Categories
    keypoints: tuple[int, int] | None = None

    def read(self, image: ImageInfo) -> Boxes:
        """Return the objects in pixels of the picture.

        Raises:
            UsageError: A line cannot be read, or its class is not among the names.
        """
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the labels {self.path} cannot be read: {error}") from None
        classes: list[int] = []
        rows: list[Array] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                values = np.asarray([float(value) for value in line.split()])
                self._check(values[1:])
                classes.append(self._class(values[0]))
            except ValueError as error:
                raise UsageError(f"labels {self.path}, line {number}: {error}") from None
            rows.append(values[1:])
        return self._boxes(classes, rows, image)

    def _class(self, value: float) -> int:
        if value not in self.categories.ids:
            raise ValueError(f"class {value:g} is not among the {len(self.categories.ids)} names of the yaml")
        return self.categories.ids.index(int(value))

    def _check(self, values: Array) -> None:
        if not np.isfinite(values).all():
            raise ValueError("not a number")
        if self.keypoints is not None:
            wanted = 4 + self.keypoints[0] * self.keypoints[1]
            if len(values) not in {4, wanted}:
                raise ValueError(f"{len(values)} numbers after the class, where kpt_shape asks for {wanted}")
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise ValueError(f"{len(values)} numbers after the class, where a box has 4 and an outline 6, 8, …")
        self._check_shares(values)

    def _check_shares(self, values: Array) -> None:
        """Refuse pixels, which would be taken for objects far outside of the picture."""
        boxed = self.keypoints is not None or len(values) == 4
        box, corners = (values[:4], values[4:]) if boxed else (values[:0], values)
        if self.keypoints is not None:
            corners = corners.reshape(-1, self.keypoints[1])[:, :2]
        for most, found in ((MOST_OF_BOX, box), (MOST_OF_CORNER, corners)):
            if (found > most).any():
                raise ValueError(
                    f"{found.max():g} is no share of the picture's size; divide x and width by the picture's width in "
                    "pixels, y and height by its height"
                )

    def _boxes(self, classes: list[int], rows: list[Array], image: ImageInfo) -> Boxes:
        size = np.asarray([image.width, image.height], np.float64)
        corners = [self._corners(values) for values in rows]
        xyxy = np.asarray(corners, np.float64).reshape(-1, 4) * np.tile(size, 2)
        if self.keypoints is not None:
            points = [self._points(values, size, self.keypoints) for values in rows]
            found = np.asarray(points, np.float64).reshape(-1, self.keypoints[0], 3)
            boxes = Boxes.from_corners(self.image_id, np.asarray(classes), xyxy, self.categories, keypoints=found)
            return boxes.with_area(boxes.area * PERSON_SHARE)
        outlined = all(len(values) > 4 for values in rows)
        outlines = [[(values.reshape(-1, 2) * size).ravel().tolist()] for values in rows] if outlined else None
        return Boxes.from_corners(self.image_id, np.asarray(classes), xyxy, self.categories, outlines=outlines)

    def _corners(self, values: Array) -> Array:
        """Return x1, y1, x2, y2 as shares of the picture."""
        if self.keypoints is not None or len(values) == 4:
            x, y, width, height = values[:4]
            return np.asarray([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        outline = values.reshape(-1, 2)
        return np.concatenate([outline.min(axis=0), outline.max(axis=0)])

    @staticmethod
    def _points(values: Array, size: Array, shape: tuple[int, int]) -> Array:
        """Return x, y in pixels and visibility of each keypoint; without the latter, those not negative are visible."""
        if len(values) == 4:
            return np.zeros((shape[0], 3))
        points = values[4:].reshape(shape)
        visible = points[:, 2:] if shape[1] == 3 else 2.0 * (points >= 0).all(axis=1, keepdims=True)
        return np.concatenate([points[:, :2] * size, visible], axis=1)
