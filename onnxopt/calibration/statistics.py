"""What is remembered of one tensor while calibration data stream by: about 32 kB, whatever their number.

Statistics are measured (`update`), put together (`merge`), or derived from those of another tensor (`mapped`,
`union`, `renamed`), so that one measured tensor serves all that follow from it.
"""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from onnxopt.calibration.elementwise import Elementwise
from onnxopt.errors import UsageError
from onnxopt.kernels import Histogram, minmax_rows


class TensorStatistics:
    """Running statistics of one tensor.

    Attributes:
        name: name of the tensor.
        images: how many images were seen.
        minimum: smallest value seen; meaningless before the first image, like the following ones.
        maximum: largest value seen.
        sum_of_minima: sum over the images of each one's smallest value.
        sum_of_maxima: sum over the images of each one's largest value.
        histogram: counts of all values, or None.
        bounds: `(low, high)` that the function which makes the tensor cannot leave (Sigmoid, Clip), or None.
    """

    def __init__(self, name: str, *, histogram: bool = False, bounds: tuple[float, float] | None = None) -> None:
        self.name = name
        self.images = 0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.histogram = Histogram() if histogram else None
        self.bounds = bounds
        self.sum_of_minima = 0.0
        self.sum_of_maxima = 0.0

    @property
    def mean_minimum(self) -> float:
        """Mean over the images of the smallest value."""
        return self.sum_of_minima / self.images

    @property
    def mean_maximum(self) -> float:
        """Mean over the images of the largest value."""
        return self.sum_of_maxima / self.images

    def update(self, array: npt.NDArray[np.generic], images: int | None = None) -> None:
        """Take in the tensor's value for one image or one batch.

        Args:
            array: numbers of any type and shape; nothing is remembered of an empty one.
            images: how many images it holds, one after the other along the first axis (which may be a multiple,
                as for heads of attention). An axis that does not divide so, as after a transposition, is taken
                as one whole for every image. Default: the length of the first axis; one below two axes.

        Raises:
            UsageError: a value is NaN or infinite.
        """
        if array.size == 0:
            return
        length = array.shape[0] if array.ndim > 1 else 1
        images = length if images is None else images
        with np.errstate(over="ignore"):  # what overflows float32 is reported below
            values = np.ascontiguousarray(array, np.float32)
        rows = images if length % images == 0 else 1
        low, high, finite = minmax_rows(values.reshape(rows, -1))
        if not finite:
            raise UsageError(
                f"tensor '{self.name}' holds NaN or infinite values; check the calibration data and their "
                "preprocessing (`ignore` of calibrate and of insert-qdq leaves the nodes around a tensor float)"
            )
        self.images += images
        self.sum_of_minima += float(low.sum(dtype=np.float64)) * (images // rows)
        self.sum_of_maxima += float(high.sum(dtype=np.float64)) * (images // rows)
        smallest, largest = float(low.min()), float(high.max())
        self.minimum = min(self.minimum, smallest)
        self.maximum = max(self.maximum, largest)
        if self.histogram is not None:
            self.histogram.add(values, smallest, largest)

    def merge(self, other: "TensorStatistics") -> None:
        """Take in what was seen of the same tensor on other images.

        Raises:
            ValueError: one has a histogram and the other has not.
        """
        if (self.histogram is None) != (other.histogram is None):
            raise ValueError(f"statistics of '{self.name}' with and without a histogram cannot be merged")
        self.images += other.images
        self.sum_of_minima += other.sum_of_minima
        self.sum_of_maxima += other.sum_of_maxima
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)

    def require_images(self) -> None:
        """Raise a `UsageError` that names the tensor if nothing was seen of it."""
        if self.images == 0:
            raise UsageError(f"no calibration sample gave tensor '{self.name}' a value; its range is unknown")

    def renamed(self, name: str) -> Self:
        """Return a copy for a tensor with the same values (Reshape) or a selection of them (MaxPool, Resize)."""
        renamed = copy.copy(self)
        renamed.name = name
        renamed.histogram = self.histogram and self.histogram.copy()
        return renamed

    def mapped(self, function: Elementwise, name: str) -> Self:
        """Return the statistics of `function` of this tensor.

        The range encloses all values: it takes the whole interval for attained, the function's local extrema
        inside it included. So do the means, for the interval between them. The histogram is that of the function
        of the cells' centres.

        Args:
            function: the function, from `elementwise`.
            name: name of the tensor that holds its values.

        Raises:
            UsageError: nothing was seen of this tensor.
        """
        self.require_images()
        mapped = type(self)(name, histogram=self.histogram is not None, bounds=function.bounds)
        mapped.images = self.images
        mapped.minimum, mapped.maximum = function.interval(self.minimum, self.maximum)
        mean_low, mean_high = function.interval(self.mean_minimum, self.mean_maximum)
        mapped.sum_of_minima, mapped.sum_of_maxima = mean_low * self.images, mean_high * self.images
        if mapped.histogram is not None and self.histogram is not None:
            centres, counts = self.histogram.occupied()
            inside = np.clip(centres, self.minimum, self.maximum)
            mapped.histogram.add_weighted(function(inside), counts)
        return mapped

    @classmethod
    def union(cls, name: str, parts: Sequence["TensorStatistics"]) -> Self:
        """Return the statistics of a tensor that consists of several others, as after Concat.

        The mean extremes are those of the part that goes furthest, a little inside of the true ones.

        Args:
            name: name of the tensor.
            parts: statistics of the others, over the same images.

        Raises:
            UsageError: nothing was seen of a part.
        """
        for part in parts:
            part.require_images()
        union = cls(name, histogram=all(part.histogram is not None for part in parts))
        union.images = min(part.images for part in parts)
        union.minimum = min(part.minimum for part in parts)
        union.maximum = max(part.maximum for part in parts)
        union.sum_of_minima = min(part.mean_minimum for part in parts) * union.images
        union.sum_of_maxima = max(part.mean_maximum for part in parts) * union.images
        if all(part.bounds == parts[0].bounds for part in parts):
            union.bounds = parts[0].bounds
        for part in parts:
            if union.histogram is not None and part.histogram is not None:
                union.histogram.merge(part.histogram)
        return union
