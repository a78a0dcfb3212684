"""What two models see in the same pictures, side by side, those on which they differ most first."""

import heapq
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from onnxopt.data import Array, Boxes, Feeds, Sample
from onnxopt.data.images import decode
from onnxopt.evaluation.agreement import MATCH_IOU
from onnxopt.evaluation.decoding import SHOWING, Detections, Reader, class_names, overlap
from onnxopt.report.document import Mark, Picture
from onnxopt.runtime.adapter import Session

MOST = 12
LONGEST = 448  # pixels of the longer side as embedded
QUALITY = 82
TOP = 5  # classes of a classifier that are shown
DRAWN = 60  # objects in a picture; the most confident, for more are not to be told apart


@dataclass(frozen=True)
class _Frame:
    """What was seen in one picture.

    Attributes:
        sample: The picture.
        before: What the reference saw, in pixels of the model's input.
        after: What the other saw.
        difference: How far they are apart; 0: they agree.
        caption: The same in words.
    """

    sample: Sample
    before: tuple[Mark, ...]
    after: tuple[Mark, ...]
    difference: float
    caption: str


def compare_frames(
    reference: Session, other: Session, samples: Iterable[Sample], reader: Reader, *, most: int = MOST
) -> tuple[Picture, ...]:
    """Return the pictures on which two models differ most.

    Args:
        reference: The model as it came.
        other: The one to judge.
        samples: What to show; each is run once.
        reader: Knows how the models' outputs are read.
        most: How many to return.

    Returns:
        Worst first; nothing for models whose outputs nobody can read, and for inputs that are no pictures.

    Raises:
        OptimizationError: A model does not run.
    """
    worst: list[tuple[float, int, _Frame]] = []
    for number, sample in enumerate(samples):
        outputs = [_arrays(session.run(sample.feeds)) for session in (reference, other)]
        frame = _look(sample, outputs[0], outputs[1], reader)
        if frame is None or (sample.image is None and _picture_of(sample.feeds) is None):
            continue
        heapq.heappush(worst, (frame.difference, -number, frame))  # of equals the first stay
        if len(worst) > most:
            heapq.heappop(worst)
    return tuple(_embed(frame, f"sample {-number}") for _, number, frame in sorted(worst, key=lambda w: (-w[0], -w[1])))


def _arrays(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: values for name, values in outputs.items() if isinstance(values, np.ndarray)}


def _look(sample: Sample, before: Feeds, after: Feeds, reader: Reader) -> _Frame | None:
    objects = [reader.objects(outputs, sample.feeds, SHOWING) for outputs in (before, after)]
    if objects[0] is not None and objects[1] is not None:
        return _objects(sample, objects[0], objects[1], _names(sample, reader))
    scores = [reader.classes(outputs, sample.feeds) for outputs in (before, after)]
    if scores[0] is not None and scores[1] is not None:
        return _classes(sample, scores[0][0], scores[1][0], _names(sample, reader))
    texts = [reader.text(outputs, sample.feeds) for outputs in (before, after)]
    if texts[0] is None or texts[1] is None:
        return None
    same = texts[0].text == texts[1].text
    first, second = (
        (Mark(read.text or "(nothing)", read.confidence, None, same),) for read in texts if read is not None
    )
    return _Frame(sample, first, second, float(not same), "the same" if same else "read differently")


def _names(sample: Sample, reader: Reader) -> dict[int, str]:
    names = class_names(reader.metadata)
    if names is None and isinstance(sample.label, Boxes):
        names = dict(enumerate(sample.label.categories.names))
    return names or {}


def _objects(sample: Sample, before: Detections, after: Detections, names: Mapping[int, str]) -> _Frame:
    partners = _match(before, after)
    found = set(partners.values())
    first, second = (
        tuple(
            Mark(
                names.get(int(kind), f"class {int(kind)}"),
                float(score),
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                index in shared,
            )
            for index, (kind, score, box) in enumerate(
                zip(seen.classes[:DRAWN], seen.scores[:DRAWN], seen.xyxy[:DRAWN], strict=True)
            )
        )
        for seen, shared in ((before, set(partners)), (after, found))
    )
    lost, new = len(before) - len(partners), len(after) - len(partners)
    total = len(before) + len(after)
    parts = [f"{count} {word}" for count, word in ((len(partners), "the same"), (lost, "lost"), (new, "new")) if count]
    return _Frame(sample, first, second, (lost + new) / total if total else 0.0, ", ".join(parts) or "nothing found")


def _match(before: Detections, after: Detections) -> dict[int, int]:
    """Places of the objects that both saw, each of `after` serving once, as `agreement.count_matches` counts them."""
    fits = overlap(before.xyxy, after.xyxy) * (before.classes[:, None] == after.classes[None, :])
    partners = {}
    for index, row in enumerate(fits):
        if row.size and row.max() >= MATCH_IOU:
            partners[index] = int(row.argmax())
            fits[:, row.argmax()] = 0.0
    return partners


def _classes(sample: Sample, before: Array, after: Array, names: Mapping[int, str]) -> _Frame:
    shares = [_probabilities(scores) for scores in (before, after)]
    top = [np.argsort(-p, kind="stable")[:TOP] for p in shares]
    first, second = (
        tuple(Mark(names.get(int(c), f"class {int(c)}"), float(p[c]), None, c in other) for c in own)
        for p, own, other in ((shares[0], top[0], top[1]), (shares[1], top[1], top[0]))
    )
    same = top[0][0] == top[1][0]
    distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
    return _Frame(
        sample, first, second, distance + (not same), "the same first class" if same else "another first class"
    )


def _probabilities(scores: Array) -> Array:
    """Scores as shares of one; logits go through a softmax."""
    values = np.asarray(scores, np.float64)
    if values.min() >= 0 and abs(values.sum() - 1) < 1e-2:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _embed(frame: _Frame, name: str) -> Picture:
    """The frame as a report shows it: a small JPEG, and marks in its pixels."""
    info = frame.sample.image
    if info is not None:
        picture, name = decode(info.path), info.path.name
    else:
        found = _picture_of(frame.sample.feeds)
        assert found is not None
        picture = found
    full = picture.size
    picture.thumbnail((LONGEST, LONGEST))
    scale = np.tile(np.array(picture.size) / full, 2)
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=QUALITY)

    def moved(mark: Mark) -> Mark:
        if mark.corners is None:
            return mark
        corners = np.array([mark.corners])
        box = (info.to_original(corners) if info is not None else corners)[0] * scale
        return replace(mark, corners=(float(box[0]), float(box[1]), float(box[2]), float(box[3])))

    before, after = (tuple(map(moved, marks)) for marks in (frame.before, frame.after))
    return Picture(name, stream.getvalue(), *picture.size, before, after, frame.caption)


def _picture_of(feeds: Feeds) -> Image.Image | None:
    """The first input that is a picture, its values spread over 0..255; None where there is none."""
    for array in feeds.values():
        if array.ndim != 4 or array.shape[0] != 1:
            continue
        values = array[0] if array.shape[3] in {1, 3} else np.moveaxis(array[0], 0, 2)
        if values.shape[2] not in {1, 3}:
            continue
        low, high = float(values.min()), float(values.max())
        spread = ((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
        return Image.fromarray(np.repeat(spread, 3, axis=2) if spread.shape[2] == 1 else spread)
    return None
