"""Scores of `onnxopt eval`, and the same predictions scored without onnxopt.

Claim: `eval` gives what pycocotools, scikit-learn and jiwer make of the predictions that it saved and of the labels as
they lie on disk, to 1e-6; and on a YOLO what Ultralytics' own `val` gives, to 0.3 points.

The labels are read here anew, with nothing of onnxopt. Of PP-OCR's recognizer (`--ocr`) the words of `ocr_errors.py`
are read. Ultralytics (AGPL) is no dependency: `--ultralytics` names a Python that has it, for example of
`python3 -m venv ../ultralytics && ../ultralytics/bin/pip install ultralytics onnxruntime`.
"""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import ocr_errors
import workbench
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import accuracy_score
from workbench import Subject, markdown, number

from onnxopt.evaluation.predictions import Predictions
from onnxopt.scoring import evaluate

MODELS = ("patches_classifier", "shapes_detector", "mobilenet_v2", "yolox_nano", "yolo11n_synth320")
HEADER = ("model", "samples", "metric", "eval", "scored without onnxopt", "by", "apart", "held")
SAME, NEAR = 1e-6, 0.003
VALIDATE = """
import sys
from ultralytics import YOLO
found = YOLO(sys.argv[1], task="detect").val(
    data=sys.argv[2], imgsz=int(sys.argv[3]), batch=1, device="cpu", plots=False, workers=0, project=sys.argv[4]
)
print("coco-map", found.box.map)
"""


@dataclass(frozen=True)
class Twice:
    """One score, found twice.

    Attributes:
        model: Name of the model.
        samples: How many were scored.
        metric: Name of the score.
        ours: What `eval` says.
        theirs: What the other says.
        by: Who that is.
        allowed: How far they may lie apart.
    """

    model: str
    samples: int
    metric: str
    ours: float
    theirs: float
    by: str
    allowed: float = SAME

    @property
    def held(self) -> bool:
        """Whether they are near enough."""
        return abs(self.ours - self.theirs) <= self.allowed


def score_pictures(subject: Subject, folder: Path) -> Iterator[Twice]:
    """Score a classifier or a detector of the workbench twice."""
    assert subject.evaluation is not None
    for metric in ("top1", "top5") if subject.metric == "top1" else ("coco-map",):
        file = folder / ("said.csv" if subject.metric == "top1" else "said.json")
        found = evaluate(
            subject.file, subject.evaluation, metric=metric, preprocess=subject.preprocess, predictions=True
        )
        _predictions(found.predictions).save(file)
        if subject.metric == "top1":
            theirs, by = classes_right(file, subject.evaluation, metric), "scikit-learn"
        else:
            theirs, by = box_precision(file, _coco_labels(subject.evaluation, folder)), "pycocotools"
        assert found.report.score is not None
        yield Twice(subject.name, found.report.data["samples"], metric, found.report.score, theirs, by)


def _predictions(found: Predictions | None) -> Predictions:
    assert found is not None
    return found


def classes_right(said: Path, labels: Path, metric: str) -> float:
    """Share of pictures whose class is the first, or among the five first."""
    with labels.open(newline="") as file:
        truth = {row["file"]: int(row["label"]) for row in csv.DictReader(file)}
    with said.open(newline="") as file:
        rows = list(csv.DictReader(file))
    real = [truth[row["file"]] for row in rows]
    if metric == "top1":
        return float(accuracy_score(real, [int(row["predicted"]) for row in rows]))
    among = [str(label) in row["top5"].split() for label, row in zip(real, rows, strict=True)]
    return float(accuracy_score([True] * len(among), among))


