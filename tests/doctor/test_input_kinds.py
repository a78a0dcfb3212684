"""Faults that show without the model."""

import numpy as np
import pytest

from onnxopt.data import InputSpec, open_dataset
from onnxopt.doctor.inputs import Size, alike, constant, few, other_size, twins_of, unreadable
from onnxopt.doctor.sweep import sweep

SPEC = InputSpec("x", (1, 3, 32, 32), np.dtype(np.float32))
VECTOR = InputSpec("v", (1, 6), np.dtype(np.float32))


def pictures(count=20, seed=0):
    """Smooth at random, as pictures are: noise would have the same thumbnail everywhere."""
    coarse = np.random.default_rng(seed).random((count, 1, 3, 8, 8)).astype(np.float32)
    return list(coarse.repeat(4, axis=3).repeat(4, axis=4))


def swept(arrays, spec=SPEC):
    data = open_dataset([{spec.name: array} for array in arrays], [spec], role="calibration")
    return sweep(data, [spec])


def faults(check, arrays, spec=SPEC):
    return [finding.fault for finding in check(swept(arrays, spec))]


@pytest.mark.parametrize("check", [alike, constant, few, unreadable])
def test_right_ones_have_none(check):
    assert faults(check, pictures()) == []
    assert faults(check, np.random.default_rng(0).random((20, 1, 6)).astype(np.float32), VECTOR) == []


def test_constant_samples_and_dead_channels():
    empty = pictures()
    empty[4][:] = 0.3
    assert faults(constant, empty) == ["constant-input"]
    dead = pictures()
    for array in dead:
        array[:, 1] = 0
    [finding] = constant(swept(dead))
    assert finding.fault == "dead-channel"
    assert "Channel 1" in finding.says
    assert finding.sure == 1
    # A channel that is constant in each picture, but not the same in all, carries something.
    for number, array in enumerate(dead):
        array[:, 1] = number
    assert faults(constant, dead) == []


def test_nothing_but_empty_samples_is_said_once():
    arrays = [np.zeros((1, 3, 32, 32), np.float32)] * 20
    assert faults(constant, arrays) == ["constant-input"]
    assert faults(alike, arrays) == []


def test_duplicates():
    assert faults(alike, pictures(1) * 20) == ["duplicates"]
    assert faults(alike, pictures(10) * 2) == ["duplicates"]
    assert faults(alike, pictures(19) + pictures(1)) == []
    assert faults(alike, [np.arange(6, dtype=np.float32)[None] * (i % 2 + 1) for i in range(20)], VECTOR) == [
        "duplicates"
    ]


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_near_duplicates_whatever_the_range(shift):
    random = np.random.default_rng(0)
    distinct = pictures(12)
    frames = [array + random.normal(0, 0.01, array.shape).astype(np.float32) for array in distinct for _ in range(2)]
    frames = [array + np.float32(shift) * np.arange(3, dtype=np.float32)[None, :, None, None] for array in frames]
    assert faults(alike, frames) == ["near-duplicates"]
    assert twins_of(swept(frames).glances) == [(2 * i, 2 * i + 1) for i in range(12)]


def test_few():
    assert faults(few, pictures(15)) == ["few-samples"]
    [finding] = few(swept(pictures(1)))
    assert "one sample" in finding.says


def test_broken_ones_are_named(tmp_path):
    values = np.concatenate(pictures())
    values[7, 0, 0, 0] = np.nan
    np.savez(tmp_path / "d.npz", x=values)
    seen = sweep(open_dataset(tmp_path / "d.npz", [SPEC], role="calibration"), [SPEC])
    [finding] = unreadable(seen)
    assert (finding.fault, finding.sure) == ("unusable-sample", 1)
    assert "sample 7" in finding.says
    assert "NaN" in finding.says
    assert list(few(seen)) == []


def test_another_size():
    [finding] = other_size(Size(SPEC, (320, 320), (640, 640)))
    assert finding.fault == "input-size"
    assert "640 x 640" in finding.advice
    assert list(other_size(Size(SPEC, (64, 64), (64, 64)))) == []
    assert list(other_size(None)) == []
