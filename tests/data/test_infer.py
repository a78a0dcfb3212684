"""What metadata says about preprocessing."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, infer_preprocess

METADATA = {"stride": "32", "names": "{0: 'a'}", "imgsz": "[8, 8]", "task": "detect"}
IMAGE = InputSpec("images", (1, 3, 8, 8), np.dtype(np.float32))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "yolo"),
        ({"task": "pose"}, "yolo"),
        ({"task": "classify"}, "resize=crop,crop=1"),
        ({"description": "Ultralytics RT-DETR-l model"}, "resize=stretch,filter=linear"),
    ],
)
def test_ultralytics(changes, expected):
    found = infer_preprocess({**METADATA, **changes}, [IMAGE])
    assert found is not None
    assert str(found[0]) == expected
    assert "Ultralytics" in found[1]


@pytest.mark.parametrize("missing", METADATA)
def test_others_are_not_guessed(missing):
    assert infer_preprocess({name: v for name, v in METADATA.items() if name != missing}, [IMAGE]) is None


def test_only_one_float_picture_is_judged():
    assert infer_preprocess(METADATA, [IMAGE, IMAGE]) is None
    assert infer_preprocess(METADATA, [InputSpec("x", (1, 3, 8, 8), np.dtype(np.uint8))]) is None
    assert infer_preprocess(METADATA, [InputSpec("x", (1, 8), np.dtype(np.float32))]) is None