def box_precision(said: Path, labels: Path) -> float:
    """COCO's mean average precision of boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(labels))
        evaluation = COCOeval(truth, truth.loadRes(str(said)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _coco_labels(labels: Path, folder: Path) -> Path:
    """The labels as a COCO json; those of Ultralytics are translated, pictures being numbered as they are sorted."""
    if labels.suffix == ".json":
        return labels
    content = yaml.safe_load(labels.read_text())
    pictures = sorted((labels.parent / content["val"]).iterdir())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, 1):
        with Image.open(picture) as opened:
            width, height = opened.size
        images.append({"id": image_id, "file_name": picture.name, "width": width, "height": height})
        text = labels.parent / content["val"].replace("images", "labels") / f"{picture.stem}.txt"
        for line in text.read_text().splitlines() if text.is_file() else ():
            label, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    names = content["names"]
    listed = names.items() if isinstance(names, dict) else enumerate(names)
    categories = [{"id": int(key), "name": name} for key, name in listed]
    file = folder / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def score_texts(models: Path, folder: Path, count: int) -> Twice:
    """Score PP-OCR's recognizer on rendered words, kept as pictures and a csv."""
    generator = np.random.default_rng(1)
    words = ocr_errors.draw_words(0)[:count]
    with (folder / "words.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "text"))
        for place, word in enumerate(words):
            line = ocr_errors.render(word, generator, None)[0]
            pixels = ((line.transpose(1, 2, 0)[..., ::-1] * 0.5 + 0.5) * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{place:04d}.png")
            writer.writerow((f"{place:04d}.png", word))
    shape = (1, 3, ocr_errors.HEIGHT, ocr_errors.WIDTH)
    model = models / ocr_errors.MODEL
    found = evaluate(model, folder / "words.csv", input_shapes={ocr_errors.INPUT: shape}, predictions=True)
    _predictions(found.predictions).save(folder / "read.csv")
    with (folder / "read.csv").open(newline="", encoding="utf-8") as file:
        read = {row["file"]: row["read"] for row in csv.DictReader(file)}
    theirs = jiwer.cer(words, [read[f"{place:04d}.png"] for place in range(len(words))])
    assert found.report.score is not None
    return Twice(model.stem, len(words), str(found.report.metric), found.report.score, float(theirs), "jiwer")


def score_by_ultralytics(subject: Subject, python: Path, folder: Path) -> Twice:
    """Score a YOLO with Ultralytics' own validation, on a copy of the data, as it writes beside them."""
    assert subject.evaluation is not None
    data = folder / "data"
    shutil.copytree(subject.evaluation.parent, data)
    size = subject.inputs[0].shape[-1]
    command = [python, "-c", VALIDATE, subject.file, data / subject.evaluation.name, str(size), folder / "runs"]
    said = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    theirs = float(said.rsplit("coco-map", 1)[1].split()[0])
    ours = evaluate(subject.file, subject.evaluation).report
    assert ours.score is not None
    return Twice(subject.name, ours.data["samples"], "coco-map", ours.score, theirs, "Ultralytics", NEAR)


def table(found: list[Twice]) -> str:
    """The figures for people."""
    rows = [
        (
            each.model,
            str(each.samples),
            each.metric,
            number(each.ours, 6),
            number(each.theirs, 6),
            each.by,
            f"{abs(each.ours - each.theirs):.1e}",
            "yes" if each.held else "NO",
        )
        for each in found
    ]
    return markdown(HEADER, rows)


def main() -> None:
    """Score everything twice, and print."""
    parser = workbench.command_line(__doc__)
    parser.add_argument("--words", type=int, default=300, help="to read with PP-OCR; default %(default)s")
    parser.add_argument("--ultralytics", type=Path, metavar="PYTHON", help="a Python that has ultralytics")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}\n", flush=True)
    found: list[Twice] = []
    for subject in workbench.find_subjects(options, MODELS):
        with tempfile.TemporaryDirectory() as folder:
            found += score_pictures(subject, Path(folder))
        if options.ultralytics is not None and subject.graph.metadata.get("description", "").startswith("Ultralytics"):
            with tempfile.TemporaryDirectory() as folder:
                found.append(score_by_ultralytics(subject, options.ultralytics, Path(folder)))
    if options.ocr is not None:
        with tempfile.TemporaryDirectory() as folder:
            found.append(score_texts(options.ocr, Path(folder), options.words))
    print(table(found), flush=True)
    workbench.write_results(options.json, "evaluation", facts, [vars(each) | {"held": each.held} for each in found])


if __name__ == "__main__":
    main()
