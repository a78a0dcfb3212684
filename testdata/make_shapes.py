"""Draw the labelled pictures of shapes on which the small models of this folder are trained and scored.

Two sets come out, each from seeds alone:

* ``shapes/``, for detection, in the layout of an Ultralytics ``data.yaml``: pictures of 96 x 96 pixels with
  one to six objects of eight kinds, and one text file of ``class cx cy w h`` rows for each;
* ``patches/``, for classification: pictures of 64 x 64 pixels with one object, five outlines, each filled or
  hollow, and a csv of ``file,label`` rows for each split.

Every picture has its own seed, ``(set, split, index)``, so one can be drawn without the others. Only sums,
products and comparisons touch the pixels, all exactly defined by IEEE 754, and sines are rounded, so the
drawing is the same on every machine. (The JPEG coder is not ours, so ``digests.txt`` records the drawings.)

Usage: ``python testdata/make_shapes.py [--out FOLDER]``
"""

import argparse
import hashlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats: TypeAlias = NDArray[np.float64]
Picture: TypeAlias = NDArray[np.uint8]
Inside: TypeAlias = Callable[[Floats, Floats], NDArray[np.bool_]]

SCENE_SIZE = 96
PATCH_SIZE = 64
SUPERSAMPLE = 3
JPEG_QUALITY = 92
SPLITS = {"train": 0, "val": 1, "training": 2}
"""Seeds of the splits: the two committed ones, and the thousands that a training script draws for itself."""
SCENES = {"train": 64, "val": 100}
PATCHES = {"train": 64, "val": 200}


@dataclass(frozen=True)
class Scene:
    """A drawn picture with its objects.

    Attributes:
        pixels: uint8 [96, 96, 3], RGB.
        labels: classes of the n objects, int64 [n].
        boxes: float64 [n, 4], rows of cx, cy, w, h in pixels.
    """

    pixels: Picture
    labels: NDArray[np.int64]
    boxes: Floats


def _polygon(points: list[tuple[float, float]]) -> Inside:
    """Even-odd rule: a point is inside when a ray to the right crosses the outline an odd number of times."""

    def inside(x: Floats, y: Floats) -> NDArray[np.bool_]:
        result = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                result ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return result

    return inside


def _corners(count: int, radii: tuple[float, ...] = (1.0,)) -> list[tuple[float, float]]:
    """Corners evenly around the origin, their distances from it taken from `radii` in turn."""
    angles = [2 * math.pi * i / count for i in range(count)]
    return [
        (round(radii[i % len(radii)] * math.sin(a), 6), round(-radii[i % len(radii)] * math.cos(a), 6))
        for i, a in enumerate(angles)
    ]


SHAPES: dict[str, Inside] = {
    "circle": lambda x, y: x * x + y * y <= 0.81,
    "ring": lambda x, y: (x * x + y * y <= 0.81) & (x * x + y * y >= 0.25),
    "square": lambda x, y: (abs(x) <= 0.7) & (abs(y) <= 0.7),
    "triangle": _polygon(_corners(3)),
    "hexagon": _polygon(_corners(6)),
    "star": _polygon(_corners(10, (1.0, 0.42))),
    "cross": lambda x, y: (abs(x) <= 0.3) & (abs(y) <= 0.95) | (abs(x) <= 0.95) & (abs(y) <= 0.3),
    "crescent": lambda x, y: (x * x + y * y <= 0.81) & ((x - 0.45) * (x - 0.45) + y * y >= 0.49),
}
"""Kinds of object, each a test on coordinates in units of the object's radius."""
SCENE_CLASSES = tuple(SHAPES)
PATCH_OUTLINES = ("circle", "square", "triangle", "hexagon", "star")
PATCH_CLASSES = tuple(f"{fill} {shape}" for shape in PATCH_OUTLINES for fill in ("filled", "hollow"))


