"""Two models' sights side by side."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxopt import load
from onnxopt.data import InputSpec, open_dataset
from onnxopt.data.sample import Sample
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.frames import DRAWN, compare_frames
from onnxopt.runtime.ort import OrtSession

TESTDATA = Path(__file__).parents[2] / "testdata"
NAMES = {"names": "{0: 'cat', 1: 'dog', 2: 'cow'}"}


class Says:
    """Gives the outputs it was made with, one after the other."""

    def __init__(self, *outputs):
        self.outputs = list(outputs)

    def run(self, feeds, outputs=None):
        return self.outputs.pop(0)


def pictures(count, size=16):
    generator = np.random.default_rng(0)
    return [Sample({"x": generator.random((1, 3, size, size), np.float32)}) for _ in range(count)]


def scores(*values):
    return {"y": np.array([values], np.float32)}


def rows(*found):
    """End-to-end detections: corners, score, class."""
    table = np.zeros((1, 10, 6), np.float32)
    for row, values in enumerate(found):
        table[0, row] = values
    return {"y": table}


def test_classes_that_change_come_first():
    before = Says(scores(0.8, 0.1, 0.1), scores(0.8, 0.1, 0.1), scores(0.5, 0.3, 0.2))
    after = Says(scores(0.8, 0.1, 0.1), scores(0.2, 0.7, 0.1), scores(0.6, 0.2, 0.2))
    shown = compare_frames(before, after, pictures(3), Reader(NAMES))
    assert [(p.name, p.caption) for p in shown] == [
        ("sample 1", "another first class"),
        ("sample 2", "the same first class"),
        ("sample 0", "the same first class"),
    ]
    assert [m.label for m in shown[0].after] == ["dog", "cat", "cow"]
    assert shown[0].after[0].score == pytest.approx(0.7)


def test_logits_become_probabilities():
    (shown,) = compare_frames(Says(scores(2.0, 0.0, -1.0)), Says(scores(1.0, 0.0, 0.0)), pictures(1), Reader(NAMES))
    assert sum(m.score for m in shown.before) == pytest.approx(1)


def test_only_so_many_are_kept():
    outputs = [scores(0.8, 0.1, 0.1)] * 5
    assert len(compare_frames(Says(*outputs), Says(*outputs), pictures(5), Reader(NAMES), most=2)) == 2


def test_objects_that_are_lost_or_new_are_marked():
    same, lost, new = (1, 1, 6, 6, 0.9, 0), (8, 8, 15, 15, 0.8, 1), (1, 8, 5, 15, 0.7, 2)
    (shown,) = compare_frames(Says(rows(same, lost)), Says(rows(same, new)), pictures(1), Reader(NAMES))
    assert [(m.label, m.shared) for m in shown.before] == [("cat", True), ("dog", False)]
    assert [(m.label, m.shared) for m in shown.after] == [("cat", True), ("cow", False)]
    assert shown.caption == "1 the same, 1 lost, 1 new"
    assert shown.before[1].corners == (8, 8, 15, 15)
    with Image.open(io.BytesIO(shown.image)) as embedded:
        assert embedded.size == (shown.width, shown.height) == (16, 16)


def test_an_object_of_another_class_is_another_object():
    (shown,) = compare_frames(
        Says(rows((1, 1, 6, 6, 0.9, 0))), Says(rows((1, 1, 6, 6, 0.9, 1))), pictures(1), Reader(NAMES)
    )
    assert shown.caption == "1 lost, 1 new"


def test_of_very_many_objects_the_most_confident_are_drawn():
    table = np.zeros((1, 200, 6), np.float32)
    for row in range(200):
        table[0, row] = (row, row, row + 0.5, row + 0.5, 0.9 - row / 1000, 0)
    (shown,) = compare_frames(Says({"y": table}), Says({"y": table}), pictures(1, 256), Reader(NAMES))
    assert len(shown.before) == DRAWN
    assert shown.before[-1].score > 0.8
    assert shown.caption == "200 the same"


def test_outputs_that_nobody_reads_show_nothing():
    odd = {"y": np.zeros((3, 4, 5, 6), np.float32)}
    assert compare_frames(Says(odd), Says(odd), pictures(1), Reader({})) == ()


def test_inputs_that_are_no_pictures_show_nothing():
    sample = Sample({"x": np.zeros((1, 7), np.float32)})
    assert compare_frames(Says(scores(0.9, 0.1)), Says(scores(0.9, 0.1)), [sample], Reader({})) == ()


def test_marks_lie_in_the_picture_as_it_is_on_disk(tmp_path):
    """The detector's input is square; a picture twice as wide is padded above and below."""
    model = load(TESTDATA / "shapes_detector.onnx")
    source = min((TESTDATA / "shapes" / "images" / "val").iterdir())
    with Image.open(source) as picture:
        wide = Image.new("RGB", (picture.width * 2, picture.height))
        wide.paste(picture.convert("RGB"), (picture.width, 0))
    wide.save(tmp_path / "wide.png")
    inputs = [InputSpec("images", (1, 3, 96, 96), np.dtype(np.float32))]
    data = open_dataset(tmp_path, inputs, role="evaluation", metadata=model.metadata)
    session = OrtSession(model.to_proto())
    (shown,) = compare_frames(session, session, data, Reader(model.metadata))
    assert (shown.name, shown.width, shown.height) == ("wide.png", *wide.size)
    boxes = np.array([m.corners for m in shown.before])
    assert len(boxes)
    assert boxes[:, [0, 2]].max() <= wide.width
    assert boxes[:, [1, 3]].max() <= wide.height
    assert np.median(boxes[:, 2]) > wide.width / 2  # the left half is empty
