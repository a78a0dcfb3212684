"""Candidates against the float model, sample by sample."""

import math

import numpy as np
import pytest

from onnxopt.evaluation.float_outputs import FloatOutputs
from onnxopt.testing import parse_graph

NET = "(float[1,4] x) => (float[1,4] y) { y = Identity (x) }"


def outputs(*scales):
    return FloatOutputs(parse_graph(NET), [{"x": np.full((1, 4), scale, np.float32)} for scale in scales])


def off_by(**errors):
    """A candidate whose error depends on how large a sample is."""
    return lambda feeds: {"y": feeds["x"] + np.float32(errors.get(f"at{int(feeds['x'][0, 0])}", 0))}


def test_every_sample_counts_as_much_as_any_other():
    wanted = outputs(10, 1)
    assert wanted.noise(off_by()) == 0
    assert wanted.noise(off_by(at10=1)) == pytest.approx(0.01 / 2)
    assert wanted.noise(off_by(at10=1), most=1) == pytest.approx(0.01)
    # Measured by its own signal the small one would count ten times as much; see LEAST.
    assert wanted.noise(off_by(at1=1)) == pytest.approx(1 / (0.1 * 50.5) / 2)
    assert wanted.sqnr_db(off_by(at1=1))["y"] == pytest.approx(10 * math.log10(101))


def test_samples_without_signal_are_measured_by_the_others():
    assert outputs(0, 10).noise(off_by(at0=1)) == pytest.approx(1 / 5 / 2)
    assert outputs(0).noise(off_by(at0=1)) == math.inf
    assert outputs(0).noise(off_by()) == 0


@pytest.mark.parametrize("broken", [lambda f: {"y": f["x"] * np.nan}, lambda f: {"y": f["x"][:, :2]}])
def test_what_is_no_number_or_of_another_shape_is_all_noise(broken):
    assert outputs(1).noise(broken) == math.inf
    assert outputs(1).worst_sqnr_db(broken) == -math.inf
