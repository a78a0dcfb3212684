"""Boxes and scores are judged apart."""

import numpy as np

from onnxopt.evaluation.parts import output_parts

FEEDS = {"images": np.zeros((1, 3, 96, 96), np.float32)}


def test_a_detector_is_taken_apart():
    output = np.arange(12 * 189, dtype=np.float32).reshape(1, 12, 189)
    parts = output_parts({"o": output}, FEEDS, {})
    assert set(parts) == {"o (boxes)", "o (scores)"}
    np.testing.assert_array_equal(parts["o (boxes)"], np.swapaxes(output[:, :4], 1, 2))
    np.testing.assert_array_equal(parts["o (scores)"], np.swapaxes(output[:, 4:], 1, 2))


def test_others_stay_whole_and_integers_are_left_out():
    outputs = {"logits": np.zeros((1, 10), np.float32), "top": np.zeros((1,), np.int64)}
    assert list(output_parts(outputs, FEEDS, {})) == ["logits"]
