"""What can be wrong with a preparation: one row per setting, with what it may be instead.

A row names the fields of `Preprocess` that it covers, which faults a change of them stands for, and how to say it.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeAlias

from onnxopt.data import Preprocess
from onnxopt.doctor.values import RANGES, is_far, range_name, same_values, with_values

Name: TypeAlias = Literal["values", "color", "resize", "align", "pad"]


@dataclass(frozen=True)
class Setting:
    """One thing about a preparation that is right or wrong by itself.

    Attributes:
        name: What it is called here.
        fields: The fields of `Preprocess` that hold it.
        alternatives: What it may be instead, as whole preparations.
        fault: The kind of fault, from what was given and what is right.
        says: The same as a sentence.
    """

    name: Name
    fields: tuple[str, ...]
    alternatives: Callable[[Preprocess], Iterable[Preprocess]]
    fault: Callable[[Preprocess, Preprocess], str]
    says: Callable[[Preprocess, Preprocess], str]

    @property
    def is_range(self) -> bool:
        """Whether this is the range of values."""
        return self.name == "values"

    @property
    def is_geometry(self) -> bool:
        """Whether this is how a picture is fitted into the input."""
        return self.name in {"resize", "align", "pad"}

    def differs(self, a: Preprocess, b: Preprocess) -> bool:
        """Whether two preparations differ in this."""
        if self.is_range:
            return not same_values(a, b)
        if self.name in {"align", "pad"} and "letterbox" not in (a.resize, b.resize):
            return False
        return any(getattr(a, name) != getattr(b, name) for name in self._compared(a, b))

    def adopt(self, preprocess: Preprocess, other: Preprocess) -> Preprocess:
        """Return a preparation with this setting of another."""
        settings = asdict(other)
        return replace(preprocess, **{name: settings[name] for name in self.fields})

    def _compared(self, a: Preprocess, b: Preprocess) -> tuple[str, ...]:
        if self.name == "resize" and "crop" not in (a.resize, b.resize):
            return ("resize",)
        return self.fields


def _ranges(given: Preprocess) -> Iterable[Preprocess]:
    return (with_values(given, row) for row in RANGES.values() if not same_values(row, given))


def _colors(given: Preprocess) -> Iterable[Preprocess]:
    return (replace(given, color=color) for color in ("rgb", "bgr") if color != given.color)


def _resizes(given: Preprocess) -> Iterable[Preprocess]:
    usual = Preprocess().crop
    if given.resize == "crop" and given.crop < usual:
        yield replace(given, crop=usual)
    for kind in ("letterbox", "stretch"):
        if kind != given.resize:
            yield replace(given, resize=kind, crop=usual)


def _aligns(given: Preprocess) -> Iterable[Preprocess]:
    if given.resize == "letterbox":
        yield replace(given, align="topleft" if given.align == "center" else "center")


def _pads(given: Preprocess) -> Iterable[Preprocess]:
    if given.resize == "letterbox":
        yield from (replace(given, pad=pad) for pad in (114, 0, 255) if pad != given.pad)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "values",
        ("scale", "mean", "std"),
        _ranges,
        lambda given, right: "value-range" if is_far(given, right) else "normalization",
        lambda given, right: f"The model is fed {range_name(given)}, and expects {range_name(right)}.",
    ),
    Setting(
        "color",
        ("color",),
        _colors,
        lambda given, right: "channel-order",
        lambda given, right: (
            f"The channels are swapped: given is {given.color.upper()}, and the model expects {right.color.upper()}."
        ),
    ),
    Setting(
        "resize",
        ("resize", "crop"),
        _resizes,
        lambda given, right: "crop" if "crop" in (given.resize, right.resize) else "letterbox",
        lambda given, right: (
            f"The pictures are fitted in the wrong way: {_fit(given)}, and the model expects {_fit(right)}."
        ),
    ),
    Setting(
        "align",
        ("align",),
        _aligns,
        lambda given, right: "letterbox-position",
        lambda given, right: f"The letterboxed picture lies {_place(given)}, and the model expects it {_place(right)}.",
    ),
    Setting(
        "pad",
        ("pad",),
        _pads,
        lambda given, right: "letterbox-padding",
        lambda given, right: f"The letterbox is padded with {given.pad}, and the model expects {right.pad}.",
    ),
)


def _fit(preprocess: Preprocess) -> str:
    words = {"letterbox": "letterboxed", "stretch": "stretched", "crop": f"cropped to {preprocess.crop:g}"}
    return words.get(preprocess.resize, f"fitted as a {preprocess.resize}")


def _place(preprocess: Preprocess) -> str:
    return "in the centre" if preprocess.align == "center" else "at the top left"
