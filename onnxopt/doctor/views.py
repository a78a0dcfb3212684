"""The same samples, prepared otherwise: from the picture files again, or from the pixels that arrays still hold.

Arrays are taken back to pixels by the range that their values fill. A border of one constant value on two sides is the
padding of a letterbox; with it known, the picture inside can be moved and padded anew. What was lost (how a picture was
stretched or cropped) cannot be undone. Which channel of an array is red is not known either: its order is called RGB
here, and the other one BGR.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from onnxopt.data import Array, Dataset, InputSpec, Preprocess, Sample
from onnxopt.data.images import PictureInput, image_layout
from onnxopt.data.pictures import PictureSource
from onnxopt.doctor.settings import Name
from onnxopt.doctor.values import affine, range_of, with_values

EVERY_SETTING: frozenset[Name] = frozenset({"values", "color", "resize", "align", "pad"})
THINNEST = 4  # pixels; a border that is thinner may be part of a picture
LETTERBOXED = 0.25  # of the samples have such borders, if any was made by a letterbox


@dataclass(frozen=True)
class PictureView:
    """Picture files: any preparation can be made.

    Attributes:
        dataset: The samples.
        source: Their files.
        given: How they are prepared as they came.
        can: The settings that can be changed.
        known: The settings of which `given` is what was done, rather than a name for it.
    """

    dataset: Dataset
    source: PictureSource
    given: Preprocess
    can: frozenset[Name] = EVERY_SETTING
    known: frozenset[Name] = EVERY_SETTING

    @property
    def spec(self) -> InputSpec:
        """The input that they feed."""
        return self.source.input.spec

    def samples(self, preprocess: Preprocess) -> Iterable[Sample]:
        """Read the files again."""
        source = PictureSource(self.source.pictures, PictureInput(self.spec, preprocess))
        return replace(self.dataset, source=source, preprocess=preprocess)


@dataclass(frozen=True)
class Border:
    """Widths of the constant border of a picture in pixels, and its value."""

    top: int
    bottom: int
    left: int
    right: int
    value: float

    @property
    def align(self) -> str | None:
        """Where a letterbox put the picture, or None if this is no letterbox."""
        pairs = sorted(((self.top, self.bottom), (self.left, self.right)), key=sum)
        (before, after), rest = pairs[1], sum(pairs[0])
        if rest or before + after < THINNEST:
            return None
        if before == 0:
            return "topleft"
        return "center" if abs(before - after) <= 1 else None


@dataclass(frozen=True)
class ArrayView:
    """Ready-made arrays of pictures: pixels can be changed, as far as they are known.

    Attributes:
        dataset: The samples.
        spec: The input that they feed.
        given: How they seem to be prepared.
        can: The settings that can be changed.
        known: The settings of which `given` is what was done, rather than a name for it.
    """

    dataset: Dataset
    spec: InputSpec
    given: Preprocess
    can: frozenset[Name]
    known: frozenset[Name]

    def samples(self, preprocess: Preprocess) -> Iterator[Sample]:
        """Take each array back to pixels and prepare these."""
        for sample in self.dataset:
            if preprocess == self.given:
                yield sample
                continue
            pixels = to_pixels(sample.feeds[self.spec.name], self.spec, self.given)
            if self.given.resize == "letterbox":
                pixels = _boxed(pixels, preprocess, self.given)
            yield replace(sample, feeds={self.spec.name: from_pixels(pixels, self.spec, preprocess)})


View: TypeAlias = PictureView | ArrayView


def view_of(dataset: Dataset, inputs: Sequence[InputSpec], swept: Sequence[Array]) -> View | None:
    """Return the samples of a data set as a view, or None if the model takes no picture.

    Args:
        dataset: The samples that the model is run on.
        inputs: The model's inputs.
        swept: Arrays of the first input, to tell what is known of ready-made ones.
    """
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype.kind != "f":
        return None
    source, given = dataset.source, dataset.preprocess
    if isinstance(source, PictureSource) and given is not None:
        return PictureView(dataset, source, given)
    spec = inputs[0]
    if not any(channels in {1, 3, 4} for channels in (spec.shape[1], spec.shape[3])):
        return None
    values = range_of(min(float(a.min()) for a in swept), max(float(a.max()) for a in swept))
    if values is None:
        return ArrayView(dataset, spec, Preprocess(scale=1.0), frozenset({"color"}), frozenset())
    start = with_values(Preprocess(), values)
    letterbox = _letterbox([border_of(to_pixels(a, spec, start)) for a in swept])
    if letterbox is None:
        return ArrayView(dataset, spec, start, frozenset({"values", "color"}), frozenset({"values"}))
    given = replace(start, resize="letterbox", align=letterbox[0], pad=letterbox[1])
    return ArrayView(dataset, spec, given, EVERY_SETTING - {"resize"}, EVERY_SETTING - {"color"})


def to_pixels(array: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Return an input's first picture as pixels 0..255, float64[height, width, channels], in RGB."""
    channels_last, channels, _, _ = image_layout(spec)
    values = np.asarray(array[0] if channels_last else array[0].transpose(1, 2, 0), np.float64)
    factor, shift = affine(preprocess, channels)
    pixels = (values - shift) / factor
    return _reordered(pixels, preprocess)


