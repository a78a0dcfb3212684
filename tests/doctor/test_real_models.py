"""The faults on real models in the folder `shared` beside the repository, where it is there."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onnxopt import load
from onnxopt.data import open_dataset
from onnxopt.doctor import SHORT, THOROUGH, examine
from onnxopt.evaluation.inputs import resolve_inputs

SHARED = Path(__file__).parents[3] / "shared"
YOLOX, SYNTH, MOBILENET = (
    SHARED / "models" / f"{name}.onnx" for name in ("yolox_nano", "yolo11n_synth320", "mobilenet_v2_imagenet_bn")
)
COCO, SHAPES, IMAGENET = (
    SHARED / "data/coco/data.yaml",
    SHARED / "data/synth/data.yaml",
    SHARED / "data/imagenet/calib.csv",
)
NORMALIZED = "mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225]"
MACS = 500_000_000
LESS = replace(THOROUGH, samples=48)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not YOLOX.is_file(), reason="no folder 'shared'")]


@cache
def model(file):
    graph = load(file)
    return graph, resolve_inputs(graph)[0]


def faults(file, data, preprocess, depth=LESS, role="calibration"):
    graph, inputs = model(file)
    opened = open_dataset(data, inputs, role=role, preprocess=preprocess, samples=128, metadata=graph.metadata)
    return [(f.fault, f.preprocess) for f in examine(graph, inputs, opened, macs=MACS, depth=depth).findings]


def arrays(folder, file, data, preprocess, change):
    graph, inputs = model(file)
    opened = open_dataset(data, inputs, role="calibration", preprocess=preprocess, metadata=graph.metadata)
    name = inputs[0].name
    np.savez(folder / "d.npz", **{name: np.concatenate([change(sample.feeds[name].copy()) for sample in opened])})
    return folder / "d.npz"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("yolox,scale=1/255", "value-range"),
        (f"yolox,scale=1/255,{NORMALIZED}", "value-range"),
        ("yolox,color=rgb", "channel-order"),
        ("yolox,resize=stretch", "letterbox"),
        ("yolox,align=center", "letterbox-position"),
        ("yolox,pad=0", "letterbox-padding"),
        ("yolox,resize=crop", "crop"),
    ],
)
def test_yolox_pictures(given, fault):
    assert faults(YOLOX, COCO, given) == [(fault, "yolox")]


def dead(array):
    array[:, 2] = 0
    return array


@pytest.mark.parametrize(
    ("given", "change", "fault"),
    [
        ("yolox", lambda x: x[:, ::-1], "channel-order"),
        ("yolox", lambda x: x / np.float32(255), "value-range"),
        ("yolox,align=center", lambda x: x, "letterbox-position"),
        ("yolox,pad=0", lambda x: x, "letterbox-padding"),
        ("yolox", dead, "dead-channel"),
    ],
)
def test_yolox_arrays(tmp_path, given, change, fault):
    assert faults(YOLOX, arrays(tmp_path, YOLOX, COCO, given, change), None) == [(fault, None)]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("yolo,scale=1", "value-range"),
        ("yolo,scale=1/65025", "value-range"),
        (f"yolo,{NORMALIZED}", "normalization"),
        ("yolo,resize=crop,crop=0.5", "crop"),
    ],
)
def test_yolo_pictures(given, fault):
    assert faults(SYNTH, SHAPES, given) == [(fault, "yolo")]


@pytest.mark.parametrize("depth", [LESS, SHORT], ids=["thorough", "short"])
@pytest.mark.parametrize("role", ["calibration", "evaluation"])
@pytest.mark.parametrize(
    ("file", "data", "right"), [(YOLOX, COCO, "yolox"), (SYNTH, SHAPES, "yolo"), (MOBILENET, IMAGENET, "imagenet")]
)
def test_right_ones_are_left_alone(file, data, right, role, depth):
    if role == "evaluation" and data.suffix == ".csv":
        data = data.with_name("val.csv")
    assert faults(file, data, right, depth, role) == []


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("imagenet,scale=1,mean=[0],std=[1]", "value-range"),
        ("imagenet,mean=[0],std=[1]", "normalization"),
        ("imagenet,color=bgr", "channel-order"),
        ("imagenet,crop=0.4", "crop"),
    ],
)
def test_mobilenet_pictures(given, fault):
    [(found, _)] = faults(MOBILENET, IMAGENET, given)
    assert found == fault
