"""What a model's metadata says about its preprocessing.

1. Ultralytics exports carry `stride`, `names`, `imgsz` and `task`. Detectors of all kinds are letterboxed;
   RT-DETR, which they also export, was trained on stretched pictures; classifiers see an unnormalized crop.
2. PP-OCR's recognizers carry their `character`s.
3. Anything else is not guessed.
"""

from collections.abc import Mapping, Sequence

from onnxopt.data.preprocess import PRESETS, Preprocess
from onnxopt.data.sample import InputSpec

ULTRALYTICS_KEYS = frozenset({"stride", "names", "imgsz", "task"})


def infer_preprocess(metadata: Mapping[str, str], inputs: Sequence[InputSpec]) -> tuple[Preprocess, str] | None:
    """Return the preprocessing that the metadata implies and the reason in words, or None.

    Args:
        metadata: The model's `metadata_props`.
        inputs: The model's inputs; only a model with one four-dimensional float input is judged.
    """
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype.kind != "f":
        return None
    if "character" in metadata:
        return PRESETS["ppocr"], "the model's metadata lists characters, as that of PP-OCR's recognizers does"
    if not metadata.keys() >= ULTRALYTICS_KEYS:
        return None
    task = metadata["task"]
    reason = f"the model's metadata is that of an Ultralytics export (task '{task}')"
    if task == "classify":
        return Preprocess(resize="crop", crop=1.0), reason
    if "rt-detr" in metadata.get("description", "").lower():
        return Preprocess(resize="stretch", filter="linear"), f"{reason} of RT-DETR"
    return PRESETS["yolo"], reason