def from_pixels(pixels: Array, spec: InputSpec, preprocess: Preprocess) -> Array:
    """Return pixels in RGB as an input, with a batch of 1."""
    channels_last, channels, _, _ = image_layout(spec)
    factor, shift = affine(preprocess, channels)
    values = _reordered(pixels, preprocess) * factor + shift
    return np.ascontiguousarray((values if channels_last else values.transpose(2, 0, 1))[None], spec.dtype)


def border_of(pixels: Array) -> Border:
    """Return the border of one constant value around a picture."""
    rounded = np.round(pixels)
    corner = rounded[-1, -1]  # of a letterbox at the top left and of one in the centre alike
    if not (corner == corner[0]).all():
        return Border(0, 0, 0, 0, float(corner[0]))
    filled = (rounded != corner[0]).any(axis=2)
    rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
    if not len(rows):
        return Border(0, 0, 0, 0, float(corner[0]))
    height, width = filled.shape
    return Border(
        int(rows[0]), height - 1 - int(rows[-1]), int(columns[0]), width - 1 - int(columns[-1]), float(corner[0])
    )


def _letterbox(borders: Sequence[Border]) -> tuple[str, int] | None:
    """Return where and with which value the pictures of arrays were padded, or None if they were not."""
    found = [(b.align, round(b.value)) for b in borders if b.align is not None and 0 <= round(b.value) <= 255]
    if not found:
        return None
    best = max(sorted(set(found)), key=found.count)
    if found.count(best) < max(2.0, LETTERBOXED * len(borders)):
        return None
    assert best[0] is not None
    return best[0], best[1]


def _boxed(pixels: Array, preprocess: Preprocess, given: Preprocess) -> Array:
    """Return a letterboxed picture, placed and padded anew; any other as it is."""
    border = border_of(pixels)
    if border.align != given.align or round(border.value) != given.pad:
        return pixels
    height, width = pixels.shape[:2]
    inside = pixels[border.top : height - border.bottom, border.left : width - border.right]
    canvas = np.full_like(pixels, preprocess.pad)
    centered = preprocess.align == "center"
    top = (height - inside.shape[0]) // 2 if centered else 0
    left = (width - inside.shape[1]) // 2 if centered else 0
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas


def _reordered(pixels: Array, preprocess: Preprocess) -> Array:
    """Swap red and blue if the preparation has them swapped; doing it twice undoes it."""
    channels = pixels.shape[2]
    if preprocess.color != "bgr" or channels < 3:
        return pixels
    swapped: Array = pixels[:, :, [2, 1, 0, *range(3, channels)]]
    return swapped
