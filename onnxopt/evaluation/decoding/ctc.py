"""Recognizers of lines of text that were trained with CTC.

Of each step the best character; repeats count once, and blanks are left out. Graves et al. 2006, "Connectionist
Temporal Classification". PP-OCR lists its characters in the metadata `character`, one a line, without the blank, which
comes first, and without the space, which comes last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from onnxopt.data import Feeds
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding.decoder import SCORING, Decoder, Family, Head, Task, Thresholds
from onnxopt.evaluation.decoding.readings import Text

METADATA = "character"


@dataclass(frozen=True)
class Ctc(Decoder):
    """Scores [1, steps, characters].

    Attributes:
        output: Name of the output.
        characters: What each place stands for.
        blank: Place of the blank.
    """

    output: str
    characters: tuple[str, ...]
    blank: int = 0
    name: str = "ctc"
    task: Task = "text"
    class_count: None = None

    def decode(self, outputs: Feeds, thresholds: Thresholds = SCORING) -> Text:  # noqa: ARG002 - all is read
        """Return the likeliest text, step by step."""
        scores = np.asarray(outputs[self.output][0], np.float64)
        best = scores.argmax(axis=1)
        read, sure = [], []
        for place, steps in groupby(range(len(best)), key=lambda step: int(best[step])):
            if place != self.blank:
                read.append(self.characters[place])
                sure.append(max(scores[step, place] for step in steps))
        return Text("".join(read), float(np.mean(sure)) if sure else 1.0)


def find_ctc(head: Head, options: Mapping[str, str]) -> Ctc | None:
    """Return the decoder of a recognizer whose characters are known.

    Raises:
        UsageError: The file of characters cannot be read, or the blank is neither first nor last.
    """
    listed = _read(Path(options["alphabet"])) if "alphabet" in options else _listed(head.metadata)
    blank = options.get("blank", "first")
    if blank not in {"first", "last"}:
        raise UsageError(f"blank={blank} should be first or last")
    if not listed:
        return None
    for output, array in head.outputs.items():
        if array.ndim != 3 or array.shape[0] != 1 or array.dtype.kind != "f":
            continue
        missing = array.shape[2] - len(listed)
        if missing in {1, 2}:
            characters = [*listed, *[" "] * (missing - 1)]
            place = 0 if blank == "first" else len(characters)
            characters.insert(place, "")
            return Ctc(output, tuple(characters), place)
    return None


def _listed(metadata: Mapping[str, str]) -> list[str]:
    return metadata.get(METADATA, "").split("\n")[: -1 if metadata.get(METADATA, "").endswith("\n") else None]


def _read(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the alphabet {file} cannot be read: {error}") from None
    if not text.strip("\n"):
        raise UsageError(f"the alphabet {file} is empty; it should list one character a line")
    return _listed({METADATA: text})


CTC = Family(find_ctc, "recognizers of text, [1, steps, characters]", 10, frozenset({"alphabet", "blank"}))
