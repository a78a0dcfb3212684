"""Score a classifier or a detector on the committed validation pictures, with ONNX Runtime on the CPU.

Independent of onnxopt on purpose: what this prints for a model before and after an optimization can be trusted
whatever onnxopt says. Needs onnxruntime, pillow and, for detectors, pycocotools.

Usage: ``python testdata/score.py MODEL.onnx...``
"""

import argparse
import contextlib
import csv
import io
from pathlib import Path

import make_shapes
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

HERE = Path(__file__).parent
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
LEAST_SCORE = 0.001
NMS_IOU = 0.7


def session(path: Path) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def classified(path: Path, zoom: float = 1.0) -> Floats:
    """A patch as the classifier wants it: float32 [1, 3, 64, 64], RGB in (x / 255 - mean) / std.

    Args:
        path: the picture.
        zoom: enlarge so much (bilinear) and keep the centre; 8/7 is the usual "resize 256, crop 224".
    """
    picture = Image.open(path).convert("RGB")
    size, large = picture.width, round(picture.width * zoom)
    corner = (large - size) // 2
    picture = picture.resize((large, large), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture.crop((corner, corner, corner + size, corner + size)), np.float32)
    return np.ascontiguousarray(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)[None])


def top1(model: ort.InferenceSession, zoom: float = 1.0, count: int | None = None) -> float:
    """Share of the first `count` validation patches (None: all) to whose class the model gives the highest logit."""
    with (HERE / "patches/val.csv").open() as file:
        rows = list(csv.DictReader(file))[:count]
    right = 0
    for row in rows:
        (logits,) = model.run(None, {"input": classified(HERE / "patches/val" / row["file"], zoom)})
        right += int(logits.argmax() == int(row["label"]))
    return right / len(rows)


def overlap(box: Floats, others: Floats) -> Floats:
    """Intersection over union of one box [4] with others [n, 4], all as x, y, w, h (x, y: left upper corner)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    common = np.maximum(high - low, 0).prod(1)
    union = box[2:].prod() + others[:, 2:].prod(1) - common
    return np.asarray(common / union, np.float32)


def detections(output: Floats, least_score: float = LEAST_SCORE) -> list[tuple[int, float, Floats]]:
    """Non-maximum suppression within each class.

    Args:
        output: the detector's output, [1, 4 + classes, cells].
        least_score: leave out what scores less.

    Returns:
        Class, score and box (x, y, w, h in pixels) of each detection.
    """
    boxes, scores = output[0, :4].T, output[0, 4:].T
    boxes = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), 1)
    found = []
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        order = order[scores[order, label] >= least_score]
        while len(order):
            best, order = order[0], order[1:]
            found.append((label, float(scores[best, label]), boxes[best]))
            order = order[overlap(boxes[best], boxes[order]) <= NMS_IOU]
    return found


def scenes(count: int | None = None) -> list[tuple[Floats, Floats]]:
    """The first `count` validation scenes (None: all).

    Returns:
        For each the detector's input, float32 [1, 3, 96, 96] in 0..1, and its objects, float32 [n, 5]: class and
        box (x, y, w, h in pixels).
    """
    result = []
    for path in sorted((HERE / "shapes/images/val").iterdir())[:count]:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / np.float32(255)
        size = pixels.shape[0]
        objects = np.loadtxt(HERE / f"shapes/labels/val/{path.stem}.txt", np.float32, ndmin=2)
        objects[:, 1:] *= size
        objects[:, 1:3] -= objects[:, 3:] / 2
        result.append((np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), objects))
    return result


def mean_average_precision(model: ort.InferenceSession) -> tuple[float, float]:
    """COCO's mAP50-95 and mAP50 on the validation scenes, by pycocotools."""
    from pycocotools.coco import COCO  # noqa: PLC0415  (only detectors need it)
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    truth: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    images: list[dict[str, int]] = []
    for index, (picture, objects) in enumerate(scenes(), start=1):
        images.append({"id": index, "width": picture.shape[3], "height": picture.shape[2]})
        for label, *box in objects.astype(float):
            one = {"id": len(truth) + 1, "image_id": index, "category_id": int(label), "bbox": box}
            truth.append(one | {"area": box[2] * box[3], "iscrowd": 0})
        (output,) = model.run(None, {"images": picture})
        for kind, score, place in detections(output):
            found.append({"image_id": index, "category_id": kind, "score": score, "bbox": place.tolist()})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": label} for label in range(len(make_shapes.SCENE_CLASSES))]
        coco.dataset = {"info": {}, "images": images, "annotations": truth, "categories": categories}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def main() -> None:
    """Print one line of scores for each model; the name of its input tells what it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    for path in parser.parse_args().models:
        model = session(path)
        if model.get_inputs()[0].name == "images":
            strict, loose = mean_average_precision(model)
            print(f"{path.name}: mAP50-95 {strict:.3f}, mAP50 {loose:.3f}")
        else:
            plain, cropped = top1(model), top1(model, zoom=8 / 7)
            print(f"{path.name}: top-1 {100 * plain:.1f} %, with a centre crop of 7/8 {100 * cropped:.1f} %")


if __name__ == "__main__":
    main()
