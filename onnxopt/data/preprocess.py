"""How a picture becomes a model's input, as a value with a text form: `parse_preprocess(str(p)) == p`.

    imagenet                                     a preset
    yolo,pad=0                                   a preset with changes
    resize=letterbox,pad=114,scale=1/255         spelled out; what is left out keeps its default

Each pixel value x (0..255) becomes (x * scale - mean) / std, per channel in the order of `color`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from onnxopt.errors import UsageError, nearest

CHOICES: Mapping[str, tuple[str, ...]] = {
    "resize": ("crop", "letterbox", "line", "stretch"),
    "align": ("center", "topleft"),
    "color": ("rgb", "bgr", "gray"),
    "filter": ("bilinear", "bicubic", "linear"),
}


@dataclass(frozen=True)
class Preprocess:
    """The steps from a decoded picture to an input tensor; the target size comes from the model.

    Attributes:
        resize: `crop`: shorter side to input size / `crop`, then the centre; `letterbox`: the whole picture,
            padded; `line`: to the input's height and at most its width, padded on the right, for lines of text;
            `stretch`: to the input size, whatever the aspect ratio.
        crop: Share of the shorter side that a centre crop keeps; 0.875 is the usual 224 of 256.
        align: Where a letterboxed picture lies: `center` or `topleft`.
        pad: Value of the padding, 0..255.
        color: Channel order; `gray` is luma. One-channel inputs get luma in any case.
        scale: Factor on 0..255 pixel values.
        mean: Subtracted after scaling, one value or one per channel.
        std: Divisor after that, one value or one per channel.
        filter: `bilinear` and `bicubic` average over the source area when shrinking, as Pillow and torchvision
            do; `linear` looks at four neighbours only, as OpenCV's default does.

    Raises:
        UsageError: A value is out of its range.
    """

    resize: str = "stretch"
    crop: float = 0.875
    align: str = "center"
    pad: int = 114
    color: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"preprocess: {name}={value} is not known{nearest(str(value), known)}")
        checks = {
            "crop": 0 < self.crop <= 1,
            "pad": 0 <= self.pad <= 255,
            "scale": math.isfinite(self.scale) and self.scale > 0,
            "mean": bool(self.mean) and all(map(math.isfinite, self.mean)),
            "std": bool(self.std) and all(math.isfinite(value) and value > 0 for value in self.std),
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"preprocess: {name}={_format(getattr(self, name))} is out of range")

    def __str__(self) -> str:
        for name, preset in PRESETS.items():
            if preset == self:
                return name
        default = Preprocess()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {n: v for n, v in values.items() if n == "resize" or v != getattr(default, n)}
        return ",".join(f"{name}={_format(value)}" for name, value in shown.items())

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values for the `[data]` section of a recipe."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Preprocess":
        """Return the preprocessing that a table of settings describes; `preset` names what to start from.

        Raises:
            UsageError: A setting is unknown or its value is of the wrong kind.
        """
        given = dict(settings)
        start = preset(str(given.pop("preset"))) if "preset" in given else cls()
        return cls(**{**asdict(start), **{name: _value(name, value) for name, value in given.items()}})


PRESETS: Mapping[str, Preprocess] = {
    "imagenet": Preprocess(resize="crop", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "ppocr": Preprocess(resize="line", color="bgr", pad=128, mean=(0.5,), std=(0.5,), filter="linear"),
    "yolo": Preprocess(resize="letterbox", filter="linear"),
    "yolox": Preprocess(resize="letterbox", align="topleft", color="bgr", scale=1.0, filter="linear"),
}


def preset(name: str) -> Preprocess:
    """Return the preset of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in PRESETS:
        raise UsageError(f"preprocess: no preset is called '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]


def parse_preprocess(text: str) -> Preprocess:
    """Return the preprocessing that a text such as `yolo` or `resize=crop,mean=[0.5],std=[0.5]` describes.

    Raises:
        UsageError: The text is malformed, or names an unknown preset, setting or value.
    """
    settings: dict[str, Any] = {}
    for place, part in enumerate(_split(text)):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and place:
            raise UsageError(f"preprocess: '{part}' in '{text}' is not of the form name=value")
        if not equals:
            name, value = "preset", name
        if name in settings:
            raise UsageError(f"preprocess: '{name}' is given twice in '{text}'")
        settings[name] = value
    return Preprocess.from_dict(settings)


def _split(text: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth != 0:
        raise UsageError(f"preprocess: the brackets in '{text}' do not match")
    return parts


def _value(name: str, value: object) -> object:
    """Return the value of a setting, from text or from a recipe's TOML value, as its type."""
    if name not in READERS:
        raise UsageError(f"preprocess: there is no setting '{name}'{nearest(name, READERS)}")
    try:
        return READERS[name](value)
    except (ValueError, TypeError, ZeroDivisionError):
        raise UsageError(f"preprocess: {name}={value} cannot be read; {HINTS[name]}") from None


def _number(value: object) -> float:
    """Read a number or a fraction such as 1/255."""
    text = str(value).strip()
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(top)


def _integer(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _numbers(value: object) -> tuple[float, ...]:
    items = value if isinstance(value, list | tuple) else str(value).strip().strip("[]").split(",")
    return tuple(_number(item) for item in items)


def _word(value: object) -> str:
    return str(value).strip().lower().replace("-", "")


def _format(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(map(_format, value)) + "]"
    if isinstance(value, float) and 0 < value < 0.02:
        # Shown as people write it (1/255), but only where reading it back gives the very same number.
        part = Fraction(value).limit_denominator(100_000)
        if part.numerator == 1 and 1 / part.denominator == value:
            return f"1/{part.denominator}"
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


READERS: Mapping[str, Callable[[object], object]] = {
    "resize": _word,
    "crop": _number,
    "align": _word,
    "pad": _integer,
    "color": _word,
    "scale": _number,
    "mean": _numbers,
    "std": _numbers,
    "filter": _word,
}
HINTS: Mapping[str, str] = {
    "crop": "a share such as 0.875 is expected",
    "pad": "a whole number from 0 to 255 is expected",
    "scale": "a number such as 1 or 1/255 is expected",
    "mean": "numbers in brackets such as [0.5,0.5,0.5] are expected",
    "std": "numbers in brackets such as [0.5,0.5,0.5] are expected",
}
