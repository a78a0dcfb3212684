"""Draws what the model sees and says: so that a person sees wrong colours, ranges and boxes at once.

Inputs are taken back to pixels in the way that suits the *model* best, not in the way that they were made. Right inputs
then look like the picture; with swapped channels skin is blue, and 0..1 where 0..255 is expected is black.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onnxopt.data import Array, Boxes, ImageInfo, InputSpec, Preprocess
from onnxopt.doctor.instruments import Seen
from onnxopt.doctor.reading import Probabilities
from onnxopt.doctor.views import to_pixels
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Detections

SHOWN = 0.25  # confidence of objects that are drawn
SMALLEST = 416  # pixels of the longer side; smaller inputs are enlarged by a whole number
FOUND, LABELLED = (255, 140, 0), (0, 220, 90)
TOP, FONT = 3, 14


def draw(
    folder: Path,
    shown: Sequence[tuple[Array, Seen]],
    spec: InputSpec,
    wanted: Preprocess,
    names: Mapping[int, str],
) -> list[Path]:
    """Write one picture per sample, and return the files.

    Args:
        folder: Where to; it is made if it is not there.
        shown: Inputs as they came, and what the model said of them.
        spec: The model's input.
        wanted: How the model wants its inputs, as far as is known.
        names: Class names.

    Raises:
        UsageError: The folder cannot be made or written.
    """
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (array, seen) in enumerate(shown, 1):
            files.append(folder / f"doctor-{number}.png")
            picture(array, seen, spec, wanted, names).save(files[-1])
    except OSError as error:
        raise UsageError(f"the pictures cannot be written to {folder}: {error.strerror or error}") from None
    return files


def picture(array: Array, seen: Seen, spec: InputSpec, wanted: Preprocess, names: Mapping[int, str]) -> Image.Image:
    """Return one input with labelled boxes in green, found ones in orange; classes as text."""
    pixels = np.clip(np.round(to_pixels(array, spec, wanted)), 0, 255).astype(np.uint8)
    plain = Image.fromarray(pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0]).convert("RGB")
    times = max(1, SMALLEST // max(plain.size))
    canvas = plain.resize((plain.width * times, plain.height * times), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    pen.font = ImageFont.load_default(FONT)
    if isinstance(seen.label, Boxes) and seen.image is not None:
        for box in _to_input(seen.label.xyxy, seen.image).tolist():
            _rectangle(pen, box, times, LABELLED)
    if isinstance(seen.reading, Detections):
        _objects(pen, seen.reading, times, names)
    elif isinstance(seen.reading, Probabilities):
        _classes(pen, seen.reading, names)
    return canvas


def _objects(pen: ImageDraw.ImageDraw, found: Detections, times: int, names: Mapping[int, str]) -> None:
    for kind, score, box in zip(found.classes.tolist(), found.scores.tolist(), found.xyxy.tolist(), strict=True):
        if score >= SHOWN:
            _rectangle(pen, box, times, FOUND)
            _text(pen, (box[0] * times + 2, box[1] * times + 1), f"{names.get(kind, f'class {kind}')} {score:.2f}")


def _classes(pen: ImageDraw.ImageDraw, found: Probabilities, names: Mapping[int, str]) -> None:
    for place, number in enumerate(np.argsort(-found.values, kind="stable")[:TOP].tolist()):
        _text(pen, (3, 3 + (FONT + 3) * place), f"{names.get(number, f'class {number}')} {found.values[number]:.2f}")


def _rectangle(pen: ImageDraw.ImageDraw, box: Sequence[float], times: int, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = (float(np.clip(value * times, -1e4, 1e4)) for value in box)
    pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), outline=color, width=2)


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str) -> None:
    place = (max(place[0], 2), max(place[1], 1))
    pen.rectangle(pen.textbbox(place, text), fill=(0, 0, 0))
    pen.text(place, text, fill=FOUND)


def _to_input(xyxy: Array, image: ImageInfo) -> Array:
    return np.asarray(xyxy * np.tile(image.scale, 2) + np.tile(image.offset, 2))
