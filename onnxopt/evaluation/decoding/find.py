"""Which decoder fits a model, told from its metadata and outputs, or named by the user."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxopt import plugins
from onnxopt.data import Array, Feeds
from onnxopt.errors import OptimizationError, UsageError, nearest
from onnxopt.evaluation.decoding.classes import class_scores
from onnxopt.evaluation.decoding.decoder import OBJECTS, SCORING, Decoder, Family, Head, Task, Thresholds
from onnxopt.evaluation.decoding.readings import Detections, Text

DECODERS = "onnxopt.decoders"
_TEXT = re.compile(r"(?P<name>[^{}\s]+)\s*(\{(?P<options>[^{}]*)\})?")


@dataclass
class Reader:
    """Reads one model's outputs; the decoder is looked for when the first outputs come.

    Attributes:
        metadata: The model's `metadata_props`.
        decode: Decoder that the user named, as `NAME` or `NAME{option=value}`; None: found from the outputs.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    decode: str | None = None
    _families: dict[str, Family] | None = None
    _found: dict[tuple[tuple[int, ...], ...], Decoder | None] = field(default_factory=dict)

    def decoder(self, outputs: Feeds, feeds: Feeds) -> Decoder | None:
        """Return the decoder for a model that gives such outputs; None if none is known.

        Raises:
            UsageError: The named decoder is not known, or does not fit.
            OptimizationError: An installed decoder cannot be imported.
        """
        # Shapes may differ from sample to sample; what a head is does not change while they stay.
        shapes = tuple(array.shape for named in (outputs, feeds) for array in named.values())
        if shapes not in self._found:
            if self._families is None:
                self._families = _asked(self.decode) if self.decode is not None else families()
            self._found[shapes] = self._find(outputs, feeds, self._families)
        return self._found[shapes]

    def task(self, outputs: Feeds, feeds: Feeds) -> Task | None:
        """Return what the model does; None if no decoder is known."""
        decoder = self.decoder(outputs, feeds)
        return decoder.task if decoder is not None else None

    def objects(self, outputs: Feeds, feeds: Feeds, thresholds: Thresholds = SCORING) -> Detections | None:
        """Return the objects found, or None if the model finds none."""
        decoder = self.decoder(outputs, feeds)
        if decoder is None or decoder.task not in OBJECTS:
            return None
        found = decoder.decode(outputs, thresholds)
        assert isinstance(found, Detections)
        return found

    def classes(self, outputs: Feeds, feeds: Feeds) -> Array | None:
        """Return the class scores float[N, C], or None if this is no classifier."""
        decoder = self.decoder(outputs, feeds)
        return class_scores(outputs) if decoder is not None and decoder.task == "classify" else None

    def text(self, outputs: Feeds, feeds: Feeds) -> Text | None:
        """Return the text read, or None if the model reads none."""
        decoder = self.decoder(outputs, feeds)
        read = decoder.decode(outputs) if decoder is not None and decoder.task == "text" else None
        return read if isinstance(read, Text) else None

    def parts(self, outputs: Feeds, feeds: Feeds) -> dict[str, Array]:
        """Return the float outputs, those taken apart whose columns mean different things."""
        floats = {name: values for name, values in outputs.items() if values.dtype.kind == "f"}
        decoder = self.decoder(floats, feeds)
        return floats if decoder is None else decoder.parts(floats)

    def _find(self, outputs: Feeds, feeds: Feeds, known: Mapping[str, Family]) -> Decoder | None:
        name, options = parse_decoder(self.decode) if self.decode is not None else ("", {})
        head = Head(outputs, feeds, self.metadata, named=bool(name))
        for family in known.values():
            found = family.find(head, options)
            if found is not None:
                return found
        if name:
            raise UsageError(
                f"decoder '{name}' does not fit {head.shapes()}; it reads {known[name].summary}{_other(head)}"
            )
        return None


def _other(head: Head) -> str:
    """Which decoder fits where the one that the user named does not."""
    found = Reader(head.metadata).decoder(head.outputs, head.feeds)
    return f" (--decode {found.name} fits)" if found is not None else ""


def families() -> dict[str, Family]:
    """Return all installed decoders by name, in the order in which they are asked.

    Raises:
        OptimizationError: One cannot be imported, or is no `Family`.
    """
    found = {name: _checked(name, value) for name, value in plugins.load_all(DECODERS, "decoder").items()}
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


def _checked(name: str, family: Any) -> Family:
    if not isinstance(family, Family):
        raise OptimizationError(f"entry point '{name}' in group {DECODERS} is no Family")
    return family


def _asked(text: str) -> dict[str, Family]:
    name, options = parse_decoder(text)
    family = _checked(name, plugins.load(DECODERS, name, "decoder"))
    for option in options:
        if option not in family.options:
            raise UsageError(f"decoder '{name}' has no option '{option}'{nearest(option, family.options)}")
    return {name: family}


def parse_decoder(text: str) -> tuple[str, dict[str, str]]:
    """Read `NAME` or `NAME{option=value, …}`.

    Raises:
        UsageError: It is neither.
    """
    match = _TEXT.fullmatch(text.strip())
    parts = [part.strip() for part in ((match["options"] if match else "") or "").split(",") if part.strip()]
    pairs = [part.partition("=") for part in parts]
    if match is None or not all(equals and key.strip() and value.strip() for key, equals, value in pairs):
        raise UsageError(f"decoder '{text}' is not of the form NAME or NAME{{option=value}}")
    return match["name"], {key.strip(): value.strip() for key, _, value in pairs}
