"""Which decoder is found or named, and what it makes of outputs."""

import numpy as np
import pytest

from onnxopt.errors import OptimizationError, UsageError
from onnxopt.evaluation.decoding import DECODERS, Reader, class_names, families
from onnxopt.evaluation.decoding.find import parse_decoder

FEEDS = {"images": np.zeros((1, 3, 96, 96), np.float32)}
CELLS = 12 * 12 + 6 * 6 + 3 * 3


class TestParts:
    def test_a_detector_is_taken_apart(self):
        output = np.arange(12 * CELLS, dtype=np.float32).reshape(1, 12, CELLS)
        parts = Reader().parts({"o": output}, FEEDS)
        assert set(parts) == {"o (boxes)", "o (scores)"}
        np.testing.assert_array_equal(parts["o (boxes)"], np.swapaxes(output[:, :4], 1, 2))
        np.testing.assert_array_equal(parts["o (scores)"], np.swapaxes(output[:, 4:], 1, 2))

    def test_others_stay_whole_and_integers_are_left_out(self):
        outputs = {"logits": np.zeros((1, 10), np.float32), "top": np.zeros((1,), np.int64)}
        assert list(Reader().parts(outputs, FEEDS)) == ["logits"]


class TestNaming:
    def test_more_is_believed_of_a_decoder_that_is_named(self):
        outputs = {"out": np.zeros((1, 50, 9), np.float32)}
        assert Reader().decoder(outputs, FEEDS) is None
        for name in ("yolox", "yolov5"):
            decoder = Reader(decode=name).decoder(outputs, FEEDS)
            assert (decoder.name, decoder.class_count) == (name, 4)
        decoder = Reader(decode="yolo").decoder(outputs, FEEDS)
        assert (decoder.columns_last, decoder.class_count) == (True, 5)
        turned = Reader(decode="yolo").decoder({"out": np.zeros((1, 9, 50), np.float32)}, FEEDS)
        assert (turned.columns_last, turned.class_count) == (False, 5)

    def test_one_that_reads_the_other_way_round_is_refused_and_what_fits_is_named(self):
        outputs = {"out": np.zeros((1, 12, CELLS), np.float32)}
        for name in ("yolox", "yolov5"):
            with pytest.raises(UsageError, match=rf"decoder '{name}' does not fit out .*\(--decode yolo fits\)"):
                Reader(decode=name).decoder(outputs, FEEDS)

    def test_options(self):
        outputs = {"out": np.zeros((1, 4 + 1 + 10, CELLS), np.float32)}
        decoder = Reader(decode="yolo-pose{keypoints=5x2}").decoder(outputs, FEEDS)
        assert (decoder.task, decoder.class_count) == ("pose", 1)
        assert parse_decoder("a{b = 1, c=2}") == ("a", {"b": "1", "c": "2"})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("yollo", "unknown decoder 'yollo'; did you mean 'yolo'"),
            ("yolo-pose{keypoint=5x2}", "has no option 'keypoint'; did you mean 'keypoints'"),
            ("yolo-pose{keypoints=5x4}", "such as 17x3"),
            ("yolo{", "is not of the form NAME"),
            ("ctc{alphabet}", "is not of the form NAME"),
            ("classes", r"decoder 'classes' does not fit out \[1, 15, 189\]; it reads classifiers"),
            ("yolo-seg", "does not fit"),
        ],
    )
    def test_refusals(self, text, message):
        outputs = {"out": np.zeros((1, 15, CELLS), np.float32)}
        with pytest.raises(UsageError, match=message):
            Reader(decode=text).decoder(outputs, FEEDS)


FOREIGN = """
from onnxopt.evaluation.decoding import Classes, Decoder, Family

class Mine(Decoder):
    name, task, class_count = "mine", "classify", 2

    def decode(self, outputs, thresholds=None):
        return Classes(outputs["logits"][0])

FAMILY = Family(lambda head, options: Mine() if "logits" in head.outputs else None, "what is mine")
"""


class TestInstalled:
    def test_those_of_others_are_asked_first(self, distribute):
        distribute("mine", {DECODERS: {"mine": "mine_decoder:FAMILY"}}, mine_decoder=FOREIGN)
        assert next(iter(families())) == "mine"
        outputs = {"logits": np.zeros((1, 10), np.float32)}
        decoder = Reader().decoder(outputs, FEEDS)
        assert decoder.name == "mine"
        assert decoder.parts(outputs) == outputs
        assert Reader().decoder({"y": outputs["logits"]}, FEEDS).name == "classes"

    def test_what_is_no_family_is_said(self, distribute):
        distribute("wrong", {DECODERS: {"wrong": "wrong_decoder:X"}}, wrong_decoder="X = 1")
        with pytest.raises(OptimizationError, match=r"'wrong' in group onnxopt\.decoders is no Family"):
            families()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'a', 1: 'b'}", {0: "a", 1: "b"}),
        ("['a']", {0: "a"}),
        ("", None),
        ("import os", None),
        ("{}", None),
        ("7", None),
    ],
)
def test_class_names(text, names):
    assert class_names({"names": text}) == names
