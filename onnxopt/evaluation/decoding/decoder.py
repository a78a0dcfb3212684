"""What reads a model's outputs: a `Decoder`, made by a `Family` that knows by what to tell its kind of head.

Families are entry points of the group `onnxopt.decoders`; `find` in this package asks them in the order of their rank.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

from onnxopt.data import Array, Feeds
from onnxopt.evaluation.decoding.readings import Reading

Task: TypeAlias = Literal["classify", "detect", "segment", "pose", "obb", "text"]
OBJECTS: frozenset[Task] = frozenset({"detect", "segment", "pose", "obb"})  # whose readings are `Detections`


@dataclass(frozen=True)
class Thresholds:
    """Which objects are reported.

    Attributes:
        confidence: Objects scored no higher are dropped.
        every_class: A place may be reported once per class, as is usual in scoring; otherwise for its best only.
        iou: Of two objects of a class that overlap more, the less confident is dropped.
        limit: At most so many objects of a picture.
    """

    confidence: float
    every_class: bool
    iou: float = 0.65
    limit: int = 300


SCORING = Thresholds(0.001, every_class=True)  # as mean average precision is usually measured
SHOWING = Thresholds(0.25, every_class=False)  # objects worth drawing


class Decoder(Protocol):
    """Reads the outputs of one sample; write a subclass, for what has a default here is then there.

    Attributes:
        name: What it is called with `--decode`.
        task: What the model does, and so what `decode` returns.
        class_count: Number of classes the head has room for; None where it does not tell.
    """

    name: str
    task: Task
    class_count: int | None

    def decode(self, outputs: Feeds, thresholds: Thresholds = SCORING) -> Reading:
        """Return `Detections`, `Classes` or `Text`, as the task is.

        Args:
            outputs: What the model gave for one sample, by name.
            thresholds: Which objects to report.
        """

    def parts(self, outputs: Feeds) -> dict[str, Array]:
        """Return the outputs with those taken apart whose columns mean different things, such as boxes and scores.

        An error is judged against the size of its own part. By default each output is one part.
        """
        return dict(outputs)


@dataclass(frozen=True)
class Head:
    """What a decoder is found by.

    Attributes:
        outputs: What the model gave for one sample.
        feeds: What it was fed.
        metadata: Its `metadata_props`.
        named: Whether the user asked for this decoder: then no more evidence is needed than that shapes allow it.
    """

    outputs: Feeds
    feeds: Feeds
    metadata: Mapping[str, str] = field(default_factory=dict)
    named: bool = False

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the first input that is a picture."""
        for array in self.feeds.values():
            if array.ndim == 4:
                first, second, third = array.shape[1:]
                return (first, second) if third in (1, 3, 4) and first not in (1, 3, 4) else (second, third)
        return None

    @cached_property
    def class_names(self) -> dict[int, str] | None:
        """The class names in an Ultralytics model's metadata."""
        return class_names(self.metadata)

    @property
    def task(self) -> str:
        """The task in an Ultralytics model's metadata, or nothing."""
        return self.metadata.get("task", "")

    @property
    def end_to_end(self) -> bool:
        """Whether the metadata says that overlapping objects are dropped already."""
        return self.metadata.get("end2end") == "True"

    @cached_property
    def keypoint_shape(self) -> tuple[int, int] | None:
        """Number of keypoints, and of values of each (2 or 3), as the metadata says."""
        shape = _literal(self.metadata.get("kpt_shape", ""))
        if isinstance(shape, list | tuple) and len(shape) == 2 and all(isinstance(n, int) for n in shape):
            return int(shape[0]), int(shape[1])
        return None

    def shapes(self) -> str:
        """The outputs for a message: `output0 [1, 84, 8400]`."""
        return ", ".join(f"{name} {list(array.shape)}" for name, array in self.outputs.items())


@dataclass(frozen=True)
class Family:
    """A kind of head; what an entry point of `onnxopt.decoders` names.

    Attributes:
        find: Returns the decoder for a head that is of this kind, else None; takes the head, and the options that the
            user gave with `--decode NAME{option=value}` as text.
        summary: What it reads, in one line.
        rank: Families of a smaller rank are asked first; those of onnxopt have 10 to 90.
        options: Names of the options that `find` knows.
    """

    find: Callable[[Head, Mapping[str, str]], Decoder | None]
    summary: str
    rank: int = 0
    options: frozenset[str] = frozenset()


def class_names(metadata: Mapping[str, str]) -> dict[int, str] | None:
    """Return the class names in an Ultralytics model's metadata, or None."""
    names = _literal(metadata.get("names", ""))
    if isinstance(names, list):
        names = dict(enumerate(names))
    return {int(k): str(v) for k, v in names.items()} if isinstance(names, dict) and names else None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deep
        return None