def scene(split: str, index: int) -> Scene:
    """Draw one picture of the detection set.

    Args:
        split: one of `SPLITS`.
        index: which picture of the split.
    """
    rng = np.random.default_rng((0, SPLITS[split], index))
    canvas = _background(rng, SCENE_SIZE)
    wanted = int(rng.integers(1, 7))
    labels: list[int] = []
    boxes: list[Floats] = []
    owner = np.full((SCENE_SIZE, SCENE_SIZE), -1)
    for _ in range(4 * wanted):
        label = int(rng.integers(len(SCENE_CLASSES)))
        radius = 6 + 21 * rng.random() ** 2  # pixels; a square, so that small ones are more frequent
        cover = _coverage(rng, SHAPES[SCENE_CLASSES[label]], radius, SCENE_SIZE)
        solid = cover > 0.5
        box = _tight_box(cover)
        if any(_iou(box, other) > 0.2 for other in boxes) or _hides_too_much(owner, solid):
            continue
        _paint(rng, canvas, cover, contrast=40)
        owner[solid] = len(boxes)
        labels.append(label)
        boxes.append(box)
        if len(boxes) == wanted:
            break
    return Scene(_finish(rng, canvas), np.array(labels), np.array(boxes))


def patch(split: str, index: int) -> tuple[Picture, int]:
    """Draw one picture of the classification set.

    The object stays in the middle 56 x 56 pixels, so that a centre crop of 7/8 still shows all of it.

    Args:
        split: one of `SPLITS`.
        index: which picture of the split.

    Returns:
        The picture, uint8 [64, 64, 3] in RGB, and its class, an index into `PATCH_CLASSES`.
    """
    rng = np.random.default_rng((1, SPLITS[split], index))
    label = index % len(PATCH_CLASSES)
    inside = SHAPES[PATCH_OUTLINES[label // 2]]
    if label % 2:
        inside = _hollow(inside, 0.5 + 0.25 * rng.random())
    canvas = _background(rng, PATCH_SIZE)
    cover = _coverage(rng, inside, 10 + 14 * rng.random(), PATCH_SIZE, margin=4)
    _paint(rng, canvas, cover, contrast=40)
    _scratch(rng, canvas)
    return _finish(rng, canvas), label


def _hollow(inside: Inside, hole: float) -> Inside:
    """The outline alone: what is inside, but not inside a copy shrunk to `hole` of its size."""
    return lambda x, y: inside(x, y) & ~inside(x / hole, y / hole)


def _background(rng: np.random.Generator, size: int) -> Floats:
    """Two colours mixed by a cloud and by stripes: float [size, size, 3], levels 0..255."""
    colours = 255 * rng.random((2, 3))
    colours[1] = colours[0] + 0.45 * (colours[1] - colours[0])
    mix = _cloud(rng, size, int(rng.integers(3, 9)))
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    cosine, sine = _direction(rng)
    phase = (x * cosine + y * sine) / (6 + 14 * rng.random())
    stripes = abs(2 * (phase - np.floor(phase)) - 1)
    share = 0.5 * rng.random()
    mix = ((1 - share) * mix + share * stripes)[..., None]
    canvas: Floats = colours[0] * (1 - mix) + colours[1] * mix
    return canvas


def _cloud(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Random values on a grid of `cells` x `cells`, enlarged bilinearly: float [size, size] in 0..1."""
    grid = rng.random((cells + 1, cells + 1))
    at = np.arange(size) * (cells / size)
    low = np.floor(at).astype(int)
    part = at - low
    rows: Floats = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    cloud: Floats = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return cloud


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    """Cosine and sine of a random angle, rounded so that every maths library gives the same."""
    angle = 2 * math.pi * rng.random()
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _coverage(rng: np.random.Generator, inside: Inside, radius: float, size: int, margin: int = 0) -> Floats:
    """Share of each pixel that a randomly placed, turned and stretched object covers: float [size, size]."""
    cosine, sine = _direction(rng)
    stretch = 0.8 + 0.2 * rng.random()
    reach = radius + margin
    cx, cy = reach + (size - 2 * reach) * rng.random(2)
    left, top, side = int(cx - radius), int(cy - radius), int(2 * radius) + 2
    y, x = (np.mgrid[0 : side * SUPERSAMPLE, 0 : side * SUPERSAMPLE] + 0.5) / SUPERSAMPLE
    x, y = x + (left - cx), y + (top - cy)
    fine = inside((x * cosine + y * sine) / radius, (y * cosine - x * sine) / (radius * stretch))
    window = fine.reshape(side, SUPERSAMPLE, side, SUPERSAMPLE).sum(axis=(1, 3)) / SUPERSAMPLE**2
    cover = np.zeros((size + 2, size + 2))
    cover[top : top + side, left : left + side] = window
    return cover[:size, :size]


def _tight_box(cover: Floats) -> Floats:
    """Box around the pixels that an object covers, those at the rim counted by their cover: cx, cy, w, h."""
    spans = []
    for axis in (0, 1):
        profile = cover.max(axis=axis)
        (touched,) = np.nonzero(profile > 0)
        first, last = int(touched[0]), int(touched[-1])
        spans.append((first + 1 - profile[first], last + profile[last]))
    (x0, x1), (y0, y1) = spans
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])


def _iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes given as cx, cy, w, h."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / (float(np.prod(a[2:]) + np.prod(b[2:])) - common)


def _hides_too_much(owner: NDArray[np.int64], solid: NDArray[np.bool_]) -> bool:
    """Whether painting `solid` would leave less than 70 % of an earlier object in sight."""
    hidden = owner[solid]
    return any((hidden == i).sum() > 0.3 * (owner == i).sum() for i in np.unique(hidden[hidden >= 0]))


def _paint(rng: np.random.Generator, canvas: Floats, cover: Floats, contrast: float) -> None:
    """Paint an object in a colour at least `contrast` levels from what lies under it (mean over channels)."""
    under = canvas[cover > 0].mean(axis=0)
    colour = 255 * rng.random(3)
    while abs(colour - under).mean() < contrast:
        colour = 255 * rng.random(3)
    shade = 30 * (_cloud(rng, len(canvas), 2) - 0.5)
    canvas += cover[..., None] * (colour + shade[..., None] - canvas)


def _scratch(rng: np.random.Generator, canvas: Floats) -> None:
    """Draw up to two thin random bars across the picture, which also cross the object."""
    size = len(canvas)
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    for _ in range(int(rng.integers(3))):
        cosine, sine = _direction(rng)
        cx, cy = size * rng.random(2)
        distance = abs((x - cx) * sine - (y - cy) * cosine)
        cover = np.clip(1 + 0.7 * rng.random() - distance, 0, 1)
        canvas += cover[..., None] * (255 * rng.random(3) - canvas)


def _finish(rng: np.random.Generator, canvas: Floats) -> Picture:
    """Blur a little or not, add grain, round to levels."""
    blur = 0.25 * rng.random()
    for axis in (0, 1):
        before, after = np.roll(canvas, 1, axis), np.roll(canvas, -1, axis)
        canvas = (1 - 2 * blur) * canvas + blur * (before + after)
    strength = 10 + 40 * rng.random()
    grain = (rng.random(canvas.shape) + rng.random(canvas.shape) - 1) * strength
    return np.clip(np.round(canvas + grain), 0, 255).astype(np.uint8)


def jpeg(pixels: Picture) -> bytes:
    """A picture as JPEG, in the quality of the committed files."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def digest(pixels: Picture) -> str:
    """SHA-256 of the raw pixels of a drawing."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def label_rows(drawn: Scene) -> str:
    """The label file of a picture: rows of class, cx, cy, w, h, in parts of the picture's size."""
    rows = zip(drawn.labels, drawn.boxes / SCENE_SIZE, strict=True)
    return "".join(f"{label} " + " ".join(f"{value:.6f}" for value in box) + "\n" for label, box in rows)


def write_scenes(folder: Path) -> Iterator[tuple[str, str]]:
    """Write the detection set under `folder`; yields path and digest of each drawing."""
    for split, count in SCENES.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            drawn = scene(split, index)
            picture = folder / "images" / split / f"{index:04d}.jpg"
            picture.write_bytes(jpeg(drawn.pixels))
            (folder / "labels" / split / f"{index:04d}.txt").write_text(label_rows(drawn))
            yield str(picture.relative_to(folder.parent)), digest(drawn.pixels)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(SCENE_CLASSES))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")


def write_patches(folder: Path) -> Iterator[tuple[str, str]]:
    """Write the classification set under `folder`; yields path and digest of each drawing."""
    for split, count in PATCHES.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        rows = ["file,label"]
        for index in range(count):
            pixels, label = patch(split, index)
            picture = folder / split / f"{index:04d}.jpg"
            picture.write_bytes(jpeg(pixels))
            rows.append(f"{picture.name},{label}")
            yield str(picture.relative_to(folder.parent)), digest(pixels)
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    """Write both sets and the digests of their drawings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    lines = [*write_scenes(out / "shapes"), *write_patches(out / "patches")]
    (out / "digests.txt").write_text("".join(f"{value}  {path}\n" for path, value in lines))


if __name__ == "__main__":
    main()
