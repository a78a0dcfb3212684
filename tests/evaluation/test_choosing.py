"""The metric that suits a model and its labels."""

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, InputSpec, open_dataset
from onnxopt.evaluation.choosing import choose_metric
from onnxopt.testing import parse_graph

CELLS = 8 * 8 + 4 * 4 + 2 * 2
SET = Categories((0,), ("a",))
INPUT = InputSpec("x", (1, 3, 64, 64), np.dtype(np.float32))


def model(*shape, metadata=None, batch=1):
    """A model that multiplies zeros of this shape with its input's mean."""
    sizes = ",".join(map(str, shape))
    ones = ", 1" * len(shape)
    graph = parse_graph(
        f"""(float[{batch},3,64,64] x) => (float[{batch},{sizes}] y)
<int64[{1 + len(shape)}] shape = {{-1{ones}}}, float[1,{sizes}] zeros> {{
  mean = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)
  rank = Reshape (mean, shape)
  y = Mul (rank, zeros)
}}"""
    )
    for name, value in (metadata or {}).items():
        graph.set_metadata(name, value)
    return graph


def samples(*labels):
    return open_dataset(
        [({"x": np.zeros((3, 64, 64), np.float32)}, label) for label in labels], [INPUT], role="evaluation"
    )


def objects(count=1, **more):
    return Boxes.from_corners(1, np.zeros(count), np.zeros((count, 4)), SET, **more)


OUTLINED = {"outlines": [[[0, 0, 1, 0, 1, 1]]]}
POINTED = {"keypoints": np.zeros((1, 2, 3))}
POSE = {"task": "pose", "names": "['a']", "kpt_shape": "[2, 3]"}
OBB = {"task": "obb", "names": "['a']"}


@pytest.mark.parametrize(
    ("shape", "metadata", "label", "wanted"),
    [
        ((10,), {}, 3, "top1"),
        ((10,), {}, None, None),
        ((10,), {}, "text", None),
        ((10,), {}, objects(), None),
        ((5, CELLS), {}, objects(), "coco-map"),
        ((5, CELLS), {}, 3, None),
        ((11, CELLS), POSE, objects(**POINTED), "keypoint-map"),
        ((11, CELLS), POSE, objects(), "coco-map"),
        ((6, CELLS), OBB, objects(**OUTLINED), "obb-map"),
        ((6, CELLS), OBB, objects(), "coco-map"),
        ((7, 5), {"character": "a\nb\nc\n"}, "abc", "cer"),
        ((7, 5), {}, "abc", None),
    ],
)
def test_by_labels_and_what_the_model_does(shape, metadata, label, wanted):
    assert choose_metric(model(*shape, metadata=metadata), samples(label)) == wanted


def test_a_named_decoder_helps():
    assert choose_metric(model(6, 50), samples(objects()), "yolo") == "coco-map"
    assert choose_metric(model(6, 50), samples(objects())) is None


def test_pictures_without_objects_do_not_decide():
    pose = model(11, CELLS, metadata=POSE)
    assert choose_metric(pose, samples(objects(0), objects(0), objects(**POINTED))) == "keypoint-map"
    assert choose_metric(pose, samples(objects(0))) == "coco-map"


def test_a_model_whose_batch_is_fixed():
    assert choose_metric(model(10, batch=4), samples(3)) == "top1"
