"""The same model cut to several sizes is studied once, in one process and from one to the next."""

import numpy as np
import pytest

from onnxopt.analysis.compensation.sensitivity import Sensitivity
from onnxopt.analysis.compensation.sharing import Studies

FOUND = {"a": Sensitivity(np.array([2, 0, 1]), {2: 0.1 + 0.2, 1: 1e-9})}


class Counted:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return FOUND


def test_a_measurement_is_made_once_for_each_thing_it_is_of():
    studies, measure = Studies(), Counted()
    assert studies.measured({"graph": "x"}, measure) is studies.measured({"graph": "x"}, measure)
    studies.measured({"graph": "y"}, measure)
    assert measure.times == 2


def test_a_later_process_finds_it_to_the_last_bit(tmp_path):
    measure = Counted()
    Studies(tmp_path / "kept").measured({"graph": "x"}, measure)
    again = Studies(tmp_path / "kept").measured({"graph": "x"}, measure)
    assert measure.times == 1
    assert again["a"].order.tolist() == FOUND["a"].order.tolist()
    assert dict(again["a"].damage) == FOUND["a"].damage


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"order": []}}', "[" * 100_000])
def test_what_cannot_be_read_is_measured_again(tmp_path, text):
    measure = Counted()
    Studies(tmp_path).measured({"graph": "x"}, measure)
    for file in tmp_path.iterdir():
        file.write_text(text)
    Studies(tmp_path).measured({"graph": "x"}, measure)
    assert measure.times == 2
