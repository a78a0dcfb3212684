"""What a model said of each sample, in a file that others can score.

* Objects: COCO's results as json, https://cocodataset.org/#format-results, for pycocotools; with the labels' numbers
  of pictures and categories where there are labels, else pictures counted from 1 and the model's own class numbers.
  Each has its `file`; rotated boxes have their corners as `poly`.
* Classes: csv of file,label,predicted,score,top5, for scikit-learn.
* Text: csv of file,text,read,confidence, for jiwer.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.data import Boxes, Feeds, ImageInfo, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import OBJECTS, Classes, Detections, Reader, Text, class_names
from onnxopt.evaluation.metrics.categories import category_ids
from onnxopt.evaluation.metrics.results import all_fields, coco_results
from onnxopt.model_io import write_text

ENDINGS = {".json": "json", ".csv": "csv"}


def check_ending(file: Path) -> None:
    """Refuse a file of another format.

    Raises:
        UsageError: It ends neither in .json nor in .csv.
    """
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"predictions are written as .json (any model) or .csv (classes, text), not as {file.name}")


@dataclass
class Predictions:
    """Gathers what a model said, sample by sample.

    Attributes:
        reader: Of its outputs.
        rows: What was said: one row per object, or per sample.
    """

    reader: Reader
    rows: list[dict[str, Any]] = field(default_factory=list)
    _count: int = 0
    _objects: bool = False

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one sample.

        Raises:
            UsageError: No decoder is known for the model.
        """
        decoder = self.reader.decoder(outputs, sample.feeds)
        if decoder is None:
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise UsageError(f"predictions cannot be read from {shapes}; say --decode")
        self._count += 1
        self._objects = decoder.task in OBJECTS
        said = decoder.decode(outputs)
        if isinstance(said, Detections):
            self.rows += self._found(said, sample, decoder.class_count)
        elif isinstance(said, Classes):
            self.rows.append(_classified(said, sample) | self._file(sample))
        else:
            self.rows.append(_read(said, sample) | self._file(sample))

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            UsageError: The ending is unknown or does not suit the model, or the file cannot be written.
        """
        file = Path(path)
        check_ending(file)
        if ENDINGS[file.suffix.lower()] == "json":
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows)
            write_text(file, f"[\n{lines}\n]\n")
        elif self._objects:
            raise UsageError(f"objects do not fit a table; write {file.name} as .json")
        else:
            write_text(file, self._table())

    def _table(self) -> str:
        text = io.StringIO()
        columns = ["file", *(name for name in (self.rows[0] if self.rows else {}) if name != "file")]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def _file(self, sample: Sample) -> dict[str, Any]:
        return {"file": sample.image.path.name if sample.image is not None else str(self._count - 1)}

    def _found(self, found: Detections, sample: Sample, class_count: int | None) -> list[dict[str, Any]]:
        image = sample.image or _whole(sample.feeds)
        if isinstance(sample.label, Boxes):
            number = sample.label.image_id
            ids = category_ids(sample.label.categories, class_count, class_names(self.reader.metadata))
        else:
            number = self._count
            ids = {one: one for one in np.unique(found.classes).tolist()}
        known = found.pick(np.flatnonzero([one in ids for one in found.classes.tolist()]))
        return [row | self._file(sample) for row in coco_results(all_fields(known, image), known, number, ids)]


def _whole(feeds: Feeds) -> ImageInfo:
    """A picture of which nothing is known: the input itself."""
    height, width = next((array.shape[-2:] for array in feeds.values() if array.ndim == 4), (1, 1))
    return ImageInfo(Path(), int(height), int(width), (1.0, 1.0), (0.0, 0.0))


def _classified(said: Classes, sample: Sample) -> dict[str, Any]:
    order = np.argsort(-said.scores, kind="stable")
    return {
        "label": sample.label,
        "predicted": int(order[0]),
        "score": float(said.scores[order[0]]),
        "top5": " ".join(str(number) for number in order[:5].tolist()),
    }


def _read(said: Text, sample: Sample) -> dict[str, Any]:
    return {"text": sample.label, "read": said.text, "confidence": said.confidence}
